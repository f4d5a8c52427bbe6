"""The rule about braces, which needs captions of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run_files import look, write_run


@pytest.mark.parametrize(("caption", "count"), [("a {red|blue cat", 1), ("a {red|blue} cat", 0)])
def test_unpaired_braces_are_told_where_wildcards_are_read(
    caption: str, count: int, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path)
    (tmp_path / "pictures/0.txt").write_text(caption, encoding="utf-8")
    _plan, _survey, findings = look(run_file, "captions.wildcards=true")
    assert [item.code for item in findings] == ["SF313"] * count
    assert look(run_file)[2] == []
