"""Adafactor's arithmetic (algorithm 4) on tensors of one shape together, by any device of torch.

With R the row means and C the column means of the squared gradient G, averaged over the steps, the
second moment is V = R C^T / mean(R) (equation 7 with means instead of sums) and the update is

    U = G / sqrt(V) = sqrt(mean(R)) * rsqrt(R) * G * rsqrt(C).

G is multiplied in place, first by `rsqrt(C)`; then RMS(U) follows from the norms of the rows of G,
and what is left is one number for each row. A pass over a block takes as long as its traffic to
memory, so it is the passes that count; and, on a GPU, the operations, so that what is one number a
tensor is computed for all shapes of a block at once.
"""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
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


def step_blocks(
    works: Sequence[Members], size: Tensor, per_root: Tensor, rule: Rule, block: int
) -> list[Tensor]:
    """One step.

    Args:
        works: Tensors of one shape each, and their state; all on one device.
        size: (n,) for all tensors, the factor on each update, learning rate included.
        per_root: (n,), 1 / sqrt(numbers) of each tensor.
        rule: What all share.
        block: Numbers that are stepped at once; a larger tensor is stepped in parts.

    Returns:
        By block, booleans: whose gradients were finite. The others' weights and state stay what
        they were.
    """
    finite: list[Tensor] = []
    first = 0
    blocks = list(_blocks(works, block))
    room = _room([together for together in blocks if not _is_large(together, block)], size.device)
    for together in blocks:
        last = first + sum(len(members.parameters) for members in together)
        sizes = (size[first:last], per_root[first:last])
        if _is_large(together, block):
            finite.append(_step_in_parts(together[0], *sizes, rule, block))
        else:
            finite.append(_step_together(together, *sizes, rule, room))
        first = last
    return finite


def _is_large(together: list[Members], block: int) -> bool:
    """Whether it is one tensor that is to be stepped in parts."""
    return together[0].rows > 0 and together[0].parameters[0].numel() > block


_kept = threading.local()


def _room(blocks: list[list[Members]], device: torch.device) -> Tensor:
    """(2, numbers of the largest block), for gradients and for what is made of them on the way.

    On a CPU it is kept: memory that was returned costs page faults when it is asked for again,
    as much as the arithmetic. Other devices have allocators of their own that keep it.
    """
    numbers = max((sum(map(_numbers, together)) for together in blocks), default=0)
    if device.type != "cpu":
        return torch.empty(2, numbers, device=device)
    held: Tensor | None = getattr(_kept, "room", None)
    if held is None or held.shape[1] < numbers:
        _kept.room = held = torch.empty(2, numbers)
    return held


def _numbers(members: Members) -> int:
    return len(members.parameters) * members.parameters[0].numel()


def _blocks(works: Sequence[Members], block: int) -> Iterator[list[Members]]:
    """In their order, as many tensors as a block has room for, and at least one.

    Those of one shape are divided only if a block has no room for them all: each shape of a block
    costs operations.
    """
    together: list[Members] = []
    room = block
    for members in works:
        count, numbers = len(members.parameters), members.parameters[0].numel()
        first = 0
        while first < count:
            if together and room < min((count - first) * numbers, block // numbers * numbers):
                yield together
                together, room = [], block
            part = members.part(first, first + max(1, room // numbers))
            together.append(part)
            first += len(part.parameters)
            room -= len(part.parameters) * numbers
    if together:
        yield together


@dataclass
class _Work:
    """What a step computes for some tensors of one shape; all seen as matrices, or as one row."""

    members: Members
    update: Tensor
    """(n, rows, columns): the gradients, which become the updates in place."""
    new: Tensor
    """As `Members.moment`, of this step."""
    root: Tensor
    """The reciprocal root of `new`."""
    among: slice
    """Which of all tensors of the block these are."""

    def scale(self, factor: Tensor) -> None:
        """Finishes the updates by one number for each row."""
        rows = self.members.rows
        by_row = factor[self.among, None]
        if rows:
            by_row = self.root[:, :rows] * by_row
        self.update.mul_(by_row[:, :, None])


def _step_together(
    works: list[Members], size: Tensor, per_root: Tensor, rule: Rule, room: Tensor
) -> Tensor:
    mean, norm = torch.empty(2, len(size), device=size.device).unbind(0)
    loaded = _load(works, mean, rule, room)
    # Asking another device would mean to wait until it has done all it was told.
    finite = _is_finite(mean)
    whole = size.is_cpu and bool(finite.all())
    for work in loaded:
        rows = work.members.rows
        work.update.mul_(work.root[:, None, rows:])
        by_row = _norm(work.update, dim=2)
        if rows:
            by_row.mul_(work.root[:, :rows])
        _norm(by_row, dim=1, out=norm[work.among])
    reciprocal = mean.rsqrt_()
    for work in loaded:
        if not work.members.rows:
            reciprocal[work.among] = 1.0
    # Without momentum the size goes into the one number of each row, which saves a pass.
    at_once = None if rule.beta1 > 0 else size
    factor = _clipped(norm.mul_(per_root), reciprocal, finite, at_once, rule)
    if rule.beta1 > 0 or rule.weight_decay > 0:
        size = size * finite
    for work in loaded:
        members, among = work.members, work.among
        work.scale(factor)
        if whole:
            members.moment.copy_(work.new)
        else:
            torch.where(finite[among, None], work.new, members.moment, out=members.moment)
            work.update.nan_to_num_(0.0, 0.0, 0.0)
        update = work.update.view(-1, *members.parameters[0].shape)
        average = room[1, : update.numel()].view_as(update)
        if rule.beta1 > 0:
            _average(members.momentum, update, average, size[among], finite[among], rule)
        weights = (members.parameters, members.keys, members.compensation)
        _write(*weights, update, size[among], rule, spare=average)
    return finite


def _load(works: list[Members], mean: Tensor, rule: Rule, room: Tensor) -> list[_Work]:
    """Reads the gradients; computes the second moments with them, and the mean of each."""
    new = torch.empty(sum(members.moment.numel() for members in works), device=mean.device)
    news = _by_work(new, works)
    updates: list[Tensor] = []
    begun = 0
    for members, part in zip(works, news, strict=True):
        ended = begun + _numbers(members)
        updates.append(_squared(members, part, room[0, begun:ended], room[1, begun:ended]))
        begun = ended
    new.add_(rule.eps1)
    places: list[slice] = []
    for members, part in zip(works, news, strict=True):
        torch.lerp(members.moment, part, rule.new, out=part)
        first = places[-1].stop if places else 0
        places.append(slice(first, first + len(part)))
        torch.mean(part[:, : members.rows or None], 1, out=mean[places[-1]])
    roots = _by_work(new.rsqrt(), works)
    return [_Work(*work) for work in zip(works, updates, news, roots, places, strict=True)]


def _by_work(numbers: Tensor, works: list[Members]) -> list[Tensor]:
    """Views of one tensor that are shaped as each work's second moment."""
    views: list[Tensor] = []
    first = 0
    for members in works:
        last = first + members.moment.numel()
        views.append(numbers[first:last].view_as(members.moment))
        first = last
    return views


def _squared(members: Members, out: Tensor, room: Tensor, spare: Tensor) -> Tensor:
    """The gradients, (n, rows, columns); `out` takes the means of their squares, or these."""
    rows = members.rows
    count, shape = len(out), members.parameters[0].shape
    torch.stack(members.gradients, out=room.view(count, *shape))
    gradient = room.view(count, max(1, rows), -1)
    if rows:
        square = torch.mul(gradient, gradient, out=spare.view_as(gradient))
        torch.mean(square, 2, out=out[:, :rows])
        torch.mean(square, 1, out=out[:, rows:])
    else:
        torch.mul(gradient, gradient, out=out[:, None])
    return gradient


def _average(
    momentum: list[Tensor],
    update: Tensor,
    average: Tensor,
    size: Tensor,
    finite: Tensor,
    rule: Rule,
) -> None:
    """Takes the updates into the averages, and overwrites them by the steps that follow."""
    torch.stack(momentum, out=average)
    average.lerp_(update, _along((1.0 - rule.beta1) * finite, average))
    torch._foreach_copy_(momentum, average.unbind(0))
    torch.mul(average, _along(size, average), out=update)


def _step_in_parts(
    members: Members, size: Tensor, per_root: Tensor, rule: Rule, block: int
) -> Tensor:
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
    root = new.rsqrt_()
    total = torch.zeros_like(mean)
    for part in parts:
        scaled = loaded(part).mul_(root[:, None, rows:]).mul_(root[:, part, None])
        total.add_(scaled.square_().sum(dim=(1, 2)))
    at_once = None if members.momentum else size
    factor = _clipped(total.sqrt_().mul_(per_root), mean.rsqrt_(), finite, at_once, rule)
    size = size * finite
    for part in parts:
        update = loaded(part).mul_(root[:, None, rows:])
        update.mul_((root[:, part] * factor[:, None])[:, :, None])
        update = update.nan_to_num_(0.0, 0.0, 0.0).view(1, *gradient[part].shape)
        if members.momentum:
            momentum = members.momentum[0][part].lerp_(update[0], (1.0 - rule.beta1) * finite)
            torch.mul(momentum[None], size, out=update)
        compensation = [tensor[part] for tensor in members.compensation]
        weights = ([parameter[part]], members.keys, compensation)
        _write(*weights, update, size, rule, part.start * columns)
    return finite


def _row_parts(rows: int, at_once: int) -> Iterator[slice]:
    for first in range(0, rows, at_once):
        yield slice(first, min(rows, first + at_once))


def _is_finite(mean: Tensor) -> Tensor:
    # `isfinite` is four operations; a mean of squares is never below zero.
    return mean < math.inf


def _norm(block: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    return cast(Tensor, torch.linalg.vector_norm(block, dim=dim, out=out))  # pyright: ignore[reportUnknownMemberType]


def _clipped(
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


def _write(
    parameters: list[Tensor],
    keys: Tensor,
    compensation: list[Tensor],
    update: Tensor,
    size: Tensor,
    rule: Rule,
    first: int = 0,
    spare: Tensor | None = None,
) -> None:
    if rule.weight_decay > 0:
        decay = _along(size * rule.weight_decay, update)
        if spare is None:
            update.addcmul_(parameters[0][None].float(), decay)
        else:
            update.addcmul_(torch.stack(parameters, out=spare), decay)
    subtract(parameters, update, rule.rounding, keys=keys, first=first, compensations=compensation)


def _along(numbers: Tensor, block: Tensor) -> Tensor:
    """(n,) as (n, 1, ..., 1), to multiply a block with."""
    return numbers.view(-1, *[1] * (block.dim() - 1))
