"""A bar for every layer as an SVG picture, readable on light and on dark ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rich.cells import cell_len

from surefoot.adapters.figures import LayerFigures
from surefoot.adapters.verdict import EXPLODED_RATIO, has_exploded, is_dead
from surefoot.language import _

_BAR, _GAP, _TOP = 12, 4, 64  # pixels
_CHARACTER = 6.7  # pixels of one at 11 pixels of a monospaced font
_WIDTH = 560  # pixels of the longest bar
_VALUE = 70  # pixels for the number behind a bar
STYLE = """
.ground { fill: #ffffff; }
text { font: 11px ui-monospace, Menlo, Consolas, monospace; fill: #24292f; }
.title { font-size: 14px; font-weight: bold; }
.faint { fill: #57606a; }
.value { paint-order: stroke; stroke: #ffffff; stroke-width: 3px; }
.grid { stroke: #d0d7de; }
.limit { stroke: #cf222e; stroke-dasharray: 4 3; }
.healthy { fill: #0969da; }
.dead { fill: #8c959f; }
.exploded { fill: #cf222e; }
@media (prefers-color-scheme: dark) {
  .ground { fill: #0d1117; }
  text { fill: #e6edf3; }
  .faint { fill: #9198a1; }
  .value { stroke: #0d1117; }
  .grid { stroke: #3d444d; }
  .limit { stroke: #ff7b72; }
  .healthy { fill: #4493f8; }
  .dead { fill: #656c76; }
  .exploded { fill: #ff7b72; }
}
"""


def bar_plot(title: str, layers: Sequence[LayerFigures]) -> str:
    """||dW|| / ||W|| of every layer, in their order, as the text of an SVG file.

    The axis begins at 0, so that lengths can be compared.

    Args:
        title: The first line.
        layers: At least one.
    """
    left = _CHARACTER * max(cell_len(layer.path) for layer in layers) + 16
    known = [layer.ratio for layer in layers if math.isfinite(layer.ratio)]
    tick = _tick(max(known, default=0.0))
    ticks = max(1, math.ceil(max(known, default=0.0) / tick))
    largest = ticks * tick
    height = _TOP + len(layers) * (_BAR + _GAP) + 12
    width = math.ceil(left + _WIDTH + _VALUE)
    subtitle = _("||dW|| / ||W|| of each layer")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<style>{STYLE}</style>",
        # Not every program that shows such files heeds a background set by style.
        '<rect class="ground" width="100%" height="100%"/>',
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
        f'<text class="faint" x="8" y="38">{escape(subtitle)}</text>',
    ]
    for number in range(ticks + 1):
        place = left + _WIDTH * number / ticks
        lines.append(
            f'<line class="grid" x1="{place:.1f}" y1="{_TOP - 6}" x2="{place:.1f}" '
            f'y2="{height - 8}"/><text class="faint" text-anchor="middle" x="{place:.1f}" '
            f'y="{_TOP - 10}">{number * tick:.4g}</text>'
        )
    if largest > EXPLODED_RATIO:
        place = left + _WIDTH * EXPLODED_RATIO / largest
        lines.append(
            f'<line class="limit" x1="{place:.1f}" y1="{_TOP - 6}" x2="{place:.1f}" '
            f'y2="{height - 8}"/>'
        )
    for number, layer in enumerate(layers):
        lines += _bar(layer, _TOP + number * (_BAR + _GAP), left, largest)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _tick(largest: float) -> float:
    """A round number of which four to ten make the axis."""
    if largest <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(largest))
    return next(size * step for step in (0.1, 0.2, 0.5, 1.0, 2.0) if largest / (size * step) <= 8)


def _bar(layer: LayerFigures, top: float, left: float, largest: float) -> list[str]:
    base = top + _BAR - 2
    finite = math.isfinite(layer.ratio)
    length = _WIDTH * layer.ratio / largest if finite else 0.0
    end = left + length + 6
    kind = "exploded" if has_exploded(layer) else "dead" if is_dead(layer) else "healthy"
    return [
        f'<text x="{left - 8:.1f}" y="{base}" text-anchor="end">{escape(layer.path)}</text>',
        f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{length:.1f}" height="{_BAR}"/>',
        f'<text class="faint value" x="{end:.1f}" y="{base}">{layer.ratio:.3g}</text>',
    ]
