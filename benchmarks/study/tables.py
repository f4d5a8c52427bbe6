"""A study as Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from benchmarks.study.cases import FULL, METHODS, SETTINGS
from benchmarks.study.curves import Curve, Study, cliff, common_rate, optima, verdict
from benchmarks.study.results import Protocol
from benchmarks.study.words import SETTING_NAMES, WORDS, Language

DefaultRate = Callable[[str, str], float]
"""Setting and method to the learning rate that `auto` gives."""


def tables(study: Study, protocol: Protocol, default_rate: DefaultRate, language: Language) -> str:
    """All tables, each under a heading of the third level."""
    words = WORDS[language]
    return "\n".join(
        [
            _facts(study, protocol, words),
            f"\n### {words['at default']}\n",
            _compatibility(study, words, default_rate),
            f"\n### {words['at best']}\n",
            _compatibility(study, words, None),
            f"\n### {words['optima']}\n",
            _optima(study, words),
            f"\n### {words['line up']}\n",
            _line_up(study, words),
        ]
    )


def _facts(study: Study, protocol: Protocol, words: dict[str, str]) -> str:
    facts = words["facts"].format(
        count=sum(len(seeds) for curve in study.curves.values() for seeds in curve.losses.values()),
        steps=protocol.steps,
        batch=protocol.batch,
        seeds=study.seeds,
        untrained=study.untrained,
        lowest=study.lowest,
    )
    if not protocol.series:
        return facts
    series = words["series"].format(
        series=protocol.series, up=protocol.up_factor, down=protocol.down_factor
    )
    return f"{facts} {series}"


def _compatibility(study: Study, words: dict[str, str], default_rate: DefaultRate | None) -> str:
    """Method by setting; at the best rate without `default_rate`."""
    settings = [setting for setting in SETTINGS if study.of_setting(setting)]
    if default_rate is None:  # `relative_step` leaves no choice
        settings = [setting for setting in settings if not setting.startswith("relative")]
    rows: list[list[str]] = []
    for method in METHODS:
        curves = [study.curves.get((method.name, setting)) for setting in settings]
        cells = [_cell(study, curve, default_rate, words) if curve else "–" for curve in curves]
        rows.append([method.name, *cells])
    return _table([words["method"], *(SETTING_NAMES[setting] for setting in settings)], rows)


def _cell(
    study: Study, curve: Curve, default_rate: DefaultRate | None, words: dict[str, str]
) -> str:
    lr = curve.best
    if default_rate is not None and len(curve.losses) > 1:  # else the setting finds it by itself
        lr = default_rate(curve.setting, curve.method)
    if lr not in curve.losses:
        return "–"
    share = study.share(curve.mean(lr))
    said = words[verdict(share)]
    figure = f"{said} {share:.0%}" if share >= 0 else f"**{said}**"
    return f"{figure} ({lr:g})"


def _optima(study: Study, words: dict[str, str]) -> str:
    head = ["setting", "method", "optimum", "by seed", "loss", "spread", "share", "cliff"]
    rows = [
        _optimum_row(study, curve, words)
        for setting in SETTINGS
        for curve in _ordered(study, setting)
        if len(curve.losses) > 1
    ]
    return _table([words[key] for key in head], rows)


def _optimum_row(study: Study, curve: Curve, words: dict[str, str]) -> list[str]:
    found = optima(study, curve)
    loss = curve.mean(curve.best)
    each = curve.losses[curve.best].values()
    edge = cliff(study, curve)
    return [
        SETTING_NAMES[curve.setting],
        curve.method,
        f"{_middle(found):.2g}" if found else "–",
        ", ".join(f"{lr:.2g}" for lr in found) or "–",
        f"{loss:.4f}",
        f"{max(each) - min(each):.4f}" if len(each) > 1 else "–",
        f"{study.share(loss):.1%}",
        f"{edge:g}" if math.isfinite(edge) else words["none tried"],
    ]


def _line_up(study: Study, words: dict[str, str]) -> str:
    head = ["setting", "methods", "smallest", "largest", "ratio", "common", "worst"]
    rows: list[list[str]] = []
    for setting in SETTINGS:
        curves = [curve for curve in _ordered(study, setting) if optima(study, curve)]
        adapters = [curve for curve in curves if curve.method != FULL.name]
        for said, chosen in (("all", curves), ("adapters", adapters)):
            if len(chosen) > 1:
                rows.append([SETTING_NAMES[setting], words[said], *_line(study, chosen)])
    return _table([words[key] for key in head], rows)


def _line(study: Study, curves: Sequence[Curve]) -> list[str]:
    found = [_middle(optima(study, curve)) for curve in curves]
    common = common_rate(study, curves)
    figures = [f"{min(found):.2g}", f"{max(found):.2g}", f"{max(found) / min(found):.1f}"]
    if common is None:
        return [*figures, "–", "–"]
    lr, share = common
    return [*figures, f"{lr:g}", f"{share:.0%}" if share >= 0 else "< 0%"]


def _ordered(study: Study, setting: str) -> list[Curve]:
    place = {method.name: index for index, method in enumerate(METHODS)}
    return sorted(study.of_setting(setting), key=lambda curve: place[curve.method])


def _middle(rates: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(sum(map(math.log, rates)) / len(rates))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("%", " %") for cells in lines)
