"""Overrides of the command line, written into a run.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.config.load import load
from surefoot.config.overrides import override, with_overrides

TEXT = """# my run
name = "cat"  # its name
model = { path = "builtin" }

[optimizer]  # the default kind
lr = 1e-2  # relative

[[data.folders]]
path = "a"  # the first

[[data.folders]]
path = "b"

[preview]
prompts = [
  "one",  # the first prompt
  "two",
]

[train]
steps = 10
"""


def test_text_without_overrides_is_the_very_same() -> None:
    assert with_overrides("x=1 #  odd   spaces\r\n", ()) == "x=1 #  odd   spaces\r\n"


def test_values_are_replaced_and_all_else_stays() -> None:
    written = with_overrides(TEXT, ("optimizer.lr=3e-3", "name=dog", "data.folders.1.path=c d"))
    expected = TEXT.replace("1e-2", "0.003").replace('"cat"', '"dog"').replace('"b"', '"c d"')
    assert written == expected


@pytest.mark.parametrize(
    "overrides",
    [
        ("schedule.kind=rex", "schedule.warmup_steps=3"),
        ("data.folders.1.repeats=3",),
        ("preview.prompts.1=three",),
        ("preview.prompts=['a', 'b', 'c']",),
        ("model.prediction=epsilon",),
        ("optimizer={kind='adamw', lr=1e-4}",),
        ("data.folders=[{path='q'}]", "data.folders.0.repeats=2"),
        ("train.ema=0.9", "train.ema=off", "data.flip=true"),
    ],
)
def test_text_says_what_was_asked_and_keeps_other_comments(overrides: tuple[str, ...]) -> None:
    expected = tomllib.loads(TEXT)
    for item in overrides:
        assert override(expected, item) is None
    written = with_overrides(TEXT, overrides)
    assert tomllib.loads(written) == expected
    assert "# my run" in written
    assert "# its name" in written


@given(
    key=st.sampled_from(["a", "t.x", "t.y.z", "l.0", "l.1.k", "s.u.v"]),
    value=st.integers() | st.booleans() | st.text("ab\"'\\ \n é猫", max_size=5),
)
def test_any_override_of_any_document_is_in_the_text(key: str, value: object) -> None:
    texts = (
        "a = 1\nl = [1, {k = 2}]\n[t.y]\nz = 1\n[s.u]\n[t.w]\n",
        "t.x = 1\nt.y.z = 2 # y\n[[l]]\nk = 1\n[[l]]\nk = 2\n[s]\n",
    )
    for text in texts:
        expected = tomllib.loads(text)
        item = f"{key}={value}"
        override(expected, item)
        assert tomllib.loads(with_overrides(text, (item,))) == expected


def test_what_was_asked_gives_the_same_config_without_the_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TEXT, encoding="utf-8")
    loaded = load(path, ("optimizer.kind=adamw", "train.steps=7", "preview.every=3"))
    again = tmp_path / "again.toml"
    again.write_text(loaded.asked, encoding="utf-8")
    assert load(again).config == loaded.config
    assert load(path).config != loaded.config
