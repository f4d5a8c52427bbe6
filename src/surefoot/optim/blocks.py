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

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from surefoot.optim.row_parts import RowParts
from surefoot.optim.update import Members, Rule, along, clipped, is_finite, write


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
    finite = is_finite(mean)
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
    factor = clipped(norm.mul_(per_root), reciprocal, finite, at_once, rule)
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
        write(*weights, update, size[among], rule, spare=average)
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
    average.lerp_(update, along((1.0 - rule.beta1) * finite, average))
    torch._foreach_copy_(momentum, average.unbind(0))
    torch.mul(average, along(size, average), out=update)


def _norm(block: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    return cast(Tensor, torch.linalg.vector_norm(block, dim=dim, out=out))  # pyright: ignore[reportUnknownMemberType]


def _step_in_parts(
    members: Members, size: Tensor, per_root: Tensor, rule: Rule, block: int
) -> Tensor:
    """One large tensor, a few rows at a time: three passes over its gradient."""
    rows = members.rows
    compensation = members.compensation[0] if members.compensation else None
    work = RowParts(
        parameter=members.parameters[0],
        gradient=members.gradients[0],
        row=members.moment[0, :rows],
        column=members.moment[0, rows:],
        momentum=members.momentum[0] if members.momentum else None,
        compensation=compensation,
        key=members.keys,
        all_rows=rows,
        first_row=0,
        rule=rule,
        at_once=max(1, block // members.moment[0, rows:].numel()),
    )
    column, mean = work.squares()
    total = work.update_squares(column, mean)
    return work.write(total, size, per_root)
