"""Every code has words, every word's blanks are filled, and no finding fails to be shown."""

from __future__ import annotations

import ast
import functools
import re
import string
from pathlib import Path

import pytest

import surefoot
from surefoot.finding import Finding
from surefoot.wording import WORDS, say

PACKAGE = Path(surefoot.__file__).parent
CODE = re.compile(r"SF\d{3}")
# Filled in by `say` itself.
DERIVED = {"near_hint", "cause_hint", "expected"}


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "wording.py"]


def constants(tree: ast.AST) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def codes_in(tree: ast.AST) -> set[str]:
    return {text for text in constants(tree) if CODE.fullmatch(text)}


def keys_written(tree: ast.AST) -> set[str]:
    """The constant keys of all dict displays, of `values[...] = ...` and of calls with a code."""
    keys: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and codes_in(ast.Tuple(node.args)):
            # `find` of an account puts both of these in.
            keys |= {"trainer", "key"} | {word.arg for word in node.keywords if word.arg}
        if isinstance(node, ast.Dict):
            keys |= {text for key in node.keys if key is not None for text in constants(key)}
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            keys |= constants(node.slice)
    return keys


def called(function: ast.FunctionDef) -> set[str]:
    return {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


@functools.cache
def keys_given() -> dict[str, set[str]]:
    """For each code, the keys of values in the functions that give it and that they call."""
    given: dict[str, set[str]] = {}
    for path in sources():
        module = ast.parse(path.read_text(encoding="utf-8"))
        functions = {
            node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)
        }
        tables = {
            node.target.id: codes_in(node)
            for node in module.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        for function in functions.values():
            names = called(function)
            codes = codes_in(function).union(*(tables.get(name, set()) for name in names))
            keys = keys_written(function)
            for name in names & functions.keys():
                keys |= keys_written(functions[name])
            for code in codes:
                given.setdefault(code, set()).update(keys)
    return given


def templates(code: str) -> tuple[str, ...]:
    words = WORDS[code]
    return (words.sentence, *words.notes, *words.helps)


def blanks(template: str) -> set[str]:
    return {name for _text, name, _spec, _conversion in string.Formatter().parse(template) if name}


def test_every_code_in_the_sources_has_words_and_the_other_way_round() -> None:
    used = set[str]()
    for path in sources():
        used |= codes_in(ast.parse(path.read_text(encoding="utf-8")))
    assert sorted(used - WORDS.keys()) == []
    assert sorted(WORDS.keys() - used) == []


@pytest.mark.parametrize("code", WORDS)
def test_every_blank_of_a_sentence_is_given_where_the_code_is(code: str) -> None:
    wanted = set[str]().union(*map(blanks, templates(code))) - DERIVED
    assert sorted(wanted - keys_given()[code]) == []


@pytest.mark.parametrize("code", WORDS)
def test_words_are_sentences_that_help(code: str) -> None:
    words = WORDS[code]
    assert len(words.sentence.splitlines()) == 1
    assert not words.sentence.endswith(".")
    # Notes that nothing need be done about.
    assert words.helps or code in ("SF104", "SF127", "SF134", "SF135", "SF613", "SF614", "SF615")


def test_codes_are_in_order() -> None:
    assert list(WORDS) == sorted(WORDS)


def test_slip_of_the_keyboard_is_answered_with_the_key_that_was_meant() -> None:
    values = {"key": "nmae", "near": "name", "known": "name, seed"}
    assert say(Finding("SF003", "error", "nmae", dict(values))).helps == (
        "did you mean `name`? known here: name, seed",
    )
    assert say(Finding("SF003", "error", "nmae", {**values, "near": ""})).helps == (
        "known here: name, seed",
    )


def test_braces_and_percents_in_a_file_name_are_kept() -> None:
    finding = Finding("SF034", "error", "", {"file": "{0} {file} %s 100 %.png"})
    assert say(finding).sentence == "the picture {0} {file} %s 100 %.png is empty (0 bytes)"
