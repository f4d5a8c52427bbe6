"""The effective-step sheet as text, whole and as the few columns that a finding shows."""

from __future__ import annotations

from collections.abc import Sequence

from surefoot.columns import aligned
from surefoot.finding import StepRow
from surefoot.language import _


def sheet_lines(rows: Sequence[StepRow]) -> list[str]:
    """The effective-step sheet, one line for each kind of tensor, columns aligned."""
    if not rows:
        return []
    losing = any(row.lost for row in rows)
    head = (
        _("tensor"),
        _("count"),
        _("numbers"),
        _("RMS now"),
        _("step per element"),
        _("a step moves it by"),
        _("over the run at most"),
        *((_("lost in rounding"),) if losing else ()),
    )
    return aligned(
        [head, *((*_cells(row), *((percent(row.lost),) if losing else ())) for row in rows)]
    )


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
        return (row.kind, f"{row.rms:.2g}", _("found in the run"), "-")
    if row.kind == "lora_up":
        run = _("{step:.1e}: changes the layer by {percent}")
    else:
        run = _("{step:.1e}: {percent} of itself")
    run = run.format(step=row.total, percent=percent(row.layer_change))
    return (row.kind, f"{row.rms:.2g}", f"{row.first:.1e}", run)


def _cells(row: StepRow) -> tuple[str, ...]:
    relative = f"{percent(row.first / row.rms)}" if row.rms else "-"
    if not row.known:
        found = _("found in the run")
        return (row.kind, str(row.tensors), f"{row.numbers:,}", f"{row.rms:.2g}", found, "-", "-")
    if row.kind == "lora_up":
        run = _("the layer by {percent}").format(percent=percent(row.layer_change))
    else:
        run = _("itself by {percent}").format(percent=percent(row.layer_change))
    return (
        row.kind,
        str(row.tensors),
        f"{row.numbers:,}",
        f"{row.rms:.2g}",
        f"{row.first:.1e}",
        relative,
        run,
    )


def percent(share: float) -> str:
    """A share as a percentage of two digits."""
    points = 100 * share
    if points > 1000:
        return "> 1000 %"
    return f"{points:.0f} %" if points >= 10 else f"{points:.2g} %"
