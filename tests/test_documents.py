"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

PACKAGES = (
    "surefoot.data",
    "surefoot.formats",
    "surefoot.objective",
    "surefoot.optim",
    "surefoot.tuning",
)


def modules() -> list[str]:
    return [
        f"{package}.{module.name}"
        for package in PACKAGES
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
    ]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_give_what_they_show(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, capsys.readouterr().out


def test_the_schedules_have_an_example() -> None:
    # Otherwise the test above could find nothing to run and pass.
    assert doctest.testmod(importlib.import_module("surefoot.optim.schedules")).attempted > 0
