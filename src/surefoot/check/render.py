"""Findings as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from surefoot.check.step_table import finding_lines
from surefoot.config.lines import Place, place_of
from surefoot.finding import Change, Finding, Level
from surefoot.language import _
from surefoot.wording import Said, say

_STYLES: dict[Level, str] = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def render_finding(
    finding: Finding,
    file: str,
    text: str,
    *,
    said: Said | None = None,
    place: Place | None = None,
) -> Text:
    """One finding, with the line of run.toml that it is about.

    Args:
        finding: What to show.
        file: The run.toml's name, as the user gave it.
        text: Its content.
        said: Its words, if they are others than for a run.toml.
        place: Where it is in the text, if that is no TOML.
    """
    said = said or say(finding)
    shown = Text()
    level, style = said.level, _STYLES[finding.level]
    if finding.waived:
        level, style = _("waived"), "dim"
    shown.append(f"{level}[{finding.code}]", style=style)
    shown.append(f" {said.sentence}\n", style="bold")
    if finding.waived:
        return shown.append(_("reason: "), style="cyan").append(f"{finding.waived}\n")
    place = place or place_of(text, finding.path)
    shown.append_text(_place(finding, said, file, text, place))
    for line in finding_lines(finding.rows):
        shown.append(f"   {line}\n")
    for note in said.notes:
        shown.append(_("note: "), style="cyan").append(f"{note}\n")
    for number, advice in enumerate(said.helps):
        shown.append(_("help: "), style="green").append(f"{advice}\n")
        if number == 0:
            for change in finding.changes:
                shown.append_text(_change(change))
    return shown


def _place(finding: Finding, said: Said, file: str, text: str, place: Place | None) -> Text:
    """Where it is, the line itself, and what that line does."""
    shown = Text()
    if not finding.path:
        return shown
    if place is None:
        shown.append(f"  --> {file}  {finding.path}\n", style="blue")
        return shown.append(f"{said.cause}\n" if said.cause else "")
    shown.append(f"  --> {file}:{place.line}:{place.column}  {finding.path}\n", style="blue")
    line = text.split("\n")[place.line - 1].rstrip().expandtabs()
    margin = " " * len(str(place.line))
    before = cell_len(line) - cell_len(line.lstrip())
    shown.append(f"{place.line} | ", style="blue").append(f"{line}\n")
    shown.append(f"{margin} | ", style="blue").append(" " * before)
    # A few signs are as wide as two; the marks go below all of it.
    shown.append("^" * max(1, cell_len(place.statement)), style=_STYLES[finding.level])
    return shown.append(f" {said.cause}\n" if said.cause else "\n")


def _change(change: Change) -> Text:
    key = change.path.rpartition(".")[2]
    shown = Text().append(f"  - {key} = {change.before}\n", style="red")
    match change.action:
        case "set":
            shown.append(f"  + {key} = {change.value}\n", style="green")
        case "rename":
            shown.append(f"  + {change.value} = {change.before}\n", style="green")
        case "remove":
            pass
    return shown


def render_count(findings: Sequence[Finding]) -> str:
    """How many there are of each level."""
    counts = {level: sum(item.standing == level for item in findings) for level in _STYLES}
    shown = _("errors: {errors}, warnings: {warnings}, notes: {notes}").format(
        errors=counts["error"], warnings=counts["warning"], notes=counts["note"]
    )
    waived = sum(bool(item.waived) for item in findings)
    return shown + (_(", waived: {count}").format(count=waived) if waived else "")


def render_repairs(findings: Sequence[Finding]) -> str:
    """How many findings have a repair, of each kind; empty if none has."""
    mended = [finding for finding in findings if finding.changes and not finding.waived]
    same = sum(all(change.same for change in finding.changes) for finding in mended)
    if not mended:
        return ""
    return _("repairs: {same} that leave the training as it is, {choice} that change it").format(
        same=same, choice=len(mended) - same
    )
