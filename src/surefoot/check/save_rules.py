"""Rules about checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.finding import Change, Finding, Value
from surefoot.plan import Plan
from surefoot.survey import Survey

_FEW = 10  # steps: in a run that is hardly longer, each may well be kept
_MEGABYTE = 1e6


def checkpoint_after_the_end(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF161. By steps and epochs: how long a step takes is not known yet."""
    save = plan.config.save
    due = {"save.every_epochs": _steps_of_epochs(plan)} if save.every_epochs != "off" else {}
    if isinstance(save.every, int):
        due["save.every"] = save.every
    if not due or save.every_minutes != "off" or min(due.values()) <= plan.steps:
        return
    key = min(due, key=lambda key: due[key])
    values: dict[str, Value] = {"every": due[key], "steps": plan.steps}
    change = Change("save.every", '"auto"', str(save.every), same=True)
    changes = (change,) if key == "save.every" else ()
    yield Finding("SF161", "note", key, values, changes=changes)


def saved_after_each_step(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF170. Each is written whole and brought to the disk before the next step begins."""
    if plan.steps <= _FEW or not all(plan.saves_after(done) for done in range(1, _FEW)):
        return
    key = "save.every" if plan.save_every == 1 else "save.every_epochs"
    size = plan.bytes.checkpoint / _MEGABYTE
    values: dict[str, Value] = {"size": size, "total": size * plan.steps, "steps": plan.steps}
    yield Finding("SF170", "warning", key, values)


def _steps_of_epochs(plan: Plan) -> int:
    """The step after which `save.every_epochs` has gone by first; beyond the run if it never has.

    The number of epochs never falls from step to step.
    """
    low, high = 1, plan.steps + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if plan.whole_epochs(middle) else (middle + 1, high)
    return low


SAVE_RULES = (checkpoint_after_the_end, saved_after_each_step)
