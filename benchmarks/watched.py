"""Short runs of the built-in model, and what the watch said of them."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tomlkit
from rich.console import Console

from surefoot.builtin import BUILTIN_TRAIN, BUILTIN_VALIDATION
from surefoot.check.rules import review
from surefoot.config.load import load
from surefoot.engine.events import read_events
from surefoot.engine.progress import Reporter
from surefoot.engine.run import Summary, run
from surefoot.finding import Finding, Refused
from surefoot.plan import Plan, resolve
from surefoot.survey import survey

PROMPTS = ("red apple, food fruit", "panda face, animal mammal")
HELD_OUT = 24  # pictures


@dataclass(frozen=True)
class Told:
    """What was said of a run.

    Attributes:
        foretold: Codes of the errors that the check found beforehand.
        verdicts: Those that were another than before, by step.
        codes: What was found while training, by step.
        validations: The validation loss by step.
        stopped_at: The step at which the watch ended it, or the loop; 0 if neither did.
        result: What was exported; the run folder if nothing was.
        result_steps: What that was trained for.
    """

    foretold: tuple[str, ...]
    verdicts: dict[int, str]
    codes: dict[int, str]
    validations: dict[int, float]
    stopped_at: int
    result: Path
    result_steps: int
    seconds: float


def watched(
    folder: Path,
    name: str,
    overrides: tuple[str, ...],
    *,
    steps: int,
    pictures: int = 0,
    changes: Mapping[str, Mapping[str, object]] | None = None,
) -> Told:
    """Trains it anew, whatever the check says, with `on_trouble` and all as the sections say.

    Args:
        folder: Where the run file goes, and `runs/` beside it.
        name: The run's name; a run of that name is removed before.
        overrides: As the command line takes them.
        steps: Of the run.
        pictures: How many it learns from; 0 for all.
        changes: Keys of sections of the run file.
    """
    shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    loaded = load(_write(folder, name, steps, pictures, changes or {}), overrides)
    found = survey(loaded)
    plan = resolve(loaded, found)
    findings = review(plan, found)
    started = time.monotonic()
    quiet = Reporter(Console(file=io.StringIO(), width=200))
    try:
        summary = run(loaded, plan, found, findings, quiet)
    except Refused as refused:  # the run ended itself, by gradients that are not finite
        (ended,) = refused.findings
        return _told(plan, findings, None, ended, time.monotonic() - started)
    return _told(plan, findings, summary, None, time.monotonic() - started)


def _told(
    plan: Plan,
    findings: Sequence[Finding],
    summary: Summary | None,
    ended: Finding | None,
    seconds: float,
) -> Told:
    events = cast(list[dict[str, Any]], read_events(plan.run_folder))
    codes = dict(_codes(events))
    at = 0
    if ended is not None:
        at = int(str(ended.values["step"]))
        codes[at] = ended.code
    return Told(
        foretold=tuple(item.code for item in findings if item.level == "error"),
        verdicts=dict(_changes(events)),
        codes=codes,
        validations={
            event["step"]: float(event["loss"])
            for event in events
            if event["event"] == "validation"
        },
        stopped_at=at if summary is None else summary.stopped_at,
        result=plan.run_folder if summary is None else summary.export,
        result_steps=0 if summary is None else summary.steps,
        seconds=seconds,
    )


def _write(
    folder: Path,
    name: str,
    steps: int,
    pictures: int,
    changes: Mapping[str, Mapping[str, object]],
) -> Path:
    train = _some(BUILTIN_TRAIN, pictures, folder / f"train-{pictures}") if pictures else "builtin"
    held_out = _some(BUILTIN_VALIDATION, HELD_OUT, folder / "held-out")
    document: dict[str, dict[str, object]] = {
        "model": {"path": "builtin"},
        "data": {"folders": [{"path": train}]},
        "train": {"steps": steps, "batch_size": 4, "device": "cpu"},
        "validation": {"folder": held_out, "every": max(1, steps // 2), "draws": 2},
        "preview": {"prompts": list(PROMPTS), "every": steps, "steps": 10},
        "save": {"every": steps},
    }
    for section, values in changes.items():
        document.setdefault(section, {}).update(values)
    file = folder / f"{name}.toml"
    file.write_text(tomlkit.dumps({"name": name, **document}), encoding="utf-8")
    return file


def _some(source: Path, count: int, folder: Path) -> str:
    """A folder of some of the pictures, evenly spread; made once."""
    if not folder.exists():
        folder.mkdir(parents=True)
        pictures = sorted(source.glob("*.png"))
        for picture in pictures[:: len(pictures) // count][:count]:
            shutil.copy2(picture, folder)
            shutil.copy2(picture.with_suffix(".txt"), folder)
    return str(folder)


def _changes(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    before = ""
    for event in events:
        if event["event"] == "verdict" and event["verdict"] != before:
            before = event["verdict"]
            yield event["step"], before


def _codes(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """A finding bears no step: it is that of the event before it."""
    step = 0
    for event in events:
        step = int(event.get("step", step))
        if event["event"] == "finding":
            yield step, event["finding"]["code"]
