"""The reasons within an error about a file are told apart, and many are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.adapters.output import reasons_of
from surefoot.formats.weights import WeightsError

PATH = Path("a b.safetensors")


@pytest.mark.parametrize(
    ("message", "reasons"),
    [
        (f"{PATH}: it is short.", ["it is short"]),
        (f"{PATH}: 太短。", ["太短"]),
        (f"{PATH} is not there; look.", [f"{PATH} is not there; look"]),
        (f"{PATH}:\n  one.\n  two.", ["one", "two"]),
        (f"{PATH}:\n" + "\n".join(f"  no {n}." for n in range(5)), ["no 0 (and 4 more reasons)"]),
        (
            f"{PATH}:\n" + "\n".join(f"  no {n}." for n in range(20)) + "\n  and 113 more",
            ["no 0 (and 132 more reasons)"],
        ),
    ],
)
def test_reasons_are_told_one_by_one_and_many_are_counted(message: str, reasons: list[str]) -> None:
    assert reasons_of(WeightsError(message), PATH) == reasons
