"""Another trainer's run judged by surefoot's rules, with findings in that trainer's keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from surefoot.check.rules import review
from surefoot.config.load import Loaded
from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.run import RunConfig
from surefoot.config.tuning import FullConfig
from surefoot.data.scan import Scan
from surefoot.finding import LEVELS, Change, Finding, Value
from surefoot.importers.record import Spelling, TheirRun
from surefoot.importers.settle import ALSO_FROM_ZERO, config_of
from surefoot.importers.usual_models import usual_model
from surefoot.language import _
from surefoot.plan import Plan, resolve
from surefoot.survey import ModelSurvey, Survey
from surefoot.wording import Said, say

_ABSOLUTE_RATES = (1e-5, 1e-3)
"""Learning rates of adapters that need no change when they become absolute (docs/findings.md)."""
_FULL_RATES = (1e-7, 1e-4)
"""Likewise of full fine-tuning."""
_NEED_THE_STEPS = frozenset({"SF104", "SF106", "SF108", "SF132"})
_ABOUT_FILES = ("model.", "data.", "folder", "validation.", "preview.", "save.", "name")


@dataclass(frozen=True)
class Reading:
    """One way in which a trainer takes a file, and what was found about it."""

    run: TheirRun
    config: RunConfig
    plan: Plan
    findings: tuple[Finding, ...]


def judge_theirs(run: TheirRun, model: ModelSurvey | None = None) -> Reading:
    """Every finding about a run of another trainer, the worst first.

    Args:
        run: The run.
        model: Its model, if it was found on this machine; usual shapes of its family otherwise.
    """
    config = config_of(run.settings)
    found = Survey(
        model=model or usual_model(run.family),
        data=tuple(Scan((), ()) for _folder in config.data.folders),
        validation=Scan((), ()),
        device="cuda",
        free_bytes=-1,
        run_folder=Path("unknown"),
        findings=(),
    )
    planned = resolve(Loaded(config, "", Path("run.toml")), found)
    ours = [item for item in review(planned, found) if _holds(item, run)]
    findings = [*(_in_their_keys(item, run, planned) for item in ours), *run.findings]
    if not run.steps_known:
        values: dict[str, Value] = {"steps": planned.steps}
        findings.append(Finding("SF726", "note", their_key(run, "train.steps"), values))
    return Reading(run, config, planned, worst_first(findings))


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings in the order in which they are shown."""
    return tuple(sorted(findings, key=lambda item: (LEVELS.index(item.level), item.code)))


def _holds(finding: Finding, run: TheirRun) -> bool:
    """Whether a finding is about what the trainer does, and not about a stand-in."""
    section = finding.path.partition(".")[0]
    if finding.path.startswith(_ABOUT_FILES) or section not in run.judged:
        return False
    # Whether an adapter fits its optimizer takes both.
    about_both = finding.code.startswith("SF1") and not run.judged >= {"tuning", "optimizer"}
    return not about_both and (run.steps_known or finding.code not in _NEED_THE_STEPS)


def _in_their_keys(finding: Finding, run: TheirRun, planned: Plan) -> Finding:
    asked = _remedies(finding, planned)
    spelt = [change for item in asked if (change := _spelt(item, run)) is not None]
    changes = [change for change in spelt if not _same_number(change.value, change.before)]
    values = dict(finding.values)
    if "ignored" in values:
        paths = str(values["ignored"]).split(" + ")
        values["ignored"] = " + ".join(their_key(run, path) or path for path in paths)
    if "tuning" in values and (setting := run.settings.get("tuning.kind")) is not None:
        stands_for = ALSO_FROM_ZERO.get(str(setting.values.get("given", "")))
        values["tuning"] = stands_for or values["tuning"]
    key = their_key(run, finding.path) or finding.path
    return replace(finding, path=key, values=values, changes=tuple(changes))


def their_key(run: TheirRun, path: str) -> str:
    """What another trainer calls a path of run.toml: as in the file, else as it may be written."""
    places = [path, f"{path}.kind"] if "." not in path else [path]
    for place in places:
        if place in run.settings and run.settings[place].key:
            return run.settings[place].key
    below = next((place for place in run.settings if place.startswith(f"{path}.")), "")
    if below and run.settings[below].key:
        return run.settings[below].key
    return next((run.spellings[place].key for place in places if place in run.spellings), "")


def _remedies(finding: Finding, planned: Plan) -> Sequence[Change]:
    """What to change where `scale_parameter = "weight"` is not to be had."""
    optimizer = planned.config.optimizer
    if finding.code not in ("SF101", "SF102", "SF110") or not isinstance(
        optimizer, AdafactorConfig
    ):
        return finding.changes
    changes = [Change("optimizer.scale_parameter", "false", "true")]
    if finding.code != "SF101":
        changes = []
    if optimizer.relative_step:
        changes.append(Change("optimizer.relative_step", "false", "true"))
    full = isinstance(planned.config.tuning, FullConfig)
    low, high = _FULL_RATES if full else _ABSOLUTE_RATES
    rate = optimizer.lr if optimizer.lr != "auto" else 0.0
    if finding.code != "SF102" and not low <= rate <= high:
        changes.append(Change("optimizer.lr", "1e-5" if full else "1e-4", _toml(optimizer.lr)))
    return changes


def _spelt(change: Change, run: TheirRun) -> Change | None:
    spelling = run.spellings.get(change.path)
    if spelling is None or change.action != "set":
        return None
    place = _place_of(change.path, spelling, run)
    before = _their_value(change.before, spelling, run)
    if "{value}" not in spelling.form or change.before == '"auto"':
        before = next((note.given for note in run.notes if note.key == place), "-")
    return replace(
        change, path=place, value=_their_value(change.value, spelling, run), before=before
    )


def _place_of(path: str, spelling: Spelling, run: TheirRun) -> str:
    """The key to change: where the file has the value, or has the list that it belongs into."""
    given = {place: run.settings[place].key for place in (path, "optimizer.kind")
             if place in run.settings}  # fmt: skip
    # What the optimizer's name brings along stands nowhere and would have to be written.
    implied = given.get(path, "") in ("", given.get("optimizer.kind"))
    if not implied and "=" not in spelling.form:
        return given[path]
    named = (key for key in run.lines if key.split(".")[-1].removeprefix("--") == spelling.key)
    return next(named, spelling.key)


def _their_value(literal: str, spelling: Spelling, run: TheirRun) -> str:
    if literal == '"off"':
        return spelling.off
    if literal in ("true", "false"):
        literal = run.words[literal == "false"]
    return spelling.form.replace("{value}", literal)


def _same_number(one: str, other: str) -> bool:
    """Whether two spellings are of one number, as 1e-4 and 0.0001 are."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _toml(value: float | str) -> str:
    return json.dumps(value) if isinstance(value, str) else f"{value:g}"


def said_in_their_words(finding: Finding) -> Said:
    """The words of a finding, its help in the trainer's keys where that is known."""
    said = say(finding)
    if finding.code >= "SF7":
        return said
    return replace(said, helps=tuple(_advice(change) for change in finding.changes))


def _advice(change: Change) -> str:
    if "=" in change.value:
        words = _("write `{value}` into `{key}` (without it: `{before}`)")
    else:
        words = _("set `{key}` to `{value}` (now `{before}`)")
    return words.format(key=change.path, value=change.value, before=change.before)
