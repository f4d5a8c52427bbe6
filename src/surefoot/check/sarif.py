"""Findings as SARIF 2.1.0 (OASIS, 2020), which code hosts show beside the file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from surefoot.check.repair import repaired
from surefoot.config.lines import Place, place_of
from surefoot.finding import Finding
from surefoot.language import _
from surefoot.wording import WORDS, say

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif(
    findings: Sequence[Finding],
    file: Path,
    text: str,
    places: Mapping[str, Place] | None = None,
) -> dict[str, object]:
    """The log of one check.

    Args:
        findings: What was found.
        file: The run.toml, as the user gave it.
        text: Its content.
        places: Where its keys are, if it is no TOML.
    """
    codes = sorted({finding.code for finding in findings})
    from surefoot.release import VERSION  # slow: it reads what is installed

    driver = {"name": "surefoot", "version": VERSION, "rules": [_rule(code) for code in codes]}
    results = [_result(finding, codes, file, text, places or {}) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, object]:
    words = WORDS[code]
    full = ". ".join(_(part) for part in (words.sentence, words.cause, *words.notes) if part)
    helps = "; ".join(_(text) for text in words.helps)
    rule: dict[str, object] = {
        "id": code,
        "shortDescription": {"text": _(words.sentence)},
        "fullDescription": {"text": full},
    }
    return {**rule, "help": {"text": helps}} if helps else rule


def _result(
    finding: Finding, codes: Sequence[str], file: Path, text: str, places: Mapping[str, Place]
) -> dict[str, object]:
    said = say(finding)
    place = places.get(finding.path) or (place_of(text, finding.path) if finding.path else None)
    location: dict[str, object] = {"physicalLocation": _where(place, file)}
    if finding.path:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.path, "kind": "member"}]
    message = ". ".join(part for part in (said.sentence, said.cause, *said.notes) if part)
    result: dict[str, object] = {
        "ruleId": finding.code,
        "ruleIndex": codes.index(finding.code),
        "level": finding.level,
        "message": {"text": message},
        "locations": [location],
        "properties": {"values": finding.values},
    }
    if finding.waived:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.waived}]
    fixes = _fixes(finding, said.helps, file, text)
    return {**result, "fixes": fixes} if fixes else result


def _uri(file: Path) -> str:
    return file.as_uri() if file.is_absolute() else quote(file.as_posix())


def _where(place: Place | None, file: Path) -> dict[str, object]:
    artifact: dict[str, object] = {"artifactLocation": {"uri": _uri(file)}}
    if place is None:
        return artifact
    region = {
        "startLine": place.line,
        "startColumn": place.column,
        "endColumn": place.column + len(place.statement),
    }
    return {**artifact, "region": region}


def _fixes(
    finding: Finding, helps: Sequence[str], file: Path, text: str
) -> list[dict[str, object]]:
    """The repair as lines to replace; nothing where it cannot be made in place."""
    try:
        mended = repaired(text, finding.changes)
    except ValueError:  # the text is no TOML
        return []
    before, after = text.splitlines(keepends=True), mended.splitlines(keepends=True)
    replacements: list[dict[str, object]] = []
    for tag, start, end, first, last in difflib.SequenceMatcher(
        a=before, b=after, autojunk=False
    ).get_opcodes():
        if tag != "equal":
            # To the start of the line after the last; an insertion replaces nothing.
            region = {"startLine": start + 1, "startColumn": 1, "endLine": end + 1, "endColumn": 1}
            inserted = {"text": "".join(after[first:last])}
            replacements.append({"deletedRegion": region, "insertedContent": inserted})
    if not replacements:
        return []
    change = {"artifactLocation": {"uri": _uri(file)}, "replacements": replacements}
    return [{"description": {"text": "; ".join(helps[:1])}, "artifactChanges": [change]}]
