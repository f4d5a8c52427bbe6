"""Adafactor's arithmetic (algorithm 4) on tensors of one shape together, by any device of torch.

With R the row means and C the column means of the squared gradient G, averaged over the steps, the
second moment is V = R C^T / mean(R) (equation 7 with means instead of sums) and the update is

    U = G / sqrt(V) = sqrt(mean(R)) * rsqrt(R) * G * rsqrt(C).

G is multiplied in place, first by `rsqrt(C)`; then RMS(U) follows from the norms of the rows of G,
and what is left is one number for each row. A pass over a block takes as long as its traffic to
memory, so it is the passes that count; and, on a GPU, the operations.
"""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

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


def step_blocks(members: Members, size: Tensor, rule: Rule, block: int) -> list[Tensor]:
    """One step.

    Args:
        members: The tensors and their state.
        size: (n,), the factor on each update, learning rate included.
        rule: What all share.
        block: Numbers that are stepped at once; a larger tensor is stepped in parts.

    Returns:
        For each block, (n,) booleans: whose gradients were finite. The others' weights and state
        stay what they were.
    """
    numbers = members.parameters[0].numel()
    if numbers > block and members.rows:
        return [
            _step_in_parts(members.part(index, index + 1), size[index : index + 1], rule, block)
            for index in range(len(members.parameters))
        ]
    at_once = max(1, block // numbers)
    return [
        _step_together(members.part(first, first + at_once), size[first : first + at_once], rule)
        for first in range(0, len(members.parameters), at_once)
    ]


def _step_together(members: Members, size: Tensor, rule: Rule) -> Tensor:
    shape = members.parameters[0].shape
    update = torch.empty((len(members.parameters), *shape), device=size.device)
    torch.stack(members.gradients, out=update)
    spare = torch.empty_like(update)
    # Without momentum the size goes into the one number of each row, which saves a pass.
    at_once = None if members.momentum else size
    if members.rows:
        view = (len(update), members.rows, -1)
        finite = _factored(update.view(view), spare.view(view), members.moment, at_once, rule)
    else:
        view = (len(update), -1)
        finite = _whole(update.view(view), spare.view(view), members.moment, at_once, rule)
    if members.momentum or rule.weight_decay > 0:
        size = size * finite
    if members.momentum:
        torch.stack(members.momentum, out=spare)
        spare.lerp_(update, _along((1.0 - rule.beta1) * finite, spare))
        torch._foreach_copy_(members.momentum, spare.unbind(0))
        torch.mul(spare, _along(size, spare), out=update)
    _write(members.parameters, update, spare, size, rule, members.keys, 0, members.compensation)
    return finite


def _factored(
    gradient: Tensor, spare: Tensor, moment: Tensor, size: Tensor | None, rule: Rule
) -> Tensor:
    """Turns (n, rows, columns) gradients into updates, in place; returns whose were finite."""
    rows, columns = gradient.shape[1:]
    torch.mul(gradient, gradient, out=spare)
    new = torch.empty_like(moment)
    torch.mean(spare, 2, out=new[:, :rows])
    torch.mean(spare, 1, out=new[:, rows:])
    torch.lerp(moment, new.add_(rule.eps1), rule.new, out=new)
    mean = new[:, :rows].mean(dim=1)
    finite = _keep_finite(mean, new, moment, gradient)
    root = new.rsqrt_()
    gradient.mul_(root[:, None, rows:])
    by_row = _norm(gradient, dim=2).mul_(root[:, :rows])
    norm = _norm(by_row, dim=1)
    factor = _clipped(norm, mean.sqrt_(), rows * columns, size, rule)
    gradient.mul_((root[:, :rows] * factor[:, None])[:, :, None])
    return finite


def _whole(
    gradient: Tensor, spare: Tensor, moment: Tensor, size: Tensor | None, rule: Rule
) -> Tensor:
    """As `_factored`, for (n, numbers) with a second moment of each number."""
    new = torch.mul(gradient, gradient, out=spare).add_(rule.eps1)
    torch.lerp(moment, new, rule.new, out=new)
    mean = new.mean(dim=1)
    finite = _keep_finite(mean, new, moment, gradient)
    gradient.mul_(new.rsqrt_())
    norm = _norm(gradient, dim=1)
    factor = _clipped(norm, torch.ones_like(norm), gradient.shape[1], size, rule)
    gradient.mul_(factor[:, None])
    return finite


def _step_in_parts(members: Members, size: Tensor, rule: Rule, block: int) -> Tensor:
    """One large tensor, a few rows at a time: three passes over its gradient."""
    parameter, gradient = members.parameters[0], members.gradients[0]
    rows = members.rows
    columns = parameter.numel() // rows
    parts = list(_row_parts(rows, max(1, block // columns)))
    spare = torch.empty(1, min(rows, parts[0].stop) * columns, device=size.device)

    def squeezed(part: slice) -> Tensor:
        return spare[:, : (part.stop - part.start) * columns].view(1, -1, columns)

    def loaded(part: slice) -> Tensor:
        values = squeezed(part)
        values.view(gradient[part].shape).copy_(gradient[part])
        return values

    new = torch.zeros_like(members.moment)
    for part in parts:
        square = loaded(part).square_()
        torch.mean(square, 2, out=new[:, part])
        new[:, rows:].add_(square.sum(dim=1), alpha=1.0 / rows)
    torch.lerp(members.moment, new.add_(rule.eps1), rule.new, out=new)
    mean = new[:, :rows].mean(dim=1)
    finite = _is_finite(mean)
    torch.where(finite[:, None], new, members.moment, out=members.moment)
    # A root of zero blanks the rows; what is not finite in them is blanked where it is read.
    root = torch.where(finite[:, None], new.rsqrt_(), 0.0)
    total = torch.zeros_like(mean)
    for part in parts:
        scaled = loaded(part).mul_(root[:, None, rows:]).mul_(root[:, part, None])
        total.add_(scaled.square_().sum(dim=(1, 2)))
    factor = _clipped(
        total.sqrt_(), mean.sqrt_(), rows * columns, None if members.momentum else size, rule
    )
    size = size * finite
    for part in parts:
        update = loaded(part).mul_(root[:, None, rows:])
        update.mul_((root[:, part] * factor[:, None])[:, :, None])
        update.masked_fill_(~finite.view(1, 1, 1), 0.0)
        update = update.view(1, *gradient[part].shape)
        if members.momentum:
            momentum = members.momentum[0][part].lerp_(update[0], (1.0 - rule.beta1) * finite)
            torch.mul(momentum[None], size, out=update)
        _write(
            [parameter[part]],
            update,
            None,
            size,
            rule,
            members.keys,
            part.start * columns,
            [tensor[part] for tensor in members.compensation],
        )
    return finite


def _row_parts(rows: int, at_once: int) -> Iterator[slice]:
    for first in range(0, rows, at_once):
        yield slice(first, min(rows, first + at_once))


def _keep_finite(mean: Tensor, new: Tensor, moment: Tensor, gradient: Tensor) -> Tensor:
    """Takes over the second moments of finite gradients and blanks the other gradients."""
    finite = _is_finite(mean)
    # Asking another device would mean to wait until it has done all it was told.
    if gradient.device.type == "cpu" and bool(finite.all()):
        moment.copy_(new)
        return finite
    torch.where(finite[:, None], new, moment, out=moment)
    new.masked_fill_(~finite[:, None], 1.0)  # at the first step the moment is 0, its root infinite
    mean.nan_to_num_(0.0, 0.0, 0.0)
    gradient.masked_fill_(~_along(finite, gradient), 0.0)
    return finite


def _is_finite(mean: Tensor) -> Tensor:
    # `isfinite` is four operations; a mean of squares is never below zero.
    return mean < math.inf


def _norm(block: Tensor, dim: int) -> Tensor:
    return cast(Tensor, torch.linalg.vector_norm(block, dim=dim))  # pyright: ignore[reportUnknownMemberType]


def _clipped(
    norm: Tensor, root_mean: Tensor, numbers: int, size: Tensor | None, rule: Rule
) -> Tensor:
    """(n,): size * sqrt(mean(R)) / max(1, RMS(U) / d) (line 8), overwriting `norm`.

    `norm` is that of U without `sqrt(mean(R))`. Where it is zero its reciprocal is infinite, and
    the minimum is `sqrt(mean(R))`.
    """
    limit = norm.reciprocal_().mul_(rule.clip_threshold * math.sqrt(numbers))
    factor = torch.minimum(root_mean, limit, out=limit)
    if size is not None:
        factor.mul_(size)
    return factor.neg_() if rule.maximize else factor


def _write(
    parameters: list[Tensor],
    update: Tensor,
    spare: Tensor | None,
    size: Tensor,
    rule: Rule,
    keys: Tensor,
    first: int,
    compensation: list[Tensor],
) -> None:
    if rule.weight_decay > 0:
        values = torch.stack(parameters, out=spare) if spare is not None else parameters[0][None]
        update.addcmul_(values.float(), _along(size * rule.weight_decay, update))
    subtract(parameters, update, rule.rounding, keys=keys, first=first, compensations=compensation)


def _along(numbers: Tensor, block: Tensor) -> Tensor:
    """(n,) as (n, 1, ..., 1), to multiply a block with."""
    return numbers.view(-1, *[1] * (block.dim() - 1))
