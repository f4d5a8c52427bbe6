"""What became of another trainer's keys, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from surefoot.config.lines import Place
from surefoot.families.facts import FAMILIES
from surefoot.finding import Value
from surefoot.importers.record import TRAINER_NAMES, Fate, KeyNote, TheirRun
from surefoot.language import N_, _

_HEADS: dict[Fate, str] = {
    "kept": N_("kept"),
    "changed": N_("changed"),
    "dropped": N_("dropped"),
}
MEANINGS = (N_("window"), N_("command line"))
"""OneTrainer's ways of reading a file."""


def account_lines(run: TheirRun, file: str, *, everything: bool) -> list[Text]:
    """The account, one line for each key that matters.

    Args:
        run: The run.
        file: The name of its file.
        everything: Also the keys that change nothing.
    """
    notes = run.notes
    counts = {fate: sum(note.fate == fate for note in notes) for fate in _HEADS}
    head = _("{file}: {trainer}; keys kept: {kept}, changed: {changed}, dropped: {dropped}")
    lines = [
        Text(head.format(file=file, trainer=TRAINER_NAMES[run.trainer], **counts), style="bold")
    ]
    for fate, name in _HEADS.items():
        shown = [note for note in notes if note.fate == fate and (note.matters or everything)]
        lines += _section(_(name), shown)
    quiet = 0 if everything else sum(not note.matters for note in notes)
    if quiet:
        lines.append(Text(_("keys that change nothing: {count} (--all lists them)").format(
            count=quiet)))  # fmt: skip
    if run.family not in FAMILIES:
        message = _("surefoot cannot train the family {family} yet")
        lines.append(Text(message.format(family=run.family), style="yellow"))
    return lines


def _section(name: str, notes: Sequence[KeyNote]) -> list[Text]:
    lines: list[Text] = []
    for note in notes:
        line = Text(f"  {name}  ").append(f"{note.key} = {note.given}")
        if note.ours:
            line.append(f"  -> {note.ours}", style="blue")
        if note.reason:
            line.append(f": {reason_of(note)}")
        lines.append(line)
    return lines


def reason_of(note: KeyNote) -> str:
    """Why a key was changed or dropped, in words."""
    return reason_words(note.reason, note.values)


def reason_words(reason: str, values: Mapping[str, Value]) -> str:
    """A reason in the language chosen."""
    said = {key: _(value) if key == "reason" and isinstance(value, str) and value else value
            for key, value in values.items()}  # fmt: skip
    return _(reason).format(**said)


def place_in(text: str, number: int) -> Place | None:
    """A line of a file of any format."""
    if number <= 0:
        return None
    line = text.split("\n")[number - 1]
    return Place(number, len(line) - len(line.lstrip()) + 1, line.strip())
