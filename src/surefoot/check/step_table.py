"""The effective-step sheet as text, whole and as the few columns that a finding shows."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.columns import aligned
from surefoot.finding import StepRow
from surefoot.language import _


def sheet_lines(rows: Sequence[StepRow]) -> list[str]:
    """The effective-step sheet in two tables of at most 100 columns, a line for each kind."""
    if not rows:
        return []
    what = (
        _("tensor"),
        _("count"),
        _("numbers"),
        _("dtype"),
        _("RMS now"),
        _("over the run at most"),
        _("dtype holds its steps"),
    )
    when = (
        _("step per element"),
        _("step 1"),
        _("at 10 %"),
        _("at 50 %"),
        _("at the end"),
        _("of itself"),
        _("as full fine-tuning by"),
    )
    return [
        *aligned([what, *(_what(row) for row in rows)]),
        "",
        *aligned([when, *(_when(row) for row in rows)]),
    ]


def finding_lines(rows: Sequence[StepRow]) -> list[str]:
    """The columns of the sheet that show why a finding is one."""
    if not rows:
        return []
    losing = any(row.lost for row in rows)
    head = (
        _("tensor"),
        _("RMS now"),
        _("step per element"),
        _("over the run at most"),
        *((_("lost in rounding"),) if losing else ()),
    )
    return aligned(
        [head, *((*_short(row), *((percent(row.lost),) if losing else ())) for row in rows)]
    )


def _short(row: StepRow) -> tuple[str, ...]:
    if not row.known:
        return (row.name, f"{row.rms:.2g}", _("found in the run"), "-")
    if row.kind == "lora_up":
        run = _("{step:.1e}: changes the layer by {percent}")
    else:
        run = _("{step:.1e}: {percent} of itself")
    run = run.format(step=row.total, percent=percent(row.layer_change))
    return (row.name, f"{row.rms:.2g}", f"{row.first:.1e}", run)


def _what(row: StepRow) -> tuple[str, ...]:
    if not row.known:
        run = _("found in the run")
    elif row.kind == "lora_up":
        run = _("the layer by {percent}").format(percent=percent(row.layer_change))
    else:
        run = _("itself by {percent}").format(percent=percent(row.layer_change))
    holds = _("loses {percent}").format(percent=percent(row.lost)) if row.lost else _("yes")
    return (
        row.name,
        str(row.tensors),
        f"{row.numbers:,}",
        row.dtype,
        f"{row.rms:.2g}",
        run,
        holds,
    )


def _when(row: StepRow) -> tuple[str, ...]:
    if not row.known:
        return (row.name, _("found in the run"), "-", "-", "-", "-", "-")
    return (
        row.name,
        f"{row.first:.1e}",
        *(f"{step:.1e}" for step in row.later),
        percent(row.first / row.rms) if row.rms else "-",
        f"lr {row.full_lr:.1e}" if row.full_lr else "-",
    )


def percent(share: float) -> str:
    """A share as a percentage of two digits."""
    points = 100 * share
    if points > 1000:
        return "> 1000 %"
    return f"{points:.0f} %" if points >= 10 else f"{points:.2g} %"
