"""`[[waive]]` of a run.toml: findings that are accepted, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from surefoot.config.waiver import WaiverConfig
from surefoot.finding import Change, Finding
from surefoot.wording import WORDS

# Without these a run cannot begin, or could not do what it is told; and what a run itself finds is
# found too late. All of SF0 and SF5 are such, too.
_NEEDED = frozenset(
    {
        "SF103", "SF111", "SF112", "SF113", "SF114", "SF115", "SF116", "SF117", "SF130", "SF132",
        "SF133",
    }
)  # fmt: skip


def can_be_waived(code: str) -> bool:
    """Whether a run can be told to go on in spite of it."""
    return code in WORDS and not code.startswith(("SF0", "SF4", "SF5")) and code not in _NEEDED


def with_waivers(findings: Sequence[Finding], waivers: Sequence[WaiverConfig]) -> list[Finding]:
    """The findings, those that are waived with their reason, and what is wrong with waivers."""
    reasons = {item.code: item.reason for item in waivers if can_be_waived(item.code)}
    marked = [replace(item, waived=reasons.get(item.code, "")) for item in findings]
    found = {finding.code for finding in findings}
    # The last first: when one is taken out, those before it keep their numbers.
    for index, waiver in reversed(list(enumerate(waivers))):
        path, code = f"waive.{index}", waiver.code
        if code not in WORDS:
            marked.append(Finding("SF061", "error", f"{path}.code", {"code": code}))
        elif not can_be_waived(code):
            marked.append(Finding("SF062", "error", f"{path}.code", {"code": code}))
        elif code not in found:
            change = Change(path, "", f'"{code}"', action="remove", same=True)
            marked.append(Finding("SF401", "warning", path, {"code": code}, changes=(change,)))
    return marked
