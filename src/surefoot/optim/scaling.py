"""How large a step Adafactor gives to each kind of tensor. No torch: the plan computes with it too.

Every variant has one form. Adafactor's step per element is

    lr * max(slope * RMS(p), floor)

(Shazeer & Stern 2018, section 8: slope 1, floor eps2). A `StepScale` holds the two numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

TensorKind = Literal["weight", "bias", "norm", "embedding", "lora_down", "lora_up", "magnitude"]
ScaleParameter = bool | Literal["weight"]

LORA_UP_FACTOR = 400.0
LORA_UP_FACTOR_PER_INPUT = 0.7
"""c_B of the weight rule: a step of `lora_up` is c_B times `lr * RMS(W) / alpha`, where c_B is the
second number times the inputs of the layer, at most the first (docs/adafactor-study.md)."""

LORA_DOWN_FACTOR = 5.0
"""c_A of the weight rule: a step of `lora_down` is this times `lr * RMS(lora_down)`."""


@dataclass(frozen=True)
class StepScale:
    """The two numbers of the rule; `at` evaluates it."""

    slope: float
    floor: float

    def at(self, rms: float) -> float:
        """The factor on the learning rate for a tensor of this root mean square."""
        return max(self.slope * rms, self.floor)


def step_scale(
    kind: TensorKind,
    scale_parameter: ScaleParameter,
    *,
    weight_rms: float,
    fan_in: int,
    alpha: float,
    eps2: float,
) -> StepScale:
    """The step scale of one tensor.

    Args:
        kind: What the tensor is.
        scale_parameter: True scales by the tensor's own RMS, False not at all, `"weight"`
            by the layer that the tensor changes, so that one relative learning rate serves full
            fine-tuning, LoRA and DoRA.
        weight_rms: RMS of the frozen weight of the layer, for `lora_up`; for a weight or bias, the
            RMS below which `"weight"` does not take it to be, 0 for none but eps2.
        fan_in: Inputs of the layer, kernel included; used for `lora_up` only.
        alpha: LoRA's alpha; used for `lora_up` only.
        eps2: The floor under a tensor's own RMS (1e-3 in the paper).
    """
    match scale_parameter:
        case True:
            return StepScale(slope=1.0, floor=eps2)
        case False:
            return StepScale(slope=0.0, floor=1.0)
        case "weight":
            return _by_weight(kind, weight_rms, fan_in, alpha, eps2)
        case _:
            assert_never(scale_parameter)


def lora_up_factor(fan_in: int) -> float:
    """c_B for a layer of this many inputs.

    At the first steps the columns of `lora_up` move alike, and change the layer's output by a
    share that falls with the root of the inputs, where full fine-tuning's rises with it: a number
    for all layers that suits the wide ones drives the narrow ones into noise.
    """
    return min(LORA_UP_FACTOR, LORA_UP_FACTOR_PER_INPUT * fan_in)


def _by_weight(
    kind: TensorKind, weight_rms: float, fan_in: int, alpha: float, eps2: float
) -> StepScale:
    match kind:
        case "lora_up":
            # It starts at zero, so its own RMS says nothing; what it changes is W, through
            # alpha / rank. The rank cancels: the columns of the update agree, so that they add
            # up rank-fold.
            return StepScale(slope=0.0, floor=lora_up_factor(fan_in) * weight_rms / alpha)
        case "lora_down":
            return StepScale(slope=LORA_DOWN_FACTOR, floor=LORA_DOWN_FACTOR * eps2)
        case "weight" | "bias":
            # One that begins at zero would take hundreds of steps of eps2 to the size it should
            # have had.
            return StepScale(slope=1.0, floor=max(eps2, weight_rms))
        case "magnitude" | "norm" | "embedding":
            return StepScale(slope=1.0, floor=eps2)
        case _:
            assert_never(kind)


def usual_rms(fan_in: int) -> float:
    """RMS of what torch draws for a linear layer or convolution, 0 where there is no such layer.

    Uniform within 1 / sqrt(fan in), for the weight and the bias.
    """
    return 1.0 / math.sqrt(3.0 * fan_in) if fan_in else 0.0


def reach(sides: Sequence[Sequence[float | None]], rank: int) -> float:
    """What a step of 1 of an adapter's factor at zero changes the weight by, before its scale.

    Args:
        sides: The adapter as a product of sides, each a chain of factors that meet in the rank:
            the RMS of each factor, None for that which starts at zero.
        rank: Inner width of the chains.

    Raises:
        ValueError: Another factor is zero too.
    """
    found = 1.0
    for side in sides:
        # Random factors add up like the root of the rank wherever two of them meet.
        found *= math.prod(rms for rms in side if rms is not None) * rank ** ((len(side) - 1) / 2)
    if found == 0 or sum(rms is None for side in sides for rms in side) > 1:
        raise ValueError(
            "more than one factor of the adapter is zero, so that none of them gets a gradient; "
            "initialise all but one"
        )
    return found


def as_lora(sides: Sequence[Sequence[float | None]], rank: int, fan_in: int) -> float:
    """How large a layer's RMS is to be taken, so that LoRA's rule suits the factor at zero.

    A step u of a LoRA's `lora_up` changes the layer by `scale * sqrt(rank) * RMS(lora_down) * u`
    for random factors, and a fresh `lora_down` has an RMS of 1 / sqrt(3 fan in). In another adapter
    the place of `sqrt(rank) * RMS(lora_down)` is taken by its `reach`: the first step then changes
    the layer as much as a LoRA's of the same scale and rank.

    A factor that meets no rank (a full matrix of LoKr, LyCORIS's scalar) is as free as a weight.
    Its step changes the layer by `lr * RMS(W)`, as in full fine-tuning, whatever rank was given.

    Args:
        sides: As `reach` takes them.
        rank: Inner width of the chains.
        fan_in: Inputs of the layer, kernel included.

    Raises:
        ValueError: More than one factor is zero.
    """
    found = reach(sides, rank)
    if any(None in side and len(side) > 1 for side in sides):
        return math.sqrt(rank) * usual_rms(fan_in) / found
    return rank / (lora_up_factor(fan_in) * found)
