"""The bar plot is a well-formed picture whose bars have the lengths of the figures."""

from __future__ import annotations

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from surefoot.adapters.plot import bar_plot
from surefoot.adapters.table import layer_lines
from surefoot.language import choose
from tests.adapters.test_verdict import HEALTHY

SVG = "{http://www.w3.org/2000/svg}"
# Lengths are written to a tenth of a pixel.
ROUNDING = 0.06


def bars(text: str) -> dict[str, list[float]]:
    """The lengths of the bars by their class."""
    found: dict[str, list[float]] = {}
    for item in ElementTree.fromstring(text).iter(f"{SVG}rect"):
        if item.get("class") != "ground":
            found.setdefault(str(item.get("class")), []).append(float(str(item.get("width"))))
    return found


@pytest.mark.parametrize("largest", [3e-7, 0.013, 0.106, 0.99, 2.7, 950.0])
def test_lengths_are_in_proportion_and_end_within_the_picture(largest: float) -> None:
    shares = (1.0, 0.5, 0.25)
    layers = [
        replace(HEALTHY, update_norm=largest * share, weight_norm=1.0, path=f"unet.{share}")
        for share in shares
    ]
    text = bar_plot("a <&> b", layers)
    lengths = [length for of_kind in bars(text).values() for length in of_kind]
    longest = max(lengths)
    assert 250 < longest <= 560
    expected = sorted(longest * share for share in shares)
    assert sorted(lengths) == pytest.approx(expected, abs=ROUNDING)
    texts = [item.text for item in ElementTree.fromstring(text).iter(f"{SVG}text")]
    assert "a <&> b" in texts
    assert f"{largest:.3g}" in texts


def test_colours_tell_the_dead_and_the_exploded_and_numbers_that_are_none_have_no_bar() -> None:
    layers = [
        HEALTHY,
        replace(HEALTHY, update_norm=0.0),
        replace(HEALTHY, update_norm=math.nan, unusable=("lora_up",)),
        replace(HEALTHY, update_norm=50.0),
    ]
    found = bars(bar_plot("x", layers))
    assert {kind: len(lengths) for kind, lengths in found.items()} == {
        "healthy": 2,
        "dead": 1,
        "exploded": 1,
    }
    assert found["dead"] == [0]
    assert 0 in found["healthy"]


def test_plot_of_nothing_but_zeros_can_be_drawn() -> None:
    assert bars(bar_plot("x", [replace(HEALTHY, update_norm=0.0)])) == {"dead": [0.0]}


def test_plot_speaks_the_language_chosen() -> None:
    try:
        choose("zh")
        assert "每层" in bar_plot("x", [HEALTHY])
    finally:
        choose("en")


def test_largest_ratios_come_first_in_the_table_and_a_number_that_is_none_before_them() -> None:
    layers = [
        replace(HEALTHY, path=f"unet.{number}", update_norm=norm)
        for number, norm in enumerate((0.1, math.nan, 0.5, 0.2))
    ]
    head, *lines, rest = layer_lines(layers, most=3)
    assert [line.split()[0] for line in lines] == ["unet.1", "unet.2", "unet.3"]
    assert "1 more" in rest
    assert lines[1].count("█") == 30
    assert lines[2].count("█") == 12
    ordered = [line.split()[0] for line in layer_lines(layers)[1:]]
    assert ordered == [layer.path for layer in layers]
    assert head.split()[0] == "layer"
