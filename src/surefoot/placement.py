"""Which layers get an adapter, and of which rank and alpha. No torch."""

from __future__ import annotations

import math

from surefoot.config.tuning import AdapterConfig, FullConfig, TuningConfig
from surefoot.families.facts import FamilyFacts
from surefoot.survey import ModelSurvey
from surefoot.tuning.targets import ADAPTABLE_DIMENSIONS, Target, first_match, select_targets


def planned_targets(
    tuning: TuningConfig, facts: FamilyFacts, model: ModelSurvey
) -> dict[str, dict[str, Target]]:
    """For each part, the layers that get an adapter and what it is given."""
    if isinstance(tuning, FullConfig):
        return {}
    return {
        part: {
            path: _target(tuning, path)
            for path in select_targets(
                target_shapes(tuning, model, part), patterns(tuning, facts, part)
            )
        }
        for part in tuning.parts
    }


def _target(tuning: AdapterConfig, path: str) -> Target:
    by_rank = first_match(path, tuning.rank_pattern)
    by_alpha = first_match(path, tuning.alpha_pattern)
    rank = tuning.rank if by_rank is None else tuning.rank_pattern[by_rank]
    alpha = tuning.alpha if by_alpha is None else tuning.alpha_pattern[by_alpha]
    given = float(rank) if alpha == "auto" else float(alpha)
    # alpha / sqrt(rank) = (alpha * sqrt(rank)) / rank: one rule for all that reads an alpha.
    return Target(rank, given * math.sqrt(rank) if tuning.rslora else given)


def patterns(tuning: TuningConfig, facts: FamilyFacts, part: str) -> tuple[str, ...]:
    """The module name patterns of an adapter's targets in one part."""
    if isinstance(tuning, FullConfig):
        return ()
    if isinstance(tuning.targets, str):
        return facts.parts[part].presets[tuning.targets]
    return tuning.targets


def target_shapes(
    tuning: TuningConfig, model: ModelSurvey, part: str
) -> dict[str, tuple[int, ...]]:
    """Module name to weight shape, of the modules that an adapter could sit on."""
    if part not in model.parts:
        return {}
    shapes = {
        name.removesuffix(".weight"): header.shape
        for name, header in model.parts[part].headers.items()
        if name.endswith(".weight") and len(header.shape) in ADAPTABLE_DIMENSIONS
    }
    if not isinstance(tuning, FullConfig) and tuning.targets == "linear":
        return {name: shape for name, shape in shapes.items() if len(shape) == 2}
    return shapes
