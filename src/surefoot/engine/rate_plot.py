"""The loss over the learning rates of a range test, as an SVG picture."""

from __future__ import annotations

import math
from html import escape

from surefoot.adapters.plot import STYLE
from surefoot.engine.rate_test import RateTest
from surefoot.language import _

_WIDTH, _HEIGHT = 560, 260  # pixels of the field
_LEFT, _TOP, _MARGIN = 64, 64, 40
_OVER = 0.25  # share of the range of losses up to the beginning that is shown above it
_LINE = """
.line { fill: none; stroke: #0969da; stroke-width: 2px; }
.point { fill: #0969da; }
@media (prefers-color-scheme: dark) { .line { stroke: #4493f8; } .point { fill: #4493f8; } }
"""


def rate_plot(title: str, test: RateTest) -> str:
    """The text of an SVG file: rates on a logarithmic axis, dashed the rate that falls fastest.

    What is far above the loss of the beginning is drawn at the upper edge.
    """
    lowest = min(stage.loss for stage in test.stages if math.isfinite(stage.loss))
    lowest = min(lowest, test.before)
    top = test.before + _OVER * max(test.before - lowest, 0.1 * test.before)
    bottom = lowest - 0.1 * (top - lowest)
    first = math.log10(test.stages[0].lr)
    span = max(1e-9, math.log10(test.stages[-1].lr) - first)

    def across(lr: float) -> float:
        return _LEFT + _WIDTH * (math.log10(lr) - first) / span

    def down(loss: float) -> float:
        shown = min(loss, top) if math.isfinite(loss) else top
        return _TOP + _HEIGHT * (top - shown) / (top - bottom)

    width, height = _LEFT + _WIDTH + _MARGIN, _TOP + _HEIGHT + _MARGIN
    subtitle = _("loss on fixed draws after {steps} steps at each learning rate")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<style>{STYLE}{_LINE}</style>",
        '<rect class="ground" width="100%" height="100%"/>',
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
        f'<text class="faint" x="8" y="38">{escape(subtitle.format(steps=test.steps_each))}</text>',
    ]
    for loss in (test.before, lowest):
        lines.append(_rule(_LEFT, down(loss), _LEFT + _WIDTH, down(loss), "grid"))
        lines.append(_label(_LEFT - 8, down(loss) + 4, f"{loss:.4g}", "end"))
    for stage in test.stages[::2]:
        place = across(stage.lr)
        lines.append(_rule(place, _TOP, place, _TOP + _HEIGHT, "grid"))
        lines.append(_label(place, _TOP + _HEIGHT + 18, f"{stage.lr:.1e}", "middle"))
    if not math.isnan(test.fastest):
        place = across(test.fastest)
        lines.append(_rule(place, _TOP - 6, place, _TOP + _HEIGHT, "limit"))
        lines.append(_label(place, _TOP - 10, f"{test.fastest:.1e}", "middle"))
    places = [(across(stage.lr), down(stage.loss)) for stage in test.stages]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    lines.append(f'<polyline class="line" points="{points}"/>')
    lines += [f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="faint" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{text}</text>'
