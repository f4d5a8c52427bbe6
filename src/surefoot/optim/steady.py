"""How large the step is that an optimizer makes of a gradient that stays the same. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, count, repeat
from typing import assert_never

from surefoot.config.optimizer import AdafactorConfig, AdamWConfig, OptimizerConfig
from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    AdanConfig,
    CameConfig,
    DAdaptationConfig,
    LionConfig,
    MuonConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
    ProdigyPlusConfig,
    ScheduleFreeAdamWConfig,
    SoapConfig,
    StableAdamWConfig,
)
from surefoot.optim.scaling import TensorKind

VECTORS: tuple[TensorKind, ...] = ("magnitude", "bias", "norm")
"""Kinds of tensors with one axis."""

MUON_RMS = 0.2
"""RMS of Muon's step of a matrix over its learning rate (Liu et al. 2025, equation 4)."""


def steady_steps(config: OptimizerConfig, kind: TensorKind) -> Iterator[float]:
    """The step over the learning rate, per element, for step 1, 2, ... of a steady gradient.

    Noise in the gradient makes it smaller, except for Lion, whose steps are all alike. For a class
    of pytorch-optimizer by name it is taken to be Adam's.
    """
    match config:
        case AdafactorConfig():
            return _momentum(config.beta1)
        case ScheduleFreeAdamWConfig():
            # What is trained is mixed of the last point and the average, which moves half as fast.
            return chain((1.0,), repeat(1 - config.beta1 / 2))
        case CameConfig():
            return _came(config) if kind not in VECTORS else _momentum(config.beta1)
        case MuonConfig():
            return repeat(1.0 if kind in VECTORS or kind == "embedding" else MUON_RMS)
        case SoapConfig():
            return chain((0.0,), repeat(1.0))  # its first step only starts the eigenbases
        case (
            AdamWConfig()
            | AdamW8bitConfig()
            | LionConfig()
            | StableAdamWConfig()
            | AdanConfig()
            | ProdigyConfig()
            | DAdaptationConfig()
            | ProdigyPlusConfig()
            | NamedOptimizerConfig()
        ):
            return repeat(1.0)  # they correct their means for the start from zero
        case _:
            assert_never(config)


def _momentum(beta1: float) -> Iterator[float]:
    return (1 - beta1**step for step in count(1))


def _came(config: CameConfig) -> Iterator[float]:
    """CAME divides the momentum by the root of its mean squared distance to the update.

    Both start from zero and neither is corrected for it (algorithm 2 of the paper).
    """
    momentum = distance = 0.0
    # The second moment starts from zero too; the clipping brings its update down to 1.
    for step in count(1):
        second = 1 - config.beta2**step
        update = min(1.0 / math.sqrt(second), config.clip_threshold)
        momentum += (1 - config.beta1) * (update - momentum)
        squared = (update - momentum) ** 2 + config.eps2
        distance += (1 - config.beta3) * (squared - distance)
        yield momentum / math.sqrt(distance)
