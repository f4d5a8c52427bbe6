"""The line of a key, for files written in every way that TOML allows."""

from __future__ import annotations

import pytest

from surefoot.config.lines import Place, line_of, place_of

EVERYTHING = """\
# name = "a comment"
name = "cat"  # [model]
"seed" = 3
train.steps = 10
train . 'ema' = "off"

[model]
path = '''
name = "inside a string"
[data]
''' # [train]
  config = "builtin"

[optimizer]   # kind = "adamw"
kind = "adafactor"
"lr" = "a # no comment [not a header"

[[data.folders]]
path = "first"
[[ data . folders ]]
repeats = 2
path = "second"
[data.folders.extra]
deep = 1

[preview]
prompts = [
    "a cat",  # seed = 9
    "] [validation]",
    'steps = 3',
]
steps = 25
negative = \"\"\"
[save]
every = 3
\"\"\"

[ tuning ]
kind = "lora"
targets = [["a"], ["b",
"c"]]
alpha = 3
[tuning.more.and]
x = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name", 2),
        ("seed", 3),
        ("train", 4),
        ("train.steps", 4),
        ("train.ema", 5),
        ("model", 7),
        ("model.path", 8),
        ("model.config", 12),
        ("optimizer", 14),
        ("optimizer.kind", 15),
        ("optimizer.lr", 16),
        ("data.folders", 18),
        ("data.folders.0", 18),
        ("data.folders.0.path", 19),
        ("data.folders.1", 20),
        ("data.folders.1.repeats", 21),
        ("data.folders.1.path", 22),
        ("data.folders.1.extra.deep", 24),
        ("preview.prompts", 27),
        ("preview.steps", 32),
        ("preview.negative", 33),
        ("tuning", 38),
        ("tuning.targets", 40),
        ("tuning.alpha", 42),
        ("tuning.more", 43),
        ("tuning.more.and.x", 44),
    ],
)
def test_key_is_found_on_the_line_where_it_stands(path: str, line: int) -> None:
    assert line_of(EVERYTHING, path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("optimizer.beta1", 14),
        ("data.folders.0.repeats", 18),
        ("data.folders.7.path", 18),
        ("data.flip", 18),
        ("tuning.targets.1", 40),
        ("preview.every", 26),
        ("folder", 0),
        ("validation.folder", 0),
        ("save.every", 0),
    ],
)
def test_default_is_at_its_nearest_parent_or_nowhere(path: str, line: int) -> None:
    assert line_of(EVERYTHING, path) == line


def test_what_is_written_inside_strings_and_arrays_is_no_key() -> None:
    text = 'prompts = [\n  """\n[train]\nsteps = 3\n"""\n  , "#",\n]\n[train]\nsteps = 4\n'
    assert line_of(text, "train") == 8
    assert line_of(text, "train.steps") == 9


def test_quotes_and_backslashes_do_not_end_a_string_early() -> None:
    text = (
        'a = "\\"#["\n'
        "b = '\\'\n"
        'c = """x\\"""" # [\n'
        'd = """"quoted""""\n'
        "e = ''''x''''\n"
        "f = 1\n"
    )
    assert [line_of(text, key) for key in "abcdef"] == [1, 2, 3, 4, 5, 6]


def test_lines_of_windows_and_last_lines_without_an_end_count_the_same() -> None:
    assert line_of("name = 1\r\n\r\n[train]\r\nsteps = 2", "train.steps") == 4


def test_only_a_newline_ends_a_line() -> None:
    assert line_of('name = "a\u2028b\x0cc"\nseed = 1\n', "seed") == 2


def test_place_of_a_key_is_its_statement_without_the_comment() -> None:
    text = '[a]  # one\n  b = "x # y"   # two\nc = [\n 1]\n'
    assert place_of(text, "a") == Place(1, 1, "[a]")
    assert place_of(text, "a.b") == Place(2, 3, 'b = "x # y"')
    assert place_of(text, "a.c") == Place(3, 1, "c = [")
    assert place_of(text, "d") is None
