"""run.toml and dotted overrides to a `RunConfig`: the only door."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from surefoot.config.optimizer import OptimizerConfig
from surefoot.config.optimizer_libraries import averages_itself
from surefoot.config.overrides import override, with_overrides
from surefoot.config.run import RunConfig
from surefoot.config.schedule import (
    ConstantConfig,
    CosineConfig,
    CosineRestartsConfig,
    InverseSqrtConfig,
    LinearConfig,
    PolynomialConfig,
    RexConfig,
)
from surefoot.config.section import CODE, DEVICE, LINE, NAME, PATH, WORDS, key_help
from surefoot.config.text_file import read_whole, unreadable
from surefoot.config.tuning import DoraConfig, FullConfig, LohaConfig, LokrConfig, LoraConfig
from surefoot.finding import Change, Finding, Refused, Value
from surefoot.language import N_

# The sections that are told apart by `kind`, by their place in the file.
UNIONS: dict[str, dict[str, type[BaseModel]]] = {
    "tuning": {
        "full": FullConfig,
        "lora": LoraConfig,
        "dora": DoraConfig,
        "loha": LohaConfig,
        "lokr": LokrConfig,
    },
    "optimizer": {
        model.model_fields["kind"].default: model
        for model in get_args(get_args(OptimizerConfig)[0])
    },
    "schedule": {
        "constant": ConstantConfig,
        "linear": LinearConfig,
        "cosine": CosineConfig,
        "cosine_restarts": CosineRestartsConfig,
        "polynomial": PolynomialConfig,
        "inverse_sqrt": InverseSqrtConfig,
        "rex": RexConfig,
    },
}
# A section that names no kind is of the default kind, so that `[optimizer] lr = 1e-3` works.
_DEFAULT_KINDS = {"tuning": "dora", "optimizer": "adafactor", "schedule": "cosine"}
# What stands in for a section that a run must have, in `load_rest`.
_STAND_INS: dict[str, object] = {
    "name": "unnamed",
    "model": {"path": "builtin"},
    "data": {"folders": [{"path": "builtin"}]},
    "train": {"steps": 1},
}
# How alike two words are, of 1, if one is a slip of the other.
_SURELY_MEANT = 0.8


@dataclass(frozen=True)
class Loaded:
    """A run.toml as read: the config, and the text that findings point into.

    `overrides` are in the config but not in the text.
    """

    config: RunConfig
    text: str
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """What relative paths in the file are relative to."""
        return self.path.resolve().parent

    @property
    def asked(self) -> str:
        """The text with the overrides in it."""
        return with_overrides(self.text, self.overrides)


def load(path: Path, overrides: tuple[str, ...] = (), text: str | None = None) -> Loaded:
    """Reads a run.toml.

    Args:
        path: The file.
        overrides: `key=value` with a dotted key and a TOML value, such as `optimizer.lr=3e-5`.
        text: What stands in for its content.

    Raises:
        Refused: With one finding for every problem in the file.
    """
    text = _read_text(path) if text is None else text
    document, problems = _document(path, text, overrides)
    try:
        config = _validated(document)
    except ValidationError as error:
        problems += _problems(error.errors(include_url=False))
        raise Refused(problems) from None
    if problems:
        raise Refused(problems)
    return Loaded(config, text, path, overrides)


def load_rest(
    path: Path, overrides: tuple[str, ...], problems: Sequence[Finding], text: str | None = None
) -> Loaded:
    """What is left of a run.toml that `load` refused, so that the files it names can be looked at.

    Sections with a problem are left out, and where a run must have them something stands in.

    Raises:
        Refused: If nothing is left.
    """
    text = _read_text(path) if text is None else text
    document, _problems_again = _document(path, text, overrides)
    spoilt = {problem.path.partition(".")[0] for problem in problems}
    rest = {key: value for key, value in document.items() if key not in spoilt}
    try:
        return Loaded(_validated(_STAND_INS | rest), text, path, overrides)
    except ValidationError as error:  # a problem that no section was blamed for
        raise Refused(_problems(error.errors(include_url=False))) from None


def _document(
    path: Path, text: str, overrides: tuple[str, ...]
) -> tuple[dict[str, object], list[Finding]]:
    try:
        document: dict[str, object] = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        values = {"file": str(path), "reason": str(error)}
        raise Refused([Finding("SF002", "error", "", dict(values))]) from None
    problems = [problem for item in overrides if (problem := override(document, item))]
    optimizer = document.get("optimizer")
    if isinstance(optimizer, dict) and averages_itself(cast(dict[str, object], optimizer)):
        # Its average takes a schedule's place; any other than this has to be asked for.
        schedule = document.setdefault("schedule", {})
        if isinstance(schedule, dict):
            cast(dict[str, object], schedule).setdefault("kind", "constant")
    for section, kind in _DEFAULT_KINDS.items():
        table = document.get(section)
        if isinstance(table, dict):
            cast(dict[str, object], table).setdefault("kind", kind)
    return document, problems


def _validated(document: dict[str, object]) -> RunConfig:
    # Strict, so that "true" in quotes is not taken for true; by way of JSON, where strict still
    # takes a list for a tuple. JSON has no dates; as tables they fit nowhere, as text they would.
    document_json = json.dumps(document, default=lambda value: {"date": str(value)})
    return TypeAdapter(RunConfig).validate_json(document_json, strict=True)


def _read_text(path: Path) -> str:
    try:
        return read_whole(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise unreadable(path, N_("not UTF-8 text")) from None


def _problems(errors: list[ErrorDetails]) -> list[Finding]:
    """One finding for each place; a union fails once for each of its branches."""
    findings: list[Finding] = []
    reasons: dict[str, list[str]] = {}
    for error in errors:
        path, names = _place(error)
        values: dict[str, Value] = {"key": path, "given": _shown(_given(error))}
        match error["type"]:
            case "extra_forbidden":
                key = path.rpartition(".")[2]
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                values |= {"key": key, "near": near[0] if near else "", "known": ", ".join(names)}
                changes = _spelling(path, key, near, _shown(error["input"]))
                findings.append(Finding("SF003", "error", path, values, changes=changes))
            case "missing":
                findings.append(Finding("SF006", "error", path, values))
            case _:
                if path not in reasons:
                    findings.append(Finding("SF004", "error", path, values))
                reasons.setdefault(path, []).append(_expected(error))
                values["expected"] = " / ".join(dict.fromkeys(reasons[path]))
                findings[[item.path for item in findings].index(path)].values.update(values)
    # A list with a bad item is also said to be too short, or not to be the union's other branch.
    return [
        finding
        for finding in findings
        if finding.code != "SF004"
        or not any(item.path.startswith(f"{finding.path}.") for item in findings)
    ]


def _spelling(path: str, key: str, near: list[str], given: str) -> tuple[Change, ...]:
    """The repair of a slip of the keyboard, where it surely is one."""
    if not near or difflib.SequenceMatcher(a=key, b=near[0]).ratio() < _SURELY_MEANT:
        return ()
    return (Change(path, near[0], given, action="rename", same=True),)


def _given(error: ErrorDetails) -> object:
    """The value in question; for a section of no known kind, its `kind`."""
    if error["type"].startswith("union_tag") and isinstance(error["input"], dict):
        return cast(dict[str, object], error["input"]).get("kind")
    return error["input"]


def _place(error: ErrorDetails) -> tuple[str, list[str]]:
    """The dotted path in the file, without the tags of unions; the names known there."""
    model: type[BaseModel] = RunConfig
    path: list[str] = []
    free = False  # within a table whose keys are the user's own
    location = error["loc"]
    for index, part in enumerate(location):
        if len(path) == 1 and part in UNIONS.get(path[0], {}):
            model = UNIONS[path[0]][str(part)]
        elif free:
            path.append(str(part))
            free = False
        elif isinstance(part, int) or part in model.model_fields:
            path.append(str(part))
            free = _is_table(model, str(part))
            model = _inner(model, str(part))
        elif error["type"] == "extra_forbidden" and index == len(location) - 1:
            path.append(part)
    if error["type"].startswith("union_tag"):
        path.append("kind")
    return ".".join(path), list(key_help(model))


def _is_table(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is dict


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
    "dict_type": N_("a section with keys"),
    "finite_number": N_("a finite number"),
    "too_short": N_("a list with something in it"),
    "string_too_short": N_("text that is not empty"),
}
_PATTERNS = {
    NAME: N_("letters, digits, dots, - and _, beginning with a letter or digit"),
    PATH: N_("a path, on one line"),
    LINE: N_("text on one line"),
    CODE: N_("a code such as SF107"),
    WORDS: N_("text that is not empty"),
    DEVICE: N_("auto, cpu, cuda, cuda:1 or mps, in quotes"),
}
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] in _EXPECTED:
        return _EXPECTED[error["type"]]
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS[str(context["pattern"])]
    for key in ("expected", "expected_tags"):
        if key in context:
            listed = str(context[key]).replace("'", '"')
            return listed.replace(", ", " / ").replace(" or ", " / ")
    for key, sign in _BOUNDS.items():
        if key in context:
            return f"{sign} {context[key]}"
    return error["msg"]


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
