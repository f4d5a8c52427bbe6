"""The results file: one line of JSON for each finished case, so that a study can go on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import final

from filelock import FileLock

from benchmarks.study.cases import FULL, WEIGHT_SETTINGS, Case


@dataclass(frozen=True)
class Protocol:
    """What is the same for all cases that may be compared.

    Attributes:
        series: A name for what was changed in the weight rule; empty for nothing.
        up_factor: `LORA_UP_FACTOR` of the weight rule.
        down_factor: `LORA_DOWN_FACTOR` of the weight rule.
    """

    series: str
    steps: int
    batch: int
    up_factor: float
    down_factor: float


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        untrained: Held-out loss without training, by the same noise.
        loss: Held-out loss after it; NaN if training was given up.
        train_loss: Mean training loss of the last ten steps.
        up_rms: Root mean square of `lora_up` at the end, mean over layers; 0 without an adapter.
        down_rms: The same of `lora_down`.
        diverged: Whether a loss or a gradient was not finite.
        seconds: All of the case; `images_per_second` counts the training steps only.
    """

    untrained: float
    loss: float
    train_loss: float
    up_rms: float
    down_rms: float
    diverged: bool
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Result:
    """One line of the file."""

    protocol: Protocol
    method: str
    setting: str
    lr: float
    seed: int
    outcome: Outcome

    @property
    def name(self) -> str:
        """As `Case.name`."""
        return f"{self.setting}, {self.method}, lr {self.lr:g}, seed {self.seed}"

    @property
    def judged_loss(self) -> float:
        """The held-out loss, infinity if it diverged."""
        loss = self.outcome.loss
        return loss if math.isfinite(loss) and not self.outcome.diverged else math.inf


def result_of(case: Case, protocol: Protocol, outcome: Outcome) -> Result:
    """The line of a case."""
    return Result(protocol, case.method.name, case.setting, case.lr, case.seed, outcome)


@final
class ResultsFile:
    """Appends and reads; several processes may share one file."""

    def __init__(self, path: Path) -> None:
        """Makes the folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = FileLock(path.with_name(path.name + ".lock"))

    def append(self, result: Result) -> None:
        """Adds a line, which is on the disk when this returns."""
        values = {
            **asdict(result.protocol),
            "method": result.method,
            "setting": result.setting,
            "lr": result.lr,
            "seed": result.seed,
            **asdict(result.outcome),
        }
        plain = {key: _plain(value) for key, value in values.items()}
        with self._lock, self._path.open("a+b") as file:
            line = json.dumps(plain).encode() + b"\n"
            file.write(line if self._is_whole() else b"\n" + line)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Result]:
        """All whole lines; one that a kill has cut short is left out."""
        if not self._path.exists():
            return []
        found: list[Result] = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(_result(json.loads(line)))
            except (ValueError, KeyError):
                continue
        return found

    def _is_whole(self) -> bool:
        return self._path.read_bytes()[-1:] in (b"", b"\n")


def of_protocol(results: Iterable[Result], protocol: Protocol) -> dict[str, Result]:
    """Name of a case to its result, of those that are as this protocol would have them.

    The weight rule counts only where it acts, on adapters under `"weight"`: other results serve
    every variant of it. A later line replaces an earlier one.
    """
    return {result.name: result for result in results if _belongs(result, protocol)}


def _belongs(result: Result, protocol: Protocol) -> bool:
    if result.method != FULL.name and result.setting in WEIGHT_SETTINGS:
        return result.protocol == protocol
    return (result.protocol.steps, result.protocol.batch) == (protocol.steps, protocol.batch)


def _plain(value: object) -> object:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _result(values: dict[str, object]) -> Result:
    filled = {key: math.nan if value is None else value for key, value in values.items()}
    protocol = Protocol(**{field.name: filled[field.name] for field in fields(Protocol)})  # pyright: ignore[reportArgumentType]
    outcome = Outcome(**{field.name: filled[field.name] for field in fields(Outcome)})  # pyright: ignore[reportArgumentType]
    return Result(
        protocol,
        str(filled["method"]),
        str(filled["setting"]),
        float(str(filled["lr"])),
        int(str(filled["seed"])),
        outcome,
    )
