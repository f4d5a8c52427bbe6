"""run.toml files, pictures and calls of the command line, for tests that need no training."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
from PIL import Image
from typer.testing import CliRunner, Result

from surefoot.check.rules import review
from surefoot.cli import command_line
from surefoot.config.load import load
from surefoot.finding import Finding
from surefoot.language import choose
from surefoot.plan import Plan, resolve
from surefoot.survey import Survey, survey


def write_pictures(folder: Path, count: int = 2, side: int = 64) -> Path:
    """Pictures of noise with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(8)
    for number in range(count):
        pixels = noise.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"noise {number}", encoding="utf-8")
    return folder


def write_run(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A run.toml without findings beside two pictures in `pictures`.

    Args:
        folder: Where it goes.
        changes: Dotted keys to their values.
    """
    if not (folder / "pictures").exists():
        write_pictures(folder / "pictures")
    document: dict[str, Any] = {
        "name": "cat",
        "model": {"path": "builtin"},
        "tuning": {"kind": "dora"},
        "optimizer": {"kind": "adafactor"},
        "data": {"folders": [{"path": "pictures"}]},
        "train": {"steps": 120, "batch_size": 2, "device": "cpu"},
    }
    for path, value in (changes or {}).items():
        *parents, name = path.split(".")
        table = document
        for parent in parents:
            table = table.setdefault(parent, {})
        table[name] = value
    path = folder / "run.toml"
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    return path


def look(run_file: Path, *overrides: str) -> tuple[Plan, Survey, list[Finding]]:
    """The plan, the survey and all findings."""
    loaded = load(run_file, overrides)
    found = survey(loaded)
    planned = resolve(loaded, found)
    return planned, found, review(planned, found)


def surefoot(*arguments: str | Path) -> Result:
    """The command line in this process, in English unless told; what it raises is raised here."""
    words = [str(argument) for argument in arguments]
    environment = {"SUREFOOT_LANG": "en", "TERM": "dumb", "COLUMNS": "200"}
    try:
        return CliRunner().invoke(command_line(), words, env=environment, catch_exceptions=False)
    finally:
        choose("en")  # the language is the process's


def findings_in(result: Result) -> list[dict[str, Any]]:
    """What `check --json` printed."""
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    return document["findings"]


def codes(result: Result) -> list[str]:
    """The codes of the findings that were printed."""
    return re.findall(r"\[(SF\d{3})\]", result.output)
