from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["Added", "Changed", "Fixed", "Numerics", "Config"]


def sections() -> dict[str, list[str]]:
    """Each version's heading, in the file's order, and the kinds of change under it."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            found[line.removeprefix("## ")] = []
        elif line.startswith("### "):
            found[list(found)[-1]].append(line.removeprefix("### "))
    return found


def test_changelog_begins_with_unreleased_and_its_five_kinds() -> None:
    first, kinds = next(iter(sections().items()))
    assert first == "UNRELEASED"
    assert kinds == KINDS


def test_released_version_has_its_own_section() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = settings["project"]["version"]
    released = [heading.split(" ")[0] for heading in list(sections())[1:]]
    if re.search(r"\.dev\d+$", version):
        assert version.split(".dev")[0] not in released
    else:
        assert released[:1] == [version]


def test_kinds_of_change_are_the_five_in_their_order() -> None:
    for kinds in sections().values():
        assert kinds == [kind for kind in KINDS if kind in kinds]
