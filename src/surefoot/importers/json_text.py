"""JSON as trainers' users write it: with comments and trailing commas, each key with its line."""

from __future__ import annotations

import json
import re

from surefoot.importers.document import DEEPEST, Document, Unreadable, flattened
from surefoot.language import N_

_SPACE = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_NUMBER = re.compile(r"-?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Infinity)|NaN")
_WORDS: dict[str, object] = {"true": True, "false": False, "null": None}
_LONGEST_NUMBER = 400


def read_json(text: str, below: str = "") -> Document:
    """Reads a JSON object.

    Args:
        text: The text.
        below: A key under which all is put; then it may be a list.

    Raises:
        Unreadable: With the line of what is wrong.
    """
    reader = _Reader(text)
    value = reader.value(below, 0)
    reader.space()
    if reader.place < len(text):
        raise reader.wrong(N_("something follows after the end"))
    return Document("json", flattened({below: value} if below else value), reader.lines)


class _Reader:
    """A place in the text that moves forward."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.lines: dict[str, int] = {}
        self._counted = (0, 1)  # a place and its line, so that counting goes on from there

    def space(self) -> None:
        found = _SPACE.match(self.text, self.place)
        self.place = found.end() if found else self.place

    def line(self) -> int:
        place, line = self._counted
        line += self.text.count("\n", place, self.place)
        self._counted = (self.place, line)
        return line

    def wrong(self, reason: str) -> Unreadable:
        return Unreadable(reason, self.line())

    def value(self, path: str, depth: int) -> object:
        if depth > DEEPEST:
            raise self.wrong(N_("nested too deep"))
        self.space()
        if path:
            self.lines.setdefault(path, self.line())
        if self._takes("{"):
            return self._table(path, depth)
        if self._takes("["):
            return self._list(path, depth)
        if string := _STRING.match(self.text, self.place):
            self.place = string.end()
            return self._string(string[0])
        if number := _NUMBER.match(self.text, self.place):
            self.place = number.end()
            return self._number(number[0])
        for word, value in _WORDS.items():
            if self._takes(word):
                return value
        raise self.wrong(N_("a value is expected"))

    def _takes(self, sign: str) -> bool:
        if not self.text.startswith(sign, self.place):
            return False
        self.place += len(sign)
        return True

    def _table(self, path: str, depth: int) -> dict[str, object]:
        table: dict[str, object] = {}
        while True:
            self.space()
            if self._takes("}"):
                return table
            key = _STRING.match(self.text, self.place)
            if key is None:
                raise self.wrong(N_("a key in double quotes is expected"))
            name = self._string(key[0])
            inner = f"{path}.{name}" if path else name
            self.lines[inner] = self.line()
            self.place = key.end()
            self.space()
            if not self._takes(":"):
                raise self.wrong(N_("a colon is expected"))
            table[name] = self.value(inner, depth + 1)
            self.space()
            if not self._takes(",") and not self.text.startswith("}", self.place):
                raise self.wrong(N_("a comma or a closing bracket is expected"))

    def _list(self, path: str, depth: int) -> list[object]:
        items: list[object] = []
        while True:
            self.space()
            if self._takes("]"):
                return items
            items.append(self.value(f"{path}.{len(items)}", depth + 1))
            self.space()
            if not self._takes(",") and not self.text.startswith("]", self.place):
                raise self.wrong(N_("a comma or a closing bracket is expected"))

    def _string(self, text: str) -> str:
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            raise self.wrong(N_("a text with a backslash that means nothing")) from None

    def _number(self, text: str) -> object:
        if len(text) > _LONGEST_NUMBER:
            raise self.wrong(N_("a number of too many digits"))
        whole = text.removeprefix("-").isdigit()
        return int(text) if whole else float(text.replace("Infinity", "inf"))
