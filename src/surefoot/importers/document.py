"""A file of another trainer as flat keys with their lines, whatever format it is written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from surefoot.config.text_file import read_whole, unreadable
from surefoot.language import N_

Format = Literal["json", "yaml", "toml", "command", "env"]
Scalar = str | int | float | bool | None
Leaf = Scalar | tuple[Scalar, ...]

FORMAT_NAMES: dict[Format, str] = {
    "json": "JSON", "yaml": "YAML", "toml": "TOML", "command": "command line", "env": "env",
}  # fmt: skip
MOST_KEYS = 50_000
DEEPEST = 40


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        values: Dotted key to value; items of lists have their number, lists of plain values are
            one value.
        lines: Dotted key to its line, from 1.
        script: Of a command line, the name of the script that is run.
    """

    format: Format
    values: Mapping[str, Leaf]
    lines: Mapping[str, int] = field(default_factory=dict[str, int])
    script: str = ""

    def has(self, *keys: str) -> bool:
        """Whether any of these keys, or anything below one, is there."""
        return any(
            key in self.values or any(name.startswith(f"{key}.") for name in self.values)
            for key in keys
        )

    def items(self, key: str) -> int:
        """How many tables the list under this key has."""
        begin = f"{key}."
        numbers = {name[len(begin) :].partition(".")[0] for name in self.values
                   if name.startswith(begin)}  # fmt: skip
        return next(count for count in range(len(numbers) + 1) if str(count) not in numbers)


class Unreadable(Exception):
    """Text that is not of a format, why, and the line (0 where it is not known)."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        Refused: If it cannot be read, is no text, or is too large for a config.
    """
    content = read_whole(path)
    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise unreadable(path, N_("not text but binary data"))
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise unreadable(path, N_("not UTF-8 text")) from None


def flat(value: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Leaf]]:
    """Each leaf of nested tables and lists with its dotted key.

    Raises:
        Unreadable: If it is nested too deep.
    """
    if depth > DEEPEST:
        raise Unreadable(N_("nested too deep"))
    if isinstance(value, dict) and value:
        for key, item in cast(dict[object, object], value).items():
            yield from flat(item, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(value, list | tuple):
        items = cast(list[object], value)
        if any(isinstance(item, dict | list | tuple) for item in items):
            for number, item in enumerate(items):
                yield from flat(item, f"{prefix}.{number}", depth + 1)
        else:
            yield prefix, tuple(_scalar(item) for item in items)
    elif prefix:
        yield prefix, () if isinstance(value, dict) else _scalar(value)


def flattened(value: object) -> dict[str, Leaf]:
    """All leaves by their dotted keys.

    Raises:
        Unreadable: If it is no table, nested too deep, or has too many keys.
    """
    if not isinstance(value, dict):
        raise Unreadable(N_("not a table of keys and values"))
    leaves: dict[str, Leaf] = {}
    for key, leaf in flat(cast(object, value)):
        leaves[key] = leaf
        if len(leaves) > MOST_KEYS:
            raise Unreadable(N_("too many keys"))
    return leaves


def _scalar(value: object) -> Scalar:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)  # dates and the like
