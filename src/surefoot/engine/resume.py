"""Going on with a run: whether it is the same one, and what was changed since."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from surefoot.engine.assemble import open_checkpoints
from surefoot.engine.checkpoint import State
from surefoot.engine.events import Events
from surefoot.engine.progress import Reporter
from surefoot.finding import Finding, Refused
from surefoot.language import _
from surefoot.optim.schedules import Schedule
from surefoot.plan import PLAN_FILE, Plan, changed_settings, differences, read_plan, settings

DOCUMENTS = ("run.toml", PLAN_FILE, "findings.json")


def check_same_run(plan: Plan) -> None:
    """A run folder belongs to one run: another model, tuning or data set needs another name.

    Raises:
        Refused: With the keys in which the folder's run is another.
    """
    try:
        before = read_plan(plan.run_folder)
    except (OSError, ValueError):  # none, or not ours: its checkpoints say whose they are
        return
    if before.fingerprint != plan.fingerprint and open_checkpoints(plan).steps():
        changed = differences(before, plan)
        values = {"file": str(plan.run_folder), "differences": ", ".join(changed)}
        raise Refused([Finding("SF043", "error", "name", dict(values))])


def check_not_beyond(plan: Plan, state: State) -> None:
    """A run cannot end before the checkpoint that it goes on from.

    Raises:
        Refused: If it would.
    """
    if state.step > plan.steps:
        values = {"file": str(plan.run_folder), "step": state.step, "steps": plan.steps}
        raise Refused([Finding("SF053", "error", "train.steps", dict(values))])


def tell_changes(plan: Plan, state: State, events: Events, reporter: Reporter) -> None:
    """Says which settings are others than those that the checkpoint was trained by."""
    changed = changed_settings(state.settings, settings(plan))
    if not changed:
        return
    reporter.line(_("settings have changed since; the new ones hold from here on:"))
    for key, (before, after) in changed.items():
        reporter.line(f"  {key}: {before} -> {after}")
    told: dict[str, object] = {
        key: {"before": before, "after": after} for key, (before, after) in changed.items()
    }
    events.write("settings_changed", step=state.step, changes=told)
    if state.step == plan.steps:
        reporter.line(
            _("but all {steps} steps are done; raise train.steps to train on").format(
                steps=plan.steps
            )
        )
    else:
        _tell_rate(plan, state, reporter)


def _tell_rate(plan: Plan, state: State, reporter: Reporter) -> None:
    """The learning rate of the next step before and after, since a curve hides it."""
    resolved = cast(Mapping[str, Any], state.settings["resolved"])
    before = resolved["lr"] * Schedule(**resolved["schedule"]).factor(state.step)
    after = plan.lr * plan.schedule.factor(state.step)
    if before != after:
        reporter.line(
            _(
                "the schedule gives the next step {after:.3g}; it would have been {before:.3g}"
            ).format(after=after, before=before)
        )


def keep_earlier_documents(plan: Plan, state: State, asked: str) -> None:
    """Keeps what an earlier start was asked and told, if it was asked something else.

    They go to `earlier/step-000120`, the step up to which they held.
    """
    present = plan.run_folder / DOCUMENTS[0]
    if not present.exists() or present.read_bytes() == asked.encode():
        return
    folder = _unused(plan.run_folder / "earlier" / f"step-{state.step:06d}")
    folder.mkdir(parents=True)
    for name in DOCUMENTS:
        if (plan.run_folder / name).exists():
            shutil.copy2(plan.run_folder / name, folder / name)


def _unused(folder: Path) -> Path:
    """Itself, or with the first number that is free: of two starts without a checkpoint between."""
    number, found = 1, folder
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
