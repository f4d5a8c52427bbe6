"""A run.toml judged: what would happen, and every finding, whether it can be used or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.check.rules import review
from surefoot.config.load import Loaded, load, load_rest
from surefoot.config.text_file import read_whole
from surefoot.finding import Finding, Refused
from surefoot.plan import Plan, resolve
from surefoot.survey import Survey, survey


@dataclass(frozen=True)
class Run:
    """A run.toml that can be used."""

    loaded: Loaded
    plan: Plan
    survey: Survey


@dataclass(frozen=True)
class Judgement:
    """What a check found; no `run` if the file cannot be used."""

    run: Run | None
    findings: list[Finding]
    text: str


def judge(file: Path, overrides: Sequence[str] = (), text: str | None = None) -> Judgement:
    """Looks at a run.toml and all that it names.

    Args:
        file: Where it is; relative paths in it start there.
        overrides: `key=value` of the command line.
        text: What it would say, if not what is in the file.
    """
    given = tuple(overrides)
    try:
        loaded = load(file, given, text)
    except Refused as refused:
        findings = refused.findings + _found_besides(file, given, refused.findings, text)
        return Judgement(None, findings, _text_of(file) if text is None else text)
    found = survey(loaded)
    planned = resolve(loaded, found)
    return Judgement(Run(loaded, planned, found), review(planned, found), loaded.text)


def _found_besides(
    file: Path, overrides: tuple[str, ...], problems: list[Finding], text: str | None
) -> list[Finding]:
    """What is wrong with the files that a refused run.toml names, so that all is said at once."""
    try:
        rest = load_rest(file, overrides, problems, text)
    except Refused:
        return []
    spoilt = {finding.path.partition(".")[0] for finding in problems}
    if "captions" in spoilt:  # it says whether captions are needed
        spoilt |= {"data", "validation"}
    findings = survey(rest).findings
    return [finding for finding in findings if finding.path.partition(".")[0] not in spoilt]


def _text_of(path: Path) -> str:
    try:
        return read_whole(path).decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    except Refused:
        return ""
