"""How large a step Adafactor gives to each kind of tensor. No torch: the plan computes with it too.

Every variant has one form. Adafactor's step per element is

    lr * max(slope * RMS(p), floor)

(Shazeer & Stern 2018, section 8: slope 1, floor eps2). A `StepScale` holds the two numbers.
"""

from __future__ import annotations

import math
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
