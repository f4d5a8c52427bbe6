"""The keys that each trainer knows and that have no place in run.toml, and why not."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from surefoot.importers.document import Leaf
from surefoot.importers.record import Trainer
from surefoot.language import N_

_FOLDER = Path(__file__).parent / "known"

REASONS: dict[str, str] = {
    "absent": N_("surefoot has nothing like it"),
    "files": N_("where files are read or written"),
    "machine": N_("how the work is done on the machine; it does not change what is learned"),
    "sample": N_("pictures on the way, or how they are drawn"),
    "save": N_("when and how results are saved"),
    "show": N_("what is shown, logged or kept for the trainer itself"),
    "unused": N_("not used by a run like this one"),
}
_CHANGES_TRAINING = frozenset({"absent"})


@dataclass(frozen=True)
class KnownKey:
    """Why a key is dropped, and the value at which it does nothing."""

    reason: str
    default: Leaf

    def matters(self, value: Leaf) -> bool:
        """Whether dropping this value changes what is learned."""
        off = not value or str(value).lower() in ("0", "0.0", "false", "none", "off")
        same = value == self.default or str(value) == str(self.default)
        return self.reason in _CHANGES_TRAINING and not off and not same


class KnownKeys:
    """A trainer's table: a reason, a key that may have `*` in it, and a default in JSON."""

    def __init__(self, trainer: Trainer) -> None:
        self._exact: dict[str, KnownKey] = {}
        self._patterns: list[tuple[str, KnownKey]] = []
        text = (_FOLDER / f"{trainer}.txt").read_text(encoding="utf-8")
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            reason, key, *rest = line.split(" ", 2)
            known = KnownKey(reason, cast(Leaf, json.loads(rest[0])) if rest else None)
            if "*" in key:
                self._patterns.append((key, known))
            else:
                self._exact[key] = known

    @property
    def names(self) -> list[str]:
        """The keys without a `*`."""
        return list(self._exact)

    def find(self, key: str) -> KnownKey | None:
        """What is known about a key."""
        if key in self._exact:
            return self._exact[key]
        return next((it for pattern, it in self._patterns if fnmatch.fnmatch(key, pattern)), None)
