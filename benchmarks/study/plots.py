"""Loss against learning rate as a picture: one panel for each setting, one line for each method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from benchmarks.study.cases import METHODS
from benchmarks.study.curves import Curve, Study
from benchmarks.study.words import SETTING_NAMES

_PANELS = ("weight", "false", "true", "adamw")
# Okabe and Ito (2008), which the colour-blind can tell apart, without the pale yellow.
_COLOURS = ("#000000", "#56B4E9", "#0072B2", "#CC79A7", "#D55E00", "#009E73", "#E69F00")
_MARKERS = "osDP*vX"
_ROOM_BELOW = 0.006
_ROOM_ABOVE = 1.04  # times the untrained loss; what lies higher is marked at the edge
_LABEL_HEIGHT = 0.05  # of the panel


def write_plot(study: Study, path: Path) -> None:
    """Draws the panels of which there are curves."""
    settings = [setting for setting in _PANELS if study.of_setting(setting)] or list(_PANELS[:1])
    columns = min(2, len(settings))
    rows = -(-len(settings) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(6.4 * columns, 4.4 * rows), sharey=True, squeeze=False
    )
    panels = list(axes.flat)
    for axis, setting in zip(panels, settings, strict=False):
        _panel(axis, study, setting)
    for axis in panels[len(settings) :]:
        axis.set_visible(False)
    for line in axes:
        line[0].set_ylabel("held-out loss, mean over seeds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date, so that equal figures give equal files.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _panel(axis: Any, study: Study, setting: str) -> None:  # noqa: ANN401
    bottom = study.lowest - _ROOM_BELOW
    top = study.untrained * _ROOM_ABOVE
    axis.set_xscale("log")
    axis.set_ylim(bottom, top)
    axis.set_title(SETTING_NAMES[setting], fontsize=11)
    axis.set_xlabel("learning rate")
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.axhline(study.untrained, color="#777777", linestyle="--", linewidth=1)
    labels: list[tuple[float, str, str, float]] = []
    rates: list[float] = []
    for method, colour, marker in zip(METHODS, _COLOURS, _MARKERS, strict=True):
        curve = study.curves.get((method.name, setting))
        if curve is None:
            continue
        _line(axis, curve, colour, marker, top)
        _mark_beyond(axis, curve, colour, top)
        first = min(curve.losses)
        labels.append((min(curve.mean(first), top), method.name, colour, first))
        rates += curve.losses
    # Room for the labels left of the first point.
    left, right = min(rates), max(rates)
    axis.set_xlim(left / (right / left) ** 0.42, right * (right / left) ** 0.05)
    axis.annotate(
        "untrained", (left, study.untrained), ha="center", va="bottom", fontsize=8, color="#777777"
    )
    _label(axis, labels, bottom, top)


def _line(axis: Any, curve: Curve, colour: str, marker: str, top: float) -> None:  # noqa: ANN401
    rates = list(curve.losses)
    means = [curve.mean(lr) for lr in rates]
    # A line to a point far above keeps its direction; one to infinity is cut at twice the top.
    drawn = [min(mean, 2 * top) for mean in means]
    axis.plot(rates, drawn, color=colour, linewidth=1.6, marker=marker, markersize=5)
    for lr in rates:
        each = [loss for loss in curve.losses[lr].values() if math.isfinite(loss)]
        if len(each) > 1:
            axis.vlines(lr, min(each), max(each), color=colour, linewidth=3, alpha=0.35)


def _mark_beyond(axis: Any, curve: Curve, colour: str, top: float) -> None:  # noqa: ANN401
    """A triangle at the top edge for each loss that lies higher; those of a rate side by side."""
    for lr in curve.losses:
        if curve.mean(lr) > top:
            aside = 1.07 ** (_COLOURS.index(colour) - len(_COLOURS) // 2)
            axis.plot(lr * aside, top, color=colour, marker="^", markersize=8, clip_on=False)


def _label(
    axis: Any,  # noqa: ANN401
    labels: Sequence[tuple[float, str, str, float]],
    bottom: float,
    top: float,
) -> None:
    """Names each line at its left end; names that would overlap are moved apart."""
    ordered = sorted(labels)
    height = _LABEL_HEIGHT * (top - bottom)
    places = _apart([label[0] for label in ordered], height, bottom + height, top - height)
    left, right = axis.get_xlim()
    edge = left * (right / left) ** 0.22
    for (loss, name, colour, lr), place in zip(ordered, places, strict=True):
        axis.annotate(
            name,
            xy=(lr, loss),
            xytext=(edge, place),
            ha="right",
            fontsize=8.5,
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "relpos": (1, 0.5)},
        )


def _apart(heights: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Ascending heights moved as little as leaves `gap` between them, within the limits."""
    places = list(heights)
    for _round in range(200):
        for index in range(len(places) - 1):
            lacking = gap - (places[index + 1] - places[index])
            if lacking > 0:
                places[index] -= lacking / 2
                places[index + 1] += lacking / 2
        places = [min(max(place, bottom), top) for place in places]
    return places
