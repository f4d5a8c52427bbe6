"""What a step of Adafactor is told, and the formulas that every way to take one shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from surefoot.optim.rounding import Rounding, subtract


@dataclass(frozen=True)
class Rule:
    """The numbers of a step that the tensors of a block share."""

    new: float
    """Weight of this step's squares in the second moment, 1 - beta2."""
    rate: float | Tensor
    """Learning rate; a step per element is `rate * max(slope * RMS, floor)`."""
    slope: float
    eps1: float
    clip_threshold: float
    beta1: float
    weight_decay: float
    maximize: bool
    rounding: Rounding
    seed: int
    """Of stochastic rounding."""


@dataclass(frozen=True)
class Members:
    """Some tensors of one shape, and what belongs to each."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    moment: Tensor
    """(n, rows + columns), or (n, numbers) where the second moment is not factored; float32."""
    rows: int
    """0 where the second moment is not factored."""
    momentum: list[Tensor]
    compensation: list[Tensor]
    keys: Tensor
    """(n,), int32: of their random numbers."""

    def part(self, first: int, last: int) -> Members:
        """The members from first to last, without last."""
        return Members(
            self.parameters[first:last],
            self.gradients[first:last],
            self.moment[first:last],
            self.rows,
            self.momentum[first:last],
            self.compensation[first:last],
            self.keys[first:last],
        )


def sizes(rms: Tensor | None, floor: Tensor, rule: Rule) -> Tensor:
    """(n,): the factor on each update, rate * max(slope * RMS, floor).

    `rms` is overwritten; it is `None` where the slope is 0.
    """
    if rms is None:
        return floor * rule.rate
    if rule.slope != 1:
        rms.mul_(rule.slope)
    return torch.maximum(rms, floor).mul_(rule.rate)


def is_finite(mean: Tensor) -> Tensor:
    """Whether the gradients of these means of squares were."""
    # `isfinite` is four operations; a mean of squares is never below zero.
    return mean < math.inf


def clipped(
    rms: Tensor, reciprocal: Tensor, finite: Tensor, size: Tensor | None, rule: Rule
) -> Tensor:
    """(n,): size * sqrt(mean(R)) / max(1, RMS(U) / d) (line 8), overwriting `rms`.

    `reciprocal` is `1 / sqrt(mean(R))`, `rms` is RMS(U) times that. Where the gradient is not
    finite, the factor is not either, so that nothing of the update is.
    """
    if rule.clip_threshold != 1.0:
        rms.mul_(1.0 / rule.clip_threshold)
    inverse = torch.maximum(reciprocal, rms, out=rms).mul_(finite)
    factor = inverse.reciprocal_() if size is None else torch.div(size, inverse, out=inverse)
    return factor.neg_() if rule.maximize else factor


def write(
    parameters: list[Tensor],
    keys: Tensor,
    compensation: list[Tensor],
    update: Tensor,
    size: Tensor,
    rule: Rule,
    first: int = 0,
    spare: Tensor | None = None,
) -> None:
    """Subtracts (n, ...) updates, and the decay of the weights, from n tensors of one shape.

    `update` is overwritten; `spare` is room of its size, if there is any.
    """
    if rule.weight_decay > 0:
        decay = along(size * rule.weight_decay, update)
        if spare is None:
            update.addcmul_(parameters[0][None].float(), decay)
        else:
            update.addcmul_(torch.stack(parameters, out=spare), decay)
    subtract(parameters, update, rule.rounding, keys=keys, first=first, compensations=compensation)


def along(numbers: Tensor, block: Tensor) -> Tensor:
    """(n,) as (n, 1, ..., 1), to multiply a block with."""
    return numbers.view(-1, *[1] * (block.dim() - 1))
