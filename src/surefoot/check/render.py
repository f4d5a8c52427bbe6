"""Findings and the effective-step sheet as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from surefoot.columns import aligned
from surefoot.config.lines import line_of
from surefoot.finding import Finding, Level, StepRow
from surefoot.language import _
from surefoot.wording import say

_STYLES: dict[Level, str] = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def render_finding(finding: Finding, file: str, text: str) -> Text:
    """One finding, with the line of run.toml that it is about.

    Args:
        finding: What to show.
        file: The run.toml's name, as the user gave it.
        text: Its content.
    """
    said = say(finding)
    shown = Text()
    shown.append(f"{said.level}[{finding.code}]", style=_STYLES[finding.level])
    shown.append(f" {said.sentence}\n", style="bold")
    shown.append_text(_place(finding, file, text))
    for line in sheet_lines(finding.rows):
        shown.append(f"   {line}\n")
    for note in said.notes:
        shown.append(_("note: "), style="cyan").append(f"{note}\n")
    for number, advice in enumerate(said.helps):
        shown.append(_("help: "), style="green").append(f"{advice}\n")
        if number == 0:
            for change in finding.changes:
                key = change.path.rpartition(".")[2]
                shown.append(f"  - {key} = {change.before}\n", style="red")
                shown.append(f"  + {key} = {change.value}\n", style="green")
    return shown


def _place(finding: Finding, file: str, text: str) -> Text:
    shown = Text()
    if not finding.path:
        return shown
    number = line_of(text, finding.path)
    if number:
        line = text.split("\n")[number - 1].rstrip()
        shown.append(f"  --> {file}:{number}  {finding.path}\n", style="blue")
        shown.append(f"{number} | ", style="blue").append(f"{line}\n")
    else:
        shown.append(f"  --> {file}  {finding.path}\n", style="blue")
    return shown


def sheet_lines(rows: Sequence[StepRow]) -> list[str]:
    """The effective-step sheet, one line for each kind of tensor, columns aligned."""
    if not rows:
        return []
    losing = any(row.lost for row in rows)
    table = [
        (
            _("tensor"),
            _("count"),
            _("numbers"),
            _("RMS now"),
            _("step per element"),
            _("a step moves it by"),
            _("over the run at most"),
            *((_("lost in rounding"),) if losing else ()),
        ),
        *((*_cells(row), *((_percent(row.lost),) if losing else ())) for row in rows),
    ]
    return aligned(table)


def _cells(row: StepRow) -> tuple[str, ...]:
    relative = f"{_percent(row.first / row.rms)}" if row.rms else "-"
    if not row.known:
        found = _("found in the run")
        return (row.kind, str(row.tensors), f"{row.numbers:,}", f"{row.rms:.2g}", found, "-", "-")
    if row.kind == "lora_up":
        run = _("the layer by {percent}").format(percent=_percent(row.layer_change))
    else:
        run = _("itself by {percent}").format(percent=_percent(row.layer_change))
    return (
        row.kind,
        str(row.tensors),
        f"{row.numbers:,}",
        f"{row.rms:.2g}",
        f"{row.first:.1e}",
        relative,
        run,
    )


def _percent(share: float) -> str:
    percent = 100 * share
    if percent > 1000:
        return "> 1000 %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def render_count(findings: Sequence[Finding]) -> str:
    """How many there are of each level."""
    counts = {level: sum(item.level == level for item in findings) for level in _STYLES}
    return _("errors: {errors}, warnings: {warnings}, notes: {notes}").format(
        errors=counts["error"], warnings=counts["warning"], notes=counts["note"]
    )
