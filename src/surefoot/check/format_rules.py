"""Rules about the formats that the result is written in, before a run is spent on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from surefoot.finding import Change, Finding
from surefoot.formats.abilities import Hindrance, hindrance, made_by, taken_wrongly
from surefoot.plan import Plan
from surefoot.survey import Survey

_CODES: dict[Hindrance, str] = {
    "method": "SF180",
    "input_axis": "SF181",
    "comfyui_norm": "SF182",
}


def formats_that_cannot_hold_it(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF180, SF181, SF182. Found out after the run, this would cost the run or a conversion."""
    made = made_by(plan.config.tuning)
    if made is None:
        return
    for name in plan.formats:
        reason = hindrance(name, *made)
        if reason != "none":
            change = Change("save.formats", '"auto"', _list(plan.formats))
            values: dict[str, str | int | float] = {"format": name}
            yield Finding(_CODES[reason], "error", "save.formats", values, changes=(change,))


def formats_that_are_taken_wrongly(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF183. Source: ComfyUI's weight_decompose and its pull request 15458."""
    made = made_by(plan.config.tuning)
    if made is None:
        return
    wrong = [name for name in plan.formats if taken_wrongly(name, made[1])]
    if wrong:
        changed = dict.fromkeys(
            "comfyui-compat" if name in wrong else name for name in plan.formats
        )
        change = Change("save.formats", _list(changed), _list(plan.formats))
        values: dict[str, str | int | float] = {"formats": " + ".join(wrong)}
        yield Finding("SF183", "warning", "save.formats", values, changes=(change,))


def _list(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


FORMAT_RULES = (formats_that_cannot_hold_it, formats_that_are_taken_wrongly)
