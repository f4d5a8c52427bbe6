"""Reads the keys of a document one by one and keeps account of what becomes of each."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from surefoot.finding import Finding, Level, Refused, Value
from surefoot.importers.document import Document, Leaf
from surefoot.importers.known_keys import REASONS, KnownKeys
from surefoot.importers.record import (
    TRAINER_NAMES,
    KeyNote,
    Setting,
    Spelling,
    TheirRun,
    TomlValue,
    Trainer,
)
from surefoot.language import N_

_Value = TypeVar("_Value")
_TRUE = ("true", "1", "yes", "on", "y", "t")
_FALSE = ("false", "0", "no", "off", "n", "f", "")
_REFUSING = ("diffusers", "simpletuner")
_MOST_LIKENED = 100
"""Unknown keys for which a similar one is looked for, which takes its time."""
NOT_KNOWN_HERE = N_("not among the arguments of {trainer} that are known here")
UNKNOWN_KEY = N_("{trainer} has no such key and ignores it")


class Account:
    """The keys of one file and what became of them.

    Args:
        trainer: Whose file it is.
        document: The file. Its keys are those of the trainer's newest version.
        names: For keys that the file calls otherwise: key to the name in the file.
        spellings: How values of ours are said there.
    """

    def __init__(
        self,
        trainer: Trainer,
        document: Document,
        spellings: Mapping[str, Spelling],
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.trainer: Trainer = trainer
        self.document = document
        self.settings: dict[str, Setting] = {}
        self.findings: list[Finding] = []
        self.steps_known = True
        self.judged = set(TheirRun.judged)
        self.spellings = dict(spellings)
        self._names = dict(names or {})
        self._notes: dict[str, KeyNote] = {}
        self._problems: list[Finding] = []
        self._asked: set[str] = set()
        self._added: dict[str, bool] = {}
        self._unknown = 0

    def add(self, values: Mapping[str, Leaf], names: Mapping[str, str], *, refuses: bool) -> None:
        """Takes the keys of another file as well.

        Args:
            values: Its keys, as they are called here, and their values.
            names: What these are called for the reader.
            refuses: Whether the trainer stops at a key there that it does not know.
        """
        self.document = replace(self.document, values={**self.document.values, **values})
        self._names.update(names)
        self._added.update(dict.fromkeys(values, refuses))

    # Reading

    def has(self, key: str) -> bool:
        """Whether the key is in the file."""
        return key in self.document.values

    def get(self, key: str) -> Leaf:
        """The value, `None` also if it is missing."""
        self._asked.add(key)
        return self.document.values.get(key)

    def number(self, key: str, default: float) -> float:
        """A finite number; text that is one counts."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool | tuple):
            return self._wrong(key, N_("a number"), default)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return self._wrong(key, N_("a number"), default)
        return number if math.isfinite(number) else self._wrong(key, N_("a finite number"), default)

    def whole(self, key: str, default: int) -> int:
        """A whole number."""
        number = self.number(key, default)
        return int(number) if abs(number) < 1e15 else self._wrong(key, N_("a number"), default)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false; words for them count."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        return self._wrong(key, N_("true or false"), default)

    def text(self, key: str, default: str = "") -> str:
        """A text; a number counts."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, tuple):
            return self._wrong(key, N_("text in quotes"), default)
        return str(value)

    def choice(self, key: str, known: Collection[str], default: str) -> str:
        """One of the words that the trainer knows; any other is said, and the default taken."""
        word = self.text(key, default)
        if word in known:
            return word
        self.find("SF702", "error", key, given=word, used=default, known=", ".join(sorted(known)))
        return default

    def items(self, key: str) -> tuple[str, ...]:
        """A list of texts; a single text is a list of one."""
        value = self.get(key)
        if value is None or value is True:
            return ()
        if isinstance(value, tuple):
            return tuple(str(item) for item in value)
        return (str(value),)

    def wrong(self, key: str, expected: str) -> None:
        """Notes a value that the trainer could not use."""
        shown = _shown(self.document.values.get(key))
        values: dict[str, Value] = {"key": self.name(key), "given": shown, "expected": expected}
        self._problems.append(Finding("SF093", "error", self.name(key), values))

    def _wrong(self, key: str, expected: str, default: _Value) -> _Value:
        self.wrong(key, expected)
        return default

    # What becomes of a key

    def name(self, key: str) -> str:
        """What the file calls a key."""
        return self._names.get(key, key)

    def key_called(self, name: str) -> str:
        """The key that the file calls so."""
        return next((key for key, called in self._names.items() if called == name), name)

    def line(self, key: str) -> int:
        """Its line, 0 if it is not in the file."""
        return self.document.lines.get(self.name(key), 0)

    def set(
        self, path: str, value: TomlValue, key: str = "", reason: str = "", **values: Value
    ) -> None:
        """Sets a path of run.toml from a key of theirs; with a reason it counts as changed."""
        known = self.name(key) if key and self.has(key) else ""
        self.settings[path] = Setting(value, known, reason, values)
        if key:
            self._note(key, "changed" if reason else "kept", path, reason, True, values)

    def use(self, key: str, path: str, reason: str = "", **values: Value) -> None:
        """A key that had its part in a path which another key has set."""
        self._note(key, "changed" if reason else "kept", path, reason, True, values)

    def drop(self, key: str, reason: str, /, *, matters: bool = True, **values: Value) -> None:
        """A key that has no place in run.toml."""
        self._note(key, "dropped", "", reason, matters, values)

    def find(self, code: str, level: Level, key: str, **values: Value) -> None:
        """A finding about a key."""
        named: dict[str, Value] = {"trainer": TRAINER_NAMES[self.trainer], "key": self.name(key)}
        self.findings.append(Finding(code, level, self.name(key), named | values))

    def _note(
        self,
        key: str,
        fate: Literal["kept", "changed", "dropped"],
        path: str,
        reason: str,
        matters: bool,
        values: Mapping[str, Value],
    ) -> None:
        if not self.has(key):
            return
        self._asked.add(key)
        shown = _shown(self.document.values[key])
        name = self.name(key)
        self._notes[key] = KeyNote(
            name, self.line(key), shown, fate, path, reason, dict(values), matters
        )

    # The end

    def close(
        self,
        family: str,
        *,
        meaning: str = "",
        words: tuple[str, str] = ("true", "false"),
        known: KnownKeys | None = None,
        more_names: Iterable[str] = (),
    ) -> TheirRun:
        """The record, with every key accounted for.

        Args:
            family: The model's family.
            meaning: Which way of reading the file this is.
            words: How they write true and false.
            known: The trainer's table; its own unless given.
            more_names: Keys that exist besides, for "did you mean".

        Raises:
            Refused: If the file has values of a wrong type.
        """
        if self._problems:
            raise Refused(self._problems)
        table = known or KnownKeys(self.trainer)
        names = [*table.names, *self._asked, *more_names]
        for key, value in self.document.values.items():
            if key not in self._notes:
                self._leave(key, value, table, names)
        # A key of the file that stands for two of ours is accounted for by the last.
        by_name = {note.key: note for note in self._notes.values()}
        notes = sorted(by_name.values(), key=lambda note: (note.line, note.key))
        return TheirRun(
            self.trainer, meaning, family, self.settings, tuple(notes), tuple(self.findings),
            self.document.lines, self.spellings, words, self.steps_known, frozenset(self.judged),
        )  # fmt: skip

    def _leave(self, key: str, value: Leaf, table: KnownKeys, names: list[str]) -> None:
        """Accounts for a key that no one asked for, or that had no effect."""
        if key in self._asked:
            self.drop(key, REASONS["unused"], matters=False)
        elif (found := table.find(key)) is not None:
            self.drop(key, REASONS[found.reason], matters=found.matters(value))
        else:
            self._unknown += 1
            few = self._unknown <= _MOST_LIKENED
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.75) if few else []
            strict = self._refuses(key)
            reason = NOT_KNOWN_HERE if strict else UNKNOWN_KEY
            self.drop(key, reason, trainer=TRAINER_NAMES[self.trainer])
            hint = near[0] if near else ""
            hint = hint.rpartition(".")[2] if key in self._added else hint
            if strict:
                self.find("SF720", "warning", key, near=hint)
            else:
                self.find("SF701", "warning", key, near=hint)

    def _refuses(self, key: str) -> bool:
        """Whether the trainer stops at a key that it does not know."""
        strict = self.trainer in _REFUSING or self.document.format == "command"
        return self._added.get(key, strict)


def _shown(value: Leaf) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
