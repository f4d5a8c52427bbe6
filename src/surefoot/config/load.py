"""run.toml and dotted overrides to a `RunConfig`: the only door."""

from __future__ import annotations

import difflib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from surefoot.config.optimizer import AdafactorConfig, AdamWConfig
from surefoot.config.run import RunConfig
from surefoot.config.tuning import DoraConfig, FullConfig, LoraConfig
from surefoot.finding import Finding, Refused, Value
from surefoot.language import N_

# The sections that are told apart by `kind`, by their place in the file.
UNIONS: dict[str, dict[str, type[BaseModel]]] = {
    "tuning": {"full": FullConfig, "lora": LoraConfig, "dora": DoraConfig},
    "optimizer": {"adafactor": AdafactorConfig, "adamw": AdamWConfig},
}
# A section that names no kind is of the default kind, so that `[optimizer] lr = 1e-3` works.
_DEFAULT_KINDS = {"tuning": "dora", "optimizer": "adafactor"}


@dataclass(frozen=True)
class Loaded:
    """A run.toml as read: the config, and the text that findings point into."""

    config: RunConfig
    text: str
    path: Path

    @property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.path.resolve().parent


def load(path: Path, overrides: tuple[str, ...] = ()) -> Loaded:
    """Reads a run.toml.

    Args:
        path: The file.
        overrides: `key=value` with a dotted key and a TOML value, such as `optimizer.lr=3e-5`.

    Raises:
        Refused: With one finding for every problem in the file.
    """
    text = _read_text(path)
    try:
        document: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _refused("SF002", str(path), {"file": str(path), "reason": str(error)}) from None
    problems = [problem for item in overrides if (problem := _override(document, item))]
    for section, kind in _DEFAULT_KINDS.items():
        table = document.get(section)
        if isinstance(table, dict):
            cast(dict[str, object], table).setdefault("kind", kind)
    try:
        # Strict, so that "true" in quotes is not taken for true; by way of JSON, where strict still
        # takes a list for a tuple.
        document_json = json.dumps(document, default=str)
        config = TypeAdapter(RunConfig).validate_json(document_json, strict=True)
    except ValidationError as error:
        problems += _problems(error.errors(include_url=False))
        raise Refused(problems) from None
    if problems:
        raise Refused(problems)
    return Loaded(config, text, path)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _refused("SF001", "", {"file": str(path), "reason": "file not found"}) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _refused("SF001", "", {"file": str(path), "reason": reason}) from None
    except UnicodeDecodeError:
        raise _refused("SF001", "", {"file": str(path), "reason": "not UTF-8 text"}) from None


def _refused(code: str, path: str, values: dict[str, Value]) -> Refused:
    return Refused([Finding(code, "error", path if code != "SF002" else "", values)])


def _override(document: dict[str, object], text: str) -> Finding | None:
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        return Finding("SF005", "error", "", {"override": text})
    table = document
    for part in parts[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            return Finding("SF005", "error", "", {"override": text})
        table = cast(dict[str, object], inner)
    try:
        table[parts[-1]] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        # A bare word is what people type in a shell: optimizer.kind=adamw.
        table[parts[-1]] = value.strip()
    return None


def _problems(errors: list[ErrorDetails]) -> list[Finding]:
    """One finding for each place; a union fails once for each of its branches."""
    findings: list[Finding] = []
    reasons: dict[str, list[str]] = {}
    for error in errors:
        path, names = _place(error)
        values: dict[str, Value] = {"key": path, "given": _shown(error["input"])}
        match error["type"]:
            case "extra_forbidden":
                key = path.rpartition(".")[2]
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                values |= {"key": key, "near": near[0] if near else "", "known": ", ".join(names)}
                findings.append(Finding("SF003", "error", path, values))
            case "missing":
                findings.append(Finding("SF006", "error", path, values))
            case _:
                if path not in reasons:
                    findings.append(Finding("SF004", "error", path, values))
                reasons.setdefault(path, []).append(_expected(error))
                values["expected"] = " / ".join(dict.fromkeys(reasons[path]))
                findings[[item.path for item in findings].index(path)].values.update(values)
    return findings


def _place(error: ErrorDetails) -> tuple[str, list[str]]:
    """The dotted path in the file, without the tags of unions; the names known there."""
    model: type[BaseModel] = RunConfig
    path: list[str] = []
    location = error["loc"]
    for index, part in enumerate(location):
        if len(path) == 1 and part in UNIONS.get(path[0], {}):
            model = UNIONS[path[0]][str(part)]
        elif isinstance(part, int) or part in model.model_fields:
            path.append(str(part))
            model = _inner(model, str(part))
        elif error["type"] == "extra_forbidden" and index == len(location) - 1:
            path.append(part)
    if error["type"].startswith("union_tag"):
        path.append("kind")
    return ".".join(path), list(model.model_fields)


def _inner(model: type[BaseModel], name: str) -> type[BaseModel]:
    """The section that a field holds, itself or in a list."""
    field = model.model_fields.get(name)
    candidates = [] if field is None else [field.annotation, *get_args(field.annotation)]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model


_EXPECTED = {
    "int_type": N_("a whole number"),
    "int_from_float": N_("a whole number"),
    "float_type": N_("a number"),
    "bool_type": N_("true or false"),
    "string_type": N_("text in quotes"),
    "tuple_type": N_("a list in brackets"),
    "model_type": N_("a section with keys"),
    "finite_number": N_("a finite number"),
    "too_short": N_("a list with something in it"),
    "string_too_short": N_("text that is not empty"),
    "string_pattern_mismatch": N_(
        "letters, digits, dots, - and _, beginning with a letter or digit"
    ),
}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] in _EXPECTED:
        return _EXPECTED[error["type"]]
    for key in ("expected", "expected_tags"):
        if key in context:
            return str(context[key]).replace("'", '"')
    for key, sign in _BOUNDS.items():
        if key in context:
            return f"{sign} {context[key]}"
    return error["msg"]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
