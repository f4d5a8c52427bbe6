"""Changes of a text: made as asked or not at all, whatever the layout, and no comment is lost."""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.check.repair import repaired
from surefoot.finding import Change

LAYOUTS = (
    "# c0\na = 1 # c1\n[t] # c2\nx = 2 # c3\n# c4\n[t.y]\nz = 3\n"
    "[[l]] # c5\nk = 4\n[[l]]\nk = 5 # c6\n",
    "a=1#c0\nt = { x = 2, y = { z = 3 } } # c1\nl = [\n  { k = 4 }, # c2\n  { k = 5 },\n] # c3\n",
    "a = 1 # c0\nt.x = 2 # c1\nt.y.z = 3 # c2\n[[l]]\n  k = 4 # c3\n\n[[l]]\n  k = 5\n# c4",
    'a = """\n[t]\nx = 9 # no comment\n""" # c0\n[l]\n"k" = 1 # c1\n'
    "[t]\n'x' = 2\ny.z = 3 # c2\n\n\n# c3\n",
)
PATHS = ("a", "t.x", "t.y.z", "t.new", "new.key", "l.0", "l.1", "l.0.k", "t.y.new", "l.k", "t")
VALUES = ("true", "0.5", '"word # 1"', "[1, 2]", "-3")


def inside(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[int(part) if isinstance(document, list) else part]
    return document


def comments(text: str) -> set[str]:
    return set(re.findall(r"#\s?c\d", text))


@given(
    text=st.sampled_from(LAYOUTS),
    path=st.sampled_from(PATHS),
    value=st.sampled_from(VALUES),
)
def test_value_is_set_or_the_text_is_left(text: str, path: str, value: str) -> None:
    mended = repaired(text, [Change(path, value, "")])
    if mended == text:
        return
    document, expected = tomllib.loads(mended), tomllib.loads(f"v = {value}")["v"]
    assert inside(document, path) == expected
    if path in ("a", "t.new", "new.key", "t.y.new"):
        # Nothing but that has changed.
        parent, _dot, name = path.rpartition(".")
        before = copy.deepcopy(tomllib.loads(text))
        target = inside(before, parent) if parent and parent != "new" else before
        if parent == "new":
            before["new"] = {name: expected}
        else:
            target[name] = expected
        assert document == before
        assert comments(mended) == comments(text)


@pytest.mark.parametrize("text", LAYOUTS)
@pytest.mark.parametrize("path", ["a", "t.x", "t.new", "t.y.z", "new.key"])
def test_every_layout_takes_a_new_value(text: str, path: str) -> None:
    mended = repaired(text, [Change(path, '"off"', "")])
    assert inside(tomllib.loads(mended), path) == "off"
    assert comments(mended) == comments(text)


@given(text=st.sampled_from(LAYOUTS), path=st.sampled_from(PATHS), name=st.sampled_from("xnk"))
def test_key_is_renamed_or_the_text_is_left(text: str, path: str, name: str) -> None:
    mended = repaired(text, [Change(path, name, "", action="rename")])
    before, after = tomllib.loads(text), tomllib.loads(mended)
    if mended == text:
        return
    new = ".".join([*path.split(".")[:-1], name])
    assert inside(after, new) == inside(before, path)
    with pytest.raises((KeyError, IndexError)):
        inside(after, path)
    assert comments(mended) == comments(text)


@given(text=st.sampled_from(LAYOUTS), path=st.sampled_from(PATHS))
def test_key_is_taken_out_or_the_text_is_left(text: str, path: str) -> None:
    mended = repaired(text, [Change(path, "", "", action="remove")])
    before, after = tomllib.loads(text), tomllib.loads(mended)
    if mended == text:
        return
    try:
        left = inside(after, path)
    except (KeyError, IndexError):
        return
    # In a list the next one has moved up.
    assert left != inside(before, path)


def test_text_that_is_no_toml_is_told() -> None:
    with pytest.raises(ValueError, match="line 1"):
        repaired("a = \n", [Change("a", "1", "")])
