"""Where in the text of a TOML file a key stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)
# What can hide a line's end, or is one: strings (of several lines first), comments, brackets.
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[][{}\n]''',
    re.DOTALL,
)


@dataclass(frozen=True)
class Place:
    """A statement of the file: its line and column, from 1, and its first line without comment."""

    line: int
    column: int
    statement: str


def line_of(text: str, path: str) -> int:
    """The line, from 1, of a dotted path such as `data.folders.0.path`.

    A path that is not written there (a default) gives its nearest parent's line, 0 if none.
    """
    places = lines_of(text)
    parts = path.split(".")
    while parts:
        if ".".join(parts) in places:
            return places[".".join(parts)]
        parts.pop()
    return 0


def place_of(text: str, path: str) -> Place | None:
    """The statement that `line_of` finds, `None` if there is none."""
    number = line_of(text, path)
    if not number:
        return None
    line = text.split("\n")[number - 1]
    comments = [token.start() for token in _TOKEN.finditer(line) if token[0].startswith("#")]
    statement = line[: comments[0]] if comments else line
    return Place(number, len(line) - len(line.lstrip()) + 1, statement.strip())


def lines_of(text: str) -> dict[str, int]:
    """The line, from 1, of every dotted path that the text has."""
    places: dict[str, int] = {}
    last: dict[str, int] = {}  # of each array of tables, the index of its newest
    table = ""
    for number, statement in _statements(text):
        if header := _HEADER.match(statement):
            table = _indexed(_plain(header[2]), last)
            _open_parents(places, table, number)
            if header[1] == "[[":
                last[table] = last.get(table, -1) + 1
                places.setdefault(table, number)
                table = f"{table}.{last[table]}"
            places[table] = number
        elif key := _KEY.match(statement):
            name = f"{table}.{_plain(key[1])}" if table else _plain(key[1])
            places[name] = number
            _open_parents(places, name, number)
    return places


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement with the number of its first line; arrays and strings may take several."""
    number, start, depth = 1, 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        elif token[0] == "\n" and depth <= 0:
            statement = text[start : token.start()]
            yield number, statement
            number, start, depth = number + statement.count("\n") + 1, token.end(), 0
    yield number, text[start:]


def _open_parents(places: dict[str, int], name: str, number: int) -> None:
    """`optimizer.lr = 1` also opens `optimizer`."""
    for dot in re.finditer(r"\.", name):
        places.setdefault(name[: dot.start()], number)


def _indexed(name: str, last: dict[str, int]) -> str:
    """The path with indices: below `[[data.folders]]`, `[data.folders.x]` is in its newest."""
    path = ""
    for part in name.split("."):
        if path in last:
            path = f"{path}.{last[path]}"
        path = f"{path}.{part}" if path else part
    return path


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
