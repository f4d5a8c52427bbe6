"""Files of other trainers for tests: read from `files`, or written on the spot."""

from __future__ import annotations

from pathlib import Path

from surefoot.importers.judge import Reading
from surefoot.importers.reading import readings
from surefoot.importers.recognise import recognise
from surefoot.importers.record import Trainer

FILES = Path(__file__).parent / "files"


def reading_of(path: Path, trainer: Trainer) -> Reading:
    """The commonest reading of a file, which must be that trainer's."""
    theirs = recognise(path)
    assert theirs is not None
    assert theirs.trainer == trainer
    return readings(theirs, path)[0]


def changed(name: str, old: str, new: str, folder: Path) -> Path:
    """A file with one thing written otherwise."""
    text = (FILES / name).read_text(encoding="utf-8")
    assert old in text
    path = folder / name
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def codes(reading: Reading) -> set[str]:
    """The codes of what was found."""
    return {finding.code for finding in reading.findings}
