"""Rules about what carries an adapter, and of which rank and alpha."""

from __future__ import annotations

import math
from collections.abc import Iterator

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.tuning import AnyAdapterConfig, DoraConfig, FullConfig, LoraConfig
from surefoot.families.facts import FAMILIES
from surefoot.finding import Change, Finding, Value
from surefoot.placement import patterns, target_shapes
from surefoot.plan import Plan
from surefoot.survey import Survey
from surefoot.tuning.targets import first_match, unmatched_patterns

_MOST_DROPPED = 0.5


def targets_that_match_nothing(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF026. A misspelt pattern would quietly train less."""
    tuning = plan.config.tuning
    facts = FAMILIES[plan.config.model.family]
    if isinstance(tuning, FullConfig) or isinstance(tuning.targets, str):
        return
    unmatched: dict[str, list[str]] = {}
    for part in tuning.parts:
        shapes = target_shapes(tuning, survey.model, part)
        for pattern in unmatched_patterns(shapes, patterns(tuning, facts, part)) if shapes else ():
            unmatched.setdefault(pattern, []).append(part)
    for pattern, parts in unmatched.items():
        if len(parts) == len(tuning.parts):  # a pattern may be meant for one part only
            shapes = target_shapes(tuning, survey.model, parts[0])
            known = sorted({".".join(name.split(".")[-2:]) for name in shapes})
            values = {"pattern": pattern, "part": " + ".join(parts), "known": ", ".join(known[:12])}
            yield Finding("SF026", "error", "tuning.targets", dict(values))


def patterns_that_match_nothing(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF140. A rank or an alpha for layers that carry no adapter, or that an earlier pattern has.

    Source: PEFT warns of neither, and quietly trains with the other rank.
    """
    tuning = plan.config.tuning
    if isinstance(tuning, FullConfig):
        return
    layers = [path for paths in plan.targets.values() for path in paths]
    if not layers:
        return
    for name, table in (
        ("rank_pattern", tuning.rank_pattern),
        ("alpha_pattern", tuning.alpha_pattern),
    ):
        used = {first_match(path, table) for path in layers}
        for pattern in table:
            if pattern not in used:
                values: dict[str, Value] = {
                    "pattern": pattern,
                    "layers": len(layers),
                    "example": layers[0],
                }
                yield Finding("SF140", "error", f"tuning.{name}", values)


def alpha_far_from_rank(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF107, SF141. With the weight rule the step takes alpha into account, otherwise nothing does.

    Source: Kalajdzievski 2023, arXiv 2312.03732, of alpha / sqrt(rank).
    """
    optimizer, tuning = plan.config.optimizer, plan.config.tuning
    by_weight = isinstance(optimizer, AdafactorConfig) and optimizer.scale_parameter == "weight"
    if by_weight or isinstance(tuning, FullConfig):
        return
    given = [target for layers in plan.targets.values() for target in layers.values()]
    far = [target for target in given if not 0.25 <= target.alpha / target.rank <= 4]
    if far:
        worst = max(far, key=lambda target: abs(math.log(target.alpha / target.rank)))
        values: dict[str, Value] = {
            "scale": worst.alpha / worst.rank,
            "rank": worst.rank,
            "count": len(far),
        }
        if tuning.rslora:
            values["alpha"] = math.sqrt(worst.rank)
            yield Finding("SF141", "warning", "tuning.rslora", values)
        else:
            yield Finding("SF107", "warning", "tuning.alpha", values)


def rank_beyond_the_layer(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF142. No product of two matrices has a higher rank than the smaller side of the layer.

    Source: Hu et al. 2021, section 4.1, where the rank is far below both sides.
    """
    tuning = plan.config.tuning
    if isinstance(tuning, FullConfig):
        return
    wasted = [
        (path, target.rank, limit)
        for part, layers in plan.targets.items()
        for path, target in layers.items()
        for limit in (_highest_rank(tuning, survey, part, path),)
        if target.rank > limit
    ]
    if wasted:
        path, rank, limit = max(wasted, key=lambda item: item[1] / item[2])
        values: dict[str, Value] = {
            "count": len(wasted),
            "layers": sum(len(layers) for layers in plan.targets.values()),
            "path": path,
            "rank": rank,
            "limit": limit,
        }
        yield Finding("SF142", "note", "tuning.rank", values)


def _highest_rank(tuning: AnyAdapterConfig, survey: Survey, part: str, path: str) -> int:
    """The rank at which an update of this layer can be anything."""
    out, *inner = target_shapes(tuning, survey.model, part)[path]
    return min(out, math.prod(inner))


def axis_that_few_read(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF146. Each reader takes one axis for granted, or tells it by the magnitude's shape."""
    tuning = plan.config.tuning
    if isinstance(tuning, DoraConfig) and tuning.norm_axis == "input":
        count = sum(row.numbers for row in plan.sheet if row.kind == "magnitude")
        change = Change("tuning.norm_axis", '"output"', '"input"')
        yield Finding("SF146", "note", "tuning.norm_axis", {"count": count}, changes=(change,))


def dropout_of_most(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF147. Above a half more is noise than signal."""
    tuning = plan.config.tuning
    if not isinstance(tuning, FullConfig) and tuning.dropout > _MOST_DROPPED:
        values: dict[str, Value] = {
            "dropout": tuning.dropout,
            "percent": 100 * (1 - tuning.dropout),
        }
        change = Change("tuning.dropout", "0.1", f"{tuning.dropout:g}")
        yield Finding("SF147", "warning", "tuning.dropout", values, changes=(change,))


def norm_of_a_distance(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF148. Scaled factors of PiSSA would no longer cancel what they started from."""
    tuning = plan.config.tuning
    if not isinstance(tuning, LoraConfig | DoraConfig) or tuning.initialisation != "pissa":
        return
    if tuning.max_norm != "off":
        change = Change("tuning.max_norm", '"off"', f"{tuning.max_norm:g}")
        yield Finding("SF148", "error", "tuning.max_norm", {}, changes=(change,))


TUNING_RULES = (
    targets_that_match_nothing,
    patterns_that_match_nothing,
    alpha_far_from_rank,
    rank_beyond_the_layer,
    axis_that_few_read,
    dropout_of_most,
    norm_of_a_distance,
)
