"""Where in the text of a TOML file a key stands."""

from __future__ import annotations

import re

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*="""
)


def line_of(text: str, path: str) -> int:
    """The line, from 1, of a dotted path such as `data.folders.0.path`.

    A path that is not written there (a default) gives its nearest parent's line, 0 if none.
    """
    places = _places(text)
    parts = path.split(".")
    while parts:
        if ".".join(parts) in places:
            return places[".".join(parts)]
        parts.pop()
    return 0


def _places(text: str) -> dict[str, int]:
    places: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _plain(header[2])
            if header[1] == "[[":
                index = counts.get(table, -1) + 1
                counts[table] = index
                places.setdefault(table, number)
                table = f"{table}.{index}"
            places[table] = number
        elif key := _KEY.match(line):
            name = _plain(key[1])
            places[f"{table}.{name}" if table else name] = number
            # `optimizer.lr = 1` also opens `optimizer`.
            for dot in (match.start() for match in re.finditer(r"\.", name)):
                parent = f"{table}.{name[:dot]}" if table else name[:dot]
                places.setdefault(parent, number)
    return places


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
