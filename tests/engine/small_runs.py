"""Whole runs on the smallest pipeline and a few drawn pictures, as the command line makes them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from rich.console import Console
from torch import Tensor

from surefoot.check.rules import review
from surefoot.config.load import Loaded, load
from surefoot.engine import loop
from surefoot.engine.assemble import assemble
from surefoot.engine.checkpoint import State
from surefoot.engine.events import Events
from surefoot.engine.progress import Reporter
from surefoot.engine.run import Summary, run
from surefoot.engine.session import Session
from surefoot.plan import Plan, resolve
from surefoot.survey import Survey, survey
from tests.tiny_sd import build_tiny_pipeline

SIDE = 64  # pixels; 8x8 latents

Values = Mapping[str, Any]


def write_model(folder: Path, seed: int = 0) -> Path:
    """The tiny pipeline as a diffusers folder."""
    build_tiny_pipeline(seed).save_pretrained(folder)
    return folder


def write_pictures(folder: Path, count: int, first: int = 0) -> Path:
    """Pictures that all differ and are not their own mirror images, with captions."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        picture = Image.new("RGB", (SIDE, SIDE), (37 * number % 256, 90, 255 - 23 * number % 256))
        draw = ImageDraw.Draw(picture)
        draw.ellipse((4 + number, 8, 30 + number, 40), fill=(250, 11 * number % 256, 20))
        picture.save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(f"shape {number}, red", encoding="utf-8")
    return folder


def settings(model: Path, pictures: Path, held_out: Path) -> dict[str, Any]:
    """A run of a few seconds; tests change single keys of it."""
    return {
        "name": "small",
        "seed": 3,
        "model": {"path": str(model)},
        "tuning": {"kind": "lora", "rank": 2, "targets": "attention"},
        "optimizer": {"kind": "adafactor", "lr": 0.01},
        "data": {"folders": [{"path": str(pictures)}]},
        "train": {"steps": 6, "batch_size": 2, "device": "cpu"},
        "validation": {"folder": str(held_out), "every": 3, "draws": 1},
        "save": {"every": 2},
    }


@dataclass(frozen=True)
class SmallRun:
    """A run.toml and what became of it so far."""

    loaded: Loaded
    plan: Plan
    found: Survey

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.plan.run_folder


def prepare(folder: Path, values: Values, **changes: object) -> SmallRun:
    """Writes run.toml and plans it.

    Args:
        folder: Where run.toml goes, and `runs/` beside it.
        values: As `settings` makes them.
        changes: Dotted keys, with `__` for the dots, to other values.
    """
    file = write_run(folder, values, **changes)
    loaded = load(file)
    found = survey(loaded)
    planned = resolve(loaded, found)
    errors = [finding for finding in review(planned, found) if finding.unusable]
    assert errors == []
    return SmallRun(loaded, planned, found)


def write_run(folder: Path, values: Values, **changes: object) -> Path:
    """Only writes run.toml; see `prepare`."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(json.dumps(values))
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    file = folder / "run.toml"
    file.write_text(_toml(document), encoding="utf-8")
    return file


def train(small: SmallRun, reporter: Reporter | None = None) -> Summary:
    """Trains it as `surefoot train` does."""
    return run(small.loaded, small.plan, small.found, [], reporter or quiet_reporter())


@contextmanager
def session_of(small: SmallRun, state: State | None = None) -> Iterator[Session]:
    """The live parts of a run, without the loop."""
    small.folder.mkdir(parents=True, exist_ok=True)
    with Events(small.folder, 0) as events:
        yield assemble(small.plan, small.found, events, state)


def quiet_reporter() -> Reporter:
    """Writes into a buffer: `reporter.console.file.getvalue()`."""
    return Reporter(Console(file=io.StringIO(), width=200))


def said(reporter: Reporter) -> str:
    """What a quiet reporter was told."""
    assert isinstance(reporter.console.file, io.StringIO)
    return reporter.console.file.getvalue()


def _toml(document: Values) -> str:
    """Values first, then sections, then lists of sections, as TOML wants them."""
    lines: list[str] = []
    for key, value in document.items():
        if not isinstance(value, dict):
            lines.append(f"{key} = {_literal(value)}")
    for key, value in document.items():
        if isinstance(value, dict):
            lines.append(f"[{key}]")
            lines += [f"{name} = {_literal(inner)}" for name, inner in value.items()]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(key)} = {_literal(inner)}" for key, inner in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_literal(inner) for inner in value) + "]"
    return json.dumps(value)


def train_until(small: SmallRun, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains, and is interrupted in the forward pass of that step, counted from 0."""
    original = loop._loss

    def loss(session: Session, at: int, part: int) -> Tensor:
        if at == step:
            raise KeyboardInterrupt
        return original(session, at, part)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_loss", loss)
        with pytest.raises(KeyboardInterrupt):
            train(small)
