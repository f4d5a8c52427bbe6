"""What all verbs of the command line share: consoles, exit codes, how findings are printed."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import typer
from rich.console import Console

from surefoot.check.render import render_finding
from surefoot.config.lines import place_of
from surefoot.finding import Finding
from surefoot.wording import say

Format = Literal["text", "json", "sarif"]
"""How a check prints what it found."""

OK, FOUND, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
OK, FOUND, UNUSABLE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes; the epilog of `surefoot --help` says what they mean."""

# No markup: a path may have brackets in it.
stdout = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
stderr = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def exit_code(findings: Sequence[Finding]) -> int:
    """The exit code that the findings of a verb mean."""
    if any(finding.unusable for finding in findings):
        return UNUSABLE
    return FOUND if any(finding.standing == "error" for finding in findings) else OK


def print_findings(
    findings: Sequence[Finding],
    file: Path,
    text: str,
    console: Console,
    overrides: Sequence[str] | None = None,
) -> None:
    """Findings with the lines that they are about.

    Args:
        findings: What to print.
        file: The run.toml, or what the verb was given.
        text: Its content, if it is one.
        console: Where to.
        overrides: Of the command line, such as `train.steps=10`.
    """
    given = {override.partition("=")[0].strip(): override for override in overrides or ()}
    for finding in findings:
        # Where an override put the value, the file's line would show another.
        override = given.get(finding.path)
        where = (str(file), text) if override is None else (override, "")
        console.print(render_finding(finding, *where))


def finding_json(finding: Finding, text: str = "") -> dict[str, object]:
    """A finding as JSON values, with its words, and where in the text of a run.toml it is."""
    said = say(finding)
    words = {
        "sentence": said.sentence,
        "cause": said.cause,
        "notes": said.notes,
        "helps": said.helps,
    }
    place = place_of(text, finding.path) if finding.path else None
    line, column = (0, 0) if place is None else (place.line, place.column)
    return {**finding.as_json(), "line": line, "column": column, **words}


def print_json(document: dict[str, object]) -> None:
    """One JSON document on the standard output."""
    # What a console of another encoding lacks is escaped; as `?` it would be another document.
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    stdout.print(json.dumps(document, ensure_ascii=ascii_only, indent=1), markup=False)


def exit_unwritable(folder: Path, error: OSError) -> NoReturn:
    """Says that a folder of a run cannot be written, and ends."""
    values = {"folder": str(folder), "reason": error.strerror or str(error)}
    values["blocking"] = str(error.filename or folder)
    print_findings([Finding("SF041", "error", "", dict(values))], folder, "", stderr)
    raise typer.Exit(UNUSABLE) from None


def quiet_libraries() -> None:
    """Keeps the model libraries' own bars and remarks off the terminal; set a name to see them."""
    for name, value in {
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    # diffusers loads these where they are installed; what they tell of, nothing here asks for.
    for library in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(library).setLevel(logging.ERROR)
