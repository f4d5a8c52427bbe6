"""Changes made in the text of a run.toml, whose comments and layout stay."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import cast

import tomlkit
from tomlkit.exceptions import TOMLKitError

from surefoot.config.lines import line_of, place_of
from surefoot.config.load import UNIONS
from surefoot.config.overrides import override
from surefoot.finding import Change

_HEADER = re.compile(r"^\s*\[")


def repaired(text: str, changes: Sequence[Change]) -> str:
    """The text with the changes in it; one that cannot be made in place is left out.

    A section that becomes one of another kind loses the keys that only its old kind has.
    """
    for change in changes:
        text = _with(text, change)
        section, _dot, key = change.path.partition(".")
        if key == "kind" and section in UNIONS:
            for foreign in _foreign(text, section):
                text = _with(text, Change(f"{section}.{foreign}", "", "", "remove"))
    return text


def _foreign(text: str, section: str) -> list[str]:
    """Keys of a section that its kind does not have."""
    table = _parsed(text).get(section)
    if not isinstance(table, dict):
        return []
    keys = cast(dict[str, object], table)
    model = UNIONS[section].get(str(keys.get("kind")))
    return [] if model is None else [key for key in keys if key not in model.model_fields]


def _with(text: str, change: Change) -> str:
    expected = _parsed(text)
    if not _apply(expected, change):
        return text
    for attempt in (_by_text, _by_tomlkit):
        try:
            written = attempt(text, change)
            if _without_empty(_parsed(written)) == _without_empty(expected):
                return written
        except (TOMLKitError, ValueError, TypeError, AttributeError, LookupError):
            continue
    return text


def _without_empty(document: dict[str, object]) -> dict[str, object]:
    """Without sections that say nothing, such as one that has lost its only key."""
    pruned = {
        key: _without_empty(cast(dict[str, object], value)) if isinstance(value, dict) else value
        for key, value in document.items()
    }
    return {key: value for key, value in pruned.items() if value != {}}


def _parsed(text: str) -> dict[str, object]:
    return tomllib.loads(text)


def _apply(document: dict[str, object], change: Change) -> bool:
    """Changes a document of plain tables; False where it has no such place."""
    if change.action == "set":
        return override(document, f"{change.path}={change.value}") is None
    parent, _dot, name = change.path.rpartition(".")
    table: object = document
    for part in parent.split(".") if parent else ():
        table = _inside(table, part)
    if _inside(table, name) is None:
        return False
    if isinstance(table, list):
        cast(list[object], table).pop(int(name))
        return change.action == "remove"
    assert isinstance(table, dict)
    table = cast(dict[str, object], table)
    value = table.pop(name)
    if change.action == "rename":
        if change.value in table:
            return False
        table[change.value] = value
    return True


def _inside(table: object, part: str) -> object:
    """What a table has under a key or a list at an index, `None` if nothing."""
    if isinstance(table, dict):
        return cast(dict[str, object], table).get(part)
    if isinstance(table, list) and part.isdecimal():
        items = cast(list[object], table)
        return items[int(part)] if int(part) < len(items) else None
    return None


def _by_text(text: str, change: Change) -> str:
    """New keys at the end of their section, and new names, which tomlkit puts elsewhere."""
    lines = text.split("\n")
    parent, _dot, name = change.path.rpartition(".")
    place = place_of(text, change.path)
    if change.action == "rename" and place is not None:
        line = lines[place.line - 1]
        pattern = rf"^(\s*\[*(?:[^=\[\]]*\.)?\s*[\"']?){re.escape(name)}\b"
        lines[place.line - 1] = re.sub(pattern, rf"\g<1>{change.value}", line, count=1)
    elif change.action == "set" and parent and not line_of(text, parent):
        ending = [] if lines[-1:] == [""] else [""]
        lines += [*ending, f"[{parent}]", f"{name} = {change.value}", ""]
    elif change.action == "set" and line_of(text, parent) == line_of(text, change.path):
        lines.insert(_end_of_section(lines, line_of(text, parent)), f"{name} = {change.value}")
    else:
        raise ValueError(change)
    return "\n".join(lines)


def _end_of_section(lines: list[str], header: int) -> int:
    """Where a line can be put that belongs to the section whose header is line `header`."""
    end = header
    for number in range(header, len(lines)):
        if _HEADER.match(lines[number]):
            break
        if lines[number].strip() and not lines[number].lstrip().startswith("#"):
            end = number + 1
    return end


def _by_tomlkit(text: str, change: Change) -> str:
    document = cast(dict[str, object], tomlkit.parse(text))
    if not _apply(document, change):
        raise ValueError(change)
    return tomlkit.dumps(document)
