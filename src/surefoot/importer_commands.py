"""The verb `import`, and what `check` does with another trainer's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from surefoot.check.render import render_count, render_finding
from surefoot.check.sarif import sarif
from surefoot.finding import Refused
from surefoot.formats.files import write_whole
from surefoot.importers.judge import Reading, said_in_their_words
from surefoot.importers.recognise import Theirs, recognise
from surefoot.importers.record import TRAINER_NAMES, TheirRun
from surefoot.importers.render import account_lines, place_in, reason_of
from surefoot.importers.run_file import run_toml
from surefoot.language import _
from surefoot.terminal import (
    FOUND,
    OK,
    UNUSABLE,
    Format,
    exit_code,
    exit_unwritable,
    finding_json,
    print_json,
    stderr,
    stdout,
)

_NOT_OURS = frozenset((".json", ".jsonc", ".yaml", ".yml", ".sh", ".bat", ".cmd", ".ps1", ".env"))
# Codes of a file that is no trainer's, which leave it to the reader of run.toml to say so.
_NOBODYS = frozenset(("SF001", "SF090", "SF091"))


def import_file(
    their_file: Annotated[Path, typer.Argument(help="Another trainer's config or command line.")],
    out: Annotated[Path, typer.Option("--out", help="The run.toml to write.")] = Path("run.toml"),
    meaning: Annotated[
        Literal["window", "command"],
        typer.Option(
            "--meaning",
            help="OneTrainer's window and its scripts/train.py read a file "
            "differently: whose reading to write.",
        ),
    ] = "window",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the run.toml.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List also the keys that change nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
) -> None:
    """Write a run.toml from a file of another trainer, and account for every key of it."""
    read = _read_or_exit(their_file)
    reading = read[-1] if meaning == "command" else read[0]
    if out.exists() and not force:
        stderr.print(_("{file} exists; give --out another name, or --force").format(file=out))
        raise typer.Exit(UNUSABLE)
    try:
        write_whole(out, run_toml(reading.run, their_file.name).encode())
    except OSError as error:
        exit_unwritable(out, error)
    if as_json:
        print_json(_account_json(reading.run, out))
    else:
        for line in account_lines(reading.run, their_file.name, everything=everything):
            stdout.print(line)
        stdout.print(_("Next: surefoot check {file}").format(file=out))
    raise typer.Exit(OK)


def check_theirs(file: Path, *, form: Format, strict: bool) -> None:
    """Judges a file of another trainer, and ends; returns if it is to be read as a run.toml."""
    try:
        theirs = recognise(file)
    except Refused as refused:
        codes = {finding.code for finding in refused.findings}
        if file.suffix.lower() not in _NOT_OURS and codes <= _NOBODYS:
            return
        _exit_refused(refused, file, "", as_json=form != "text")
    if theirs is None:
        return
    read = _readings_or_exit(theirs, file, as_json=form != "text")
    findings = [finding for reading in read for finding in reading.findings]
    code = exit_code(findings)
    if strict and code == OK and any(finding.level == "warning" for finding in findings):
        code = FOUND
    match form:
        case "json":
            print_json(_check_json(read))
        case "sarif":
            print_json(_check_sarif(read, theirs, file))
        case "text":
            _print_check(read, theirs, file)
    raise typer.Exit(code)


def _read_or_exit(file: Path) -> tuple[Reading, ...]:
    try:
        theirs = recognise(file)
    except Refused as refused:
        _exit_refused(refused, file, "", as_json=False)
    if theirs is None:
        stderr.print(_("{file} is a run.toml already").format(file=file))
        raise typer.Exit(UNUSABLE)
    return _readings_or_exit(theirs, file, as_json=False)


def _readings_or_exit(theirs: Theirs, file: Path, *, as_json: bool) -> tuple[Reading, ...]:
    # Imported late: a run.toml, which is also asked whose it is, needs no importer.
    from surefoot.importers.reading import readings

    try:
        return readings(theirs, file)
    except Refused as refused:
        _exit_refused(refused, file, theirs.text, as_json=as_json, lines=theirs.document.lines)


def _exit_refused(
    refused: Refused,
    file: Path,
    text: str,
    *,
    as_json: bool,
    lines: Mapping[str, int] | None = None,
) -> NoReturn:
    if as_json:
        found = [finding_json(finding) for finding in refused.findings]
        print_json({"schema": 1, "findings": found})
    for finding in refused.findings if not as_json else ():
        place = place_in(text, (lines or {}).get(finding.path, 0))
        stderr.print(render_finding(finding, str(file), text, place=place))
    raise typer.Exit(UNUSABLE) from None


def _print_check(read: Sequence[Reading], theirs: Theirs, file: Path) -> None:
    stdout.print(
        _("{file}: a file of {trainer}").format(file=file, trainer=TRAINER_NAMES[theirs.trainer])
    )
    said_before: set[tuple[str, str]] = set()
    for reading in read:
        if len(read) > 1:
            stdout.print(_("as its {meaning} reads it:").format(meaning=_(reading.run.meaning)))
        for finding in reading.findings:
            if (finding.code, finding.path) in said_before:
                continue
            said_before.add((finding.code, finding.path))
            place = place_in(theirs.text, reading.run.lines.get(finding.path, 0))
            said = said_in_their_words(finding)
            shown = replace(finding, changes=())
            stdout.print(render_finding(shown, str(file), theirs.text, said=said, place=place))
        stdout.print(f"{file}: {render_count(reading.findings)}")
    codes = dict.fromkeys(finding.code for reading in read for finding in reading.findings)
    if codes:
        stdout.print(_("More: surefoot explain {code}").format(code=next(iter(codes))))
    stdout.print(_("Next: surefoot import {file}").format(file=file))


def _check_sarif(read: Sequence[Reading], theirs: Theirs, file: Path) -> dict[str, object]:
    # Their remedies are no edits of a run.toml, which is what SARIF's fixes would be made of.
    found = {
        (finding.code, finding.path): replace(finding, changes=())
        for reading in read
        for finding in reading.findings
    }
    places = {
        key: place
        for key, line in theirs.document.lines.items()
        if (place := place_in(theirs.text, line)) is not None
    }
    return sarif(list(found.values()), file, theirs.text, places)


def _check_json(read: Sequence[Reading]) -> dict[str, object]:
    return {
        "schema": 1,
        "trainer": read[0].run.trainer,
        "findings": [
            {
                **finding_json(finding),
                "helps": said_in_their_words(finding).helps,
                "line": reading.run.lines.get(finding.path, 0),
                "meaning": reading.run.meaning,
            }
            for reading in read
            for finding in reading.findings
        ],
    }


def _account_json(run: TheirRun, out: Path) -> dict[str, object]:
    keys = [{**asdict(note), "values": dict(note.values), "words": reason_of(note)}
            for note in run.notes]  # fmt: skip
    return {"schema": 1, "trainer": run.trainer, "run": str(out), "keys": keys}
