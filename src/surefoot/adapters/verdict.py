"""What is wrong with an adapter, judged by the figures of its layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from surefoot.adapters.figures import LayerFigures
from surefoot.finding import LEVELS, Finding, Level, Value

Verdict: TypeAlias = Literal[
    "healthy",
    "not_finite",
    "dead",
    "exploded",
    "direction_dead",
    "magnitude_untrained",
    "partly_dead",
]

DEAD_RATIO = 1e-6
"""||dW|| / ||W|| below which a layer does nothing.

Merged in float32, whose rounding is 6e-8 of each number, some of it would be left; in bfloat16 and
float16, in which adapters are used, nothing of it is (4e-3 and 5e-4).
"""
EXPLODED_RATIO = 1.0
"""||dW|| / ||W|| above which a layer has exploded: more of it is new than old.

Trained updates are far below. Hu et al. 2021 (arXiv 2106.09685, table 7) give 0.11 at rank 4 and
0.06 at rank 64 for W_q of a layer of GPT-3.
"""
ESTIMATE_SLACK = 4.0
"""How far off ||W|| may be where it is but estimated by the size of the layer."""

_CODES: dict[str, Verdict] = {
    "SF601": "not_finite",
    "SF602": "dead",
    "SF603": "exploded",
    "SF608": "direction_dead",
    "SF606": "magnitude_untrained",
    "SF604": "partly_dead",
    "SF605": "partly_dead",
}
"""In the order of badness."""


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """The worst that was found, in a word."""
    found = {finding.code for finding in findings}
    for code, word in _CODES.items():
        if code in found:
            return word
    return "healthy"


def judge(layers: Sequence[LayerFigures]) -> list[Finding]:
    """Everything that is to be said of an adapter, worst first."""
    findings = [
        *_not_finite(layers),
        *_dead(layers),
        *_exploded(layers),
        *_direction(layers),
        *_magnitude(layers),
    ]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def is_dead(layer: LayerFigures) -> bool:
    """Whether a layer is known to do nothing; a magnitude of its own may do what no base tells."""
    hidden = layer.magnitude == "unknown" and layer.weight_source != "base"
    return not hidden and layer.ratio * _slack(layer) < DEAD_RATIO


def has_exploded(layer: LayerFigures) -> bool:
    """Whether a layer is more new than old."""
    return layer.ratio > EXPLODED_RATIO * _slack(layer)


def _has_dead_direction(layer: LayerFigures) -> bool:
    return layer.magnitude != "none" and layer.direction_ratio < DEAD_RATIO and not is_dead(layer)


def _slack(layer: LayerFigures) -> float:
    return ESTIMATE_SLACK if layer.weight_source == "estimate" else 1.0


def _not_finite(layers: Sequence[LayerFigures]) -> list[Finding]:
    found = [layer for layer in layers if layer.unusable]
    if not found:
        return []
    example = f"{found[0].path}.{found[0].unusable[0]}"
    return [_finding("SF601", "error", found, layers, {"example": example})]


def _dead(layers: Sequence[LayerFigures]) -> list[Finding]:
    dead = [layer for layer in layers if is_dead(layer)]
    if dead and len(dead) == len(layers):
        return [_finding("SF602", "error", dead, layers, {"limit": DEAD_RATIO})]
    findings: list[Finding] = []
    for part in dict.fromkeys(layer.part for layer in layers):
        whole = [layer for layer in layers if layer.part == part]
        within = [layer for layer in dead if layer.part == part]
        if within and len(within) == len(whole):
            findings.append(_finding("SF605", "warning", within, whole, {"part": part}))
        elif within:
            values = {"part": part, "example": within[0].path}
            findings.append(_finding("SF604", "warning", within, whole, values))
    return findings


def _exploded(layers: Sequence[LayerFigures]) -> list[Finding]:
    found = [layer for layer in layers if has_exploded(layer)]
    if not found:
        return []
    worst = max(found, key=lambda layer: layer.ratio)
    values = {"example": worst.path, "ratio": worst.ratio, "limit": EXPLODED_RATIO}
    return [_finding("SF603", "error", found, layers, values)]


def _direction(layers: Sequence[LayerFigures]) -> list[Finding]:
    found = [layer for layer in layers if _has_dead_direction(layer)]
    with_magnitude = [layer for layer in layers if layer.magnitude != "none"]
    if not found or len(found) < len(with_magnitude):
        return []
    return [_finding("SF608", "error", found, with_magnitude, {"limit": DEAD_RATIO})]


def _magnitude(layers: Sequence[LayerFigures]) -> list[Finding]:
    with_magnitude = [layer for layer in layers if layer.magnitude != "none"]
    untrained = [layer for layer in with_magnitude if layer.magnitude == "untrained"]
    if untrained and len(untrained) == len(with_magnitude):
        return [_finding("SF606", "error", untrained, with_magnitude, {})]
    unknown = [layer for layer in with_magnitude if layer.magnitude == "unknown"]
    if any(layer.weight_source != "base" for layer in unknown):
        return [_finding("SF607", "note", unknown, with_magnitude, {})]
    if unknown and not any(layer.magnitude == "trained" for layer in with_magnitude):
        return [_finding("SF617", "note", unknown, with_magnitude, {})]
    return []


def _finding(
    code: str,
    level: Level,
    found: Sequence[LayerFigures],
    of: Sequence[LayerFigures],
    values: Mapping[str, Value],
) -> Finding:
    return Finding(code, level, "", {"count": len(found), "total": len(of), **values})
