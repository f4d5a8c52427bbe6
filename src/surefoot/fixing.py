"""`check --fix`: the repairs of the findings, shown, asked for, and written into run.toml."""

from __future__ import annotations

import codecs
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.text import Text

from surefoot.check.repair import repaired
from surefoot.finding import Change, Finding
from surefoot.formats.files import write_whole
from surefoot.judging import judge
from surefoot.language import _
from surefoot.terminal import exit_unwritable, stderr, stdout
from surefoot.wording import say

_MOST_ROUNDS = 8
"""A repair can bring up findings that were hidden behind it; these bounds are never reached."""


def fix(run_file: Path, *, yes: bool) -> None:
    """Mends a run.toml in place: what leaves the training as it is at once, the rest if agreed.

    Without a terminal to ask at, and without `yes`, what changes the training is left.
    """
    try:
        content = run_file.read_bytes()
        before = content.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return  # which the check says
    after = _mended(run_file, before, yes=yes)
    if after == before:
        stdout.print(_("{file}: nothing was changed").format(file=run_file))
        return
    if b"\r\n" in content:
        after = after.replace("\n", "\r\n")
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    try:
        # Through a link to the file itself, which would else be replaced by a file.
        write_whole(run_file.resolve(), mark + after.encode())
    except OSError as error:
        exit_unwritable(run_file.parent, error)
    stdout.print(_("{file} was changed").format(file=run_file))


def _mended(run_file: Path, text: str, *, yes: bool) -> str:
    declined: set[tuple[str, str]] = set()
    for _round in range(_MOST_ROUNDS):
        findings = judge(run_file, text=text).findings
        mended = text
        for finding in findings:
            if finding.waived or (finding.code, finding.path) in declined:
                continue
            following = _with_repairs(finding, mended, run_file, yes=yes)
            if following != mended and (new := _new_errors(mended, following, run_file)):
                told = _("the repair of {code} would lead to {codes}; left out")
                stderr.print(told.format(code=finding.code, codes=", ".join(new)))
                following = mended
            if following == mended:
                declined.add((finding.code, finding.path))
            mended = following
        if mended == text:
            break
        text = mended
    return text


def _with_repairs(finding: Finding, text: str, run_file: Path, *, yes: bool) -> str:
    """The text with one finding's repairs, of which those that change the training are asked."""
    alike = all(change.same for change in finding.changes)
    following = _repaired(text, finding.changes)
    if following == text:
        return text
    stdout.print(Text(f"[{finding.code}] {say(finding).sentence}", style="bold"))
    stdout.print(_diff(text, following, run_file), end="")
    if alike or yes:
        return following
    if not _can_ask():
        stdout.print(_("this changes the training: left as it is; --yes makes it too"))
        return text
    return following if typer.confirm(_("this changes the training; make it?")) else text


def _repaired(text: str, changes: Sequence[Change]) -> str:
    try:
        return repaired(text, changes)
    except ValueError:  # the text is no TOML
        return text


def _new_errors(before: str, after: str, run_file: Path) -> list[str]:
    """The codes of errors that the text has only after a repair."""
    known = {(finding.code, finding.path) for finding in judge(run_file, text=before).findings}
    return [
        finding.code
        for finding in judge(run_file, text=after).findings
        if finding.standing == "error" and (finding.code, finding.path) not in known
    ]


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _diff(before: str, after: str, run_file: Path) -> Text:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    shown = Text()
    for line in difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(run_file), str(run_file), n=1, lineterm=""
    ):
        shown.append(f"{line}\n", style=styles.get(line[:1], ""))
    return shown
