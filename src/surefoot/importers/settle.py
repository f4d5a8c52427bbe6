"""Settings to a `RunConfig`: what surefoot cannot hold is taken out, and said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from surefoot.config.load import UNIONS
from surefoot.config.run import RunConfig
from surefoot.families.facts import FAMILIES
from surefoot.importers.account import Account
from surefoot.importers.record import Setting, TomlValue
from surefoot.language import N_

OUT_OF_RANGE = N_("surefoot takes no such value here ({bounds}) and uses its own")
NO_SUCH_KIND = N_("surefoot has no such {section}; {kind} stands in its place")
ALSO_FROM_ZERO = {"loha": "LoHa", "lokr": "LoKr"}
"""Adapters that begin at zero as LoRA does, which may stand in for them in the judgement."""
_STAND_INS = {"tuning": "lora", "optimizer": "adamw", "schedule": "constant"}
MADE_UP = N_("a stand-in, since the file has nothing usable: write your own")
# What a run must have, for files that have it wrong or not at all.
_EXAMPLE: dict[str, str | int] = {"path": "pictures"}
_NEEDED: dict[str, TomlValue] = {
    "name": "imported",
    "model.path": "unknown",
    "data.folders": (_EXAMPLE,),
    "train.steps": 1500,
}
_KNOWN_FAMILY = next(iter(FAMILIES))
_ROUNDS = 20


def nested(settings: Mapping[str, Setting]) -> dict[str, object]:
    """The settings as the tables of a run.toml."""
    document: dict[str, object] = {}
    for path, setting in settings.items():
        *parents, name = path.split(".")
        table = document
        for parent in parents:
            table = cast(dict[str, object], table.setdefault(parent, {}))
        table[name] = setting.value
    return document


def config_of(settings: Mapping[str, Setting]) -> RunConfig:
    """The config; a family that surefoot does not have is replaced by one that it has.

    Raises:
        ValidationError: If a value has no place in it.
    """
    document = nested(settings)
    model = cast(dict[str, object], document.setdefault("model", {}))
    if model.get("family") not in FAMILIES:
        model["family"] = _KNOWN_FAMILY
    return TypeAdapter(RunConfig).validate_json(json.dumps(document), strict=True)


def settled(account: Account) -> None:
    """Takes out, one round after another, what a `RunConfig` refuses."""
    for _round in range(_ROUNDS):
        try:
            config_of(account.settings)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                _take_out(account, problem)
                if problem["type"] == "missing" and str(problem["loc"][0]) in UNIONS:
                    _stand_in(account, str(problem["loc"][0]))
        else:
            return
    raise AssertionError("settings that no run can have")


def _take_out(account: Account, problem: ErrorDetails) -> None:
    place = [str(part) for part in problem["loc"]]
    section = place[0]
    if problem["type"].startswith("union_tag"):
        _stand_in(account, section)
        return
    if section in UNIONS and len(place) > 1:
        place.pop(1)
    path = ".".join(place[:2])
    setting = account.settings.pop(path, None)
    if path in _NEEDED:
        account.settings[path] = Setting(_NEEDED[path], "", MADE_UP)
    if setting is None:
        return
    context = problem.get("ctx", {})
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = ", ".join(f"{sign} {context[key]}" for key, sign in signs.items() if key in context)
    key = account.key_called(setting.key)
    if key:
        account.drop(key, OUT_OF_RANGE, bounds=bounds or problem["type"])


def _stand_in(account: Account, section: str) -> None:
    path = f"{section}.kind"
    setting = account.settings.get(path)
    given = "" if setting is None else str(setting.value)
    if given not in ALSO_FROM_ZERO:
        account.judged.discard(section)
    key = account.key_called(setting.key) if setting is not None else ""
    kind = _STAND_INS[section]
    account.set(path, kind, key, NO_SUCH_KIND, section=section, kind=kind, given=given)
