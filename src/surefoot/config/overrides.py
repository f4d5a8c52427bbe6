"""`key=value` of the command line, put into a run.toml."""

from __future__ import annotations

import tomllib
from typing import cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from surefoot.finding import Finding


def override(document: dict[str, object], text: str) -> Finding | None:
    """Sets `a.b=value` in a document; a finding if that is no override or has no place there."""
    key, sign, value = text.partition("=")
    *parents, name = (part.strip() for part in key.split("."))
    unicode = text.encode(errors="ignore").decode() == text  # argv may carry other bytes
    if not sign or not name or not all(parents) or not unicode:
        return Finding("SF005", "error", "", {"override": text})
    table: object = document
    for part in parents:
        table = _entered(table, part)
    if isinstance(table, dict):
        cast(dict[str, object], table)[name] = _overriding(value)
    elif isinstance(table, list) and _entered(cast(list[object], table), name) is not None:
        cast(list[object], table)[int(name)] = _overriding(value)
    else:
        return Finding("SF005", "error", "", {"override": text})
    return None


def with_overrides(text: str, overrides: tuple[str, ...]) -> str:
    """A run.toml as it would be if the overrides stood in it; its comments are kept."""
    if not overrides:
        return text
    expected = tomllib.loads(text)
    for item in overrides:
        override(expected, item)
    try:
        document = cast(dict[str, object], tomlkit.parse(text))
        for item in overrides:
            override(document, item)
        written = tomlkit.dumps(document)
        if tomllib.loads(written) == expected:
            return written
    except (TOMLKitError, ValueError, TypeError, AttributeError):
        pass  # such as a table in a list that was replaced by a number
    # What tomlkit cannot change in place is written anew: right, if without its comments.
    return tomlkit.dumps(expected)


def _entered(table: object, part: str) -> object:
    """What is inside a table (made if need be) or a list, `None` if there is no such thing."""
    if isinstance(table, dict):
        return cast(dict[str, object], table).setdefault(part, {})
    if isinstance(table, list) and part.isascii() and part.isdigit():
        items = cast(list[object], table)
        return items[int(part)] if int(part) < len(items) else None
    return None


def _overriding(value: str) -> object:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        # A bare word is what people type in a shell: optimizer.kind=adamw.
        return value.strip()
