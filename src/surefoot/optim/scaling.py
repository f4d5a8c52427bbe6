"""How large a step Adafactor gives to each kind of tensor. No torch: the plan computes with it too.

Every variant has one form. Adafactor's step per element is

    lr * max(slope * RMS(p), floor)

(Shazeer & Stern 2018, section 8: slope 1, floor eps2). A `StepScale` holds the two numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

TensorKind = Literal["weight", "bias", "norm", "embedding", "lora_down", "lora_up", "magnitude"]
ScaleParameter = bool | Literal["weight"]

LORA_UP_FACTOR = 400.0
"""c_B of the weight rule: a step of `lora_up` is this times `lr * RMS(W) / alpha`."""

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
    alpha: float,
    eps2: float,
) -> StepScale:
    """The step scale of one tensor.

    Args:
        kind: What the tensor is.
        scale_parameter: True scales by the tensor's own RMS, False not at all, `"weight"`
            by the layer that the tensor changes, so that one relative learning rate serves full
            fine-tuning, LoRA and DoRA.
        weight_rms: RMS of the frozen weight of the layer; used for `lora_up` only.
        alpha: LoRA's alpha; used for `lora_up` only.
        eps2: The floor under a tensor's own RMS (1e-3 in the paper).
    """
    match scale_parameter:
        case True:
            return StepScale(slope=1.0, floor=eps2)
        case False:
            return StepScale(slope=0.0, floor=1.0)
        case "weight":
            return _by_weight(kind, weight_rms=weight_rms, alpha=alpha, eps2=eps2)
        case _:
            assert_never(scale_parameter)


def _by_weight(kind: TensorKind, *, weight_rms: float, alpha: float, eps2: float) -> StepScale:
    match kind:
        case "lora_up":
            # It starts at zero, so its own RMS says nothing; what it changes is W, through
            # alpha / rank. The rank cancels: the columns of the update agree, so that they add
            # up rank-fold.
            return StepScale(slope=0.0, floor=LORA_UP_FACTOR * weight_rms / alpha)
        case "lora_down":
            return StepScale(slope=LORA_DOWN_FACTOR, floor=LORA_DOWN_FACTOR * eps2)
        case "magnitude" | "weight" | "bias" | "norm" | "embedding":
            return StepScale(slope=1.0, floor=eps2)
        case _:
            assert_never(kind)
