"""What keeps an optimizer section from being built here, found without torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator

from surefoot.config.optimizer import OptimizerConfig
from surefoot.config.optimizer_libraries import NamedOptimizerConfig
from surefoot.finding import Finding, Value
from surefoot.optim.facts import EXTRAS, REFUSED, facts_of
from surefoot.optim.library import Argument, arguments_of, class_sources, installed


def optimizer_findings(config: OptimizerConfig) -> list[Finding]:
    """A missing package, or a name or an argument that its library does not know."""
    package = facts_of(config).package
    if package and not installed(package):
        values: dict[str, Value] = {
            "kind": config.kind, "package": package, "extra": EXTRAS[package],
        }  # fmt: skip
        return [Finding("SF111", "error", "optimizer.kind", values)]
    return list(_named(config)) if isinstance(config, NamedOptimizerConfig) else []


def _named(config: NamedOptimizerConfig) -> Iterator[Finding]:
    """SF112 to SF116. Source: kohya_ss issue 2191, derrian's trainer issue 173."""
    known = class_sources()
    place: dict[str, Value]
    if config.name not in known:
        place = _near(config.name, known) | {"name": config.name}
        yield Finding("SF112", "error", "optimizer.name", place)
        return
    if config.name in REFUSED:
        place = {"name": config.name, "needs": REFUSED[config.name]}
        yield Finding("SF113", "error", "optimizer.name", place)
        return
    taken = arguments_of(config.name)
    for key, value in config.arguments.items():
        place = {"name": config.name, "key": key}
        if key not in taken:
            yield Finding("SF114", "error", "optimizer.arguments", place | _near(key, taken))
        elif not _fits(value, taken[key]):
            place |= {"given": json.dumps(value), "expected": _expected(taken[key])}
            yield Finding("SF115", "error", "optimizer.arguments", place)
    for key, argument in taken.items():
        if argument.required and key not in config.arguments:
            place = {"name": config.name, "key": key, "expected": _expected(argument)}
            yield Finding("SF116", "error", "optimizer.arguments", place)


def _near(word: str, known: Iterable[str]) -> dict[str, Value]:
    known = list(known)
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.5)
    return {"near": lower[near[0]] if near else "", "known": ", ".join(known)}


_TYPES: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "str", tuple: "list"}


def _fits(value: object, argument: Argument) -> bool:
    if argument.choices and isinstance(value, str):
        return value in argument.choices
    return not argument.kinds or _TYPES[type(value)] in argument.kinds


_WORDS = {
    "bool": "true or false",
    "str": "text in quotes",
    "list": "a list in brackets",
}


def _expected(argument: Argument) -> str:
    kinds = argument.kinds
    number = ["a number"] if "float" in kinds else ["a whole number"] if "int" in kinds else []
    choices = [json.dumps(word) for word in argument.choices]
    others = [_WORDS[kind] for kind in ("bool", "list") if kind in kinds]
    text = choices or ([_WORDS["str"]] if "str" in kinds else [])
    return " / ".join([*number, *others, *text])
