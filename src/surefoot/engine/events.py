"""What happened, as it happens: events.jsonl, and TensorBoard beside it."""

from __future__ import annotations

import json
import math
import time
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Self, final

from torch.utils.tensorboard import SummaryWriter

from surefoot.finding import Finding

EventValue = str | int | float | bool | dict[str, object]


@final
class Events:
    """Appends to a run's events.jsonl; each line is whole before the next begins."""

    def __init__(self, run_folder: Path, first_step: int) -> None:
        """Opens the log; scalars of steps that will be done again are hidden in TensorBoard."""
        self._file = _open_log(run_folder / "events.jsonl")
        # Scalars of a step bear the number of steps done, so that of the checkpoint itself stays.
        self._writer = SummaryWriter(str(run_folder / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> Self:
        """Used in a `with`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes both files, and says why if an error ends the run."""
        if kind is not None:
            self.write("ended", reason=kind.__name__)
        self._file.close()
        self._writer.close()

    def write(self, event: str, **values: EventValue) -> None:
        """Appends one event with the time in seconds since 1970."""
        plain = {name: _plain(value) for name, value in values.items()}
        line = json.dumps({"event": event, "time": round(time.time(), 3), **plain})
        self._file.write(line + "\n")
        self._file.flush()

    def finding(self, finding: Finding) -> None:
        """Appends a finding made while running."""
        self.write("finding", finding=finding.as_json())

    def scalars(self, event: str, step: int, **values: float) -> None:
        """Appends numbers of a step, and draws them in TensorBoard."""
        self.write(event, step=step, **values)
        for name, value in values.items():
            self._writer.add_scalar(f"{event}/{name}", value, step)


def _open_log(path: Path) -> TextIOWrapper:
    """Opened so that the next line does not run on from one that a kill cut short."""
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    file = path.open("a", encoding="utf-8")
    if not whole:
        file.write("\n")
    return file


def _plain(value: EventValue) -> EventValue:
    """JSON has no NaN and no infinity; `float` reads their names."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def read_events(run_folder: Path) -> list[dict[str, object]]:
    """All whole events of a run, oldest first; a line cut short by a kill is left out."""
    path = run_folder / "events.jsonl"
    events: list[dict[str, object]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
