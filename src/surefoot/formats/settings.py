"""The JSON settings of a diffusers folder, their faults noted instead of raised. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar, cast, final

from surefoot.language import N_

T = TypeVar("T")
Fault: TypeAlias = tuple[Path, str]
"""A file and why it cannot be used."""


@final
class Settings:
    """One file of settings. Each question notes a fault and answers with the default if need be."""

    def __init__(self, file: Path, faults: list[Fault]) -> None:
        """Reads the file; later faults go to the same list."""
        self._file = file
        self._faults = faults
        before = len(faults)
        self._values = read_or_note(file, _read_json, {}, faults)
        self._readable = len(faults) == before

    def one_of(self, key: str, known: Sequence[str], default: str) -> str:
        """One of the known words; the default if it is not there."""
        value = self._values.get(key, default)
        return str(value) if value in known else self._note(key, default)

    def length(self, key: str) -> int:
        """The length of a list that must not be empty."""
        value = self._values.get(key)
        if isinstance(value, list) and value:
            return len(cast(list[object], value))
        return self._note(key, 1)

    def size(self, key: str, default: int) -> int:
        """A whole number above 0; the default if it is not there or null."""
        value = self._values.get(key)
        if value is None and self._readable:
            return default
        return value if type(value) is int and value > 0 else self._note(key, default)

    def flag(self, key: str) -> bool:
        """True or false; false if it is not there or null."""
        value = self._values.get(key)
        return value if isinstance(value, bool) else value is not None and self._note(key, False)

    def _note(self, key: str, otherwise: T) -> T:
        if self._readable:
            self._faults.append((self._file, f"{key} = {json.dumps(self._values.get(key))}"))
        return otherwise


def read_or_note(file: Path, reader: Callable[[Path], T], otherwise: T, faults: list[Fault]) -> T:
    """What `reader` makes of a file; `otherwise`, and a fault, if it cannot be read."""
    try:
        return reader(file)
    except OSError as error:
        faults.append((file, error.strerror or type(error).__name__))
    except ValueError as error:
        faults.append((file, str(error)))
    return otherwise


def _read_json(path: Path) -> dict[str, object]:
    try:
        values: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(N_("it is not readable as JSON")) from None
    if not isinstance(values, dict):
        raise ValueError(N_("it holds no settings"))
    return cast(dict[str, object], values)
