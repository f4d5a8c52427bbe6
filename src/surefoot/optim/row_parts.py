"""Adafactor's arithmetic on one matrix, a few rows at a time, in phases.

The numbers that are sums over all rows leave each phase and enter the next, so that processes which
hold some of the rows each can add them up in between (`surefoot.optim.sharded`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surefoot.optim.update import Rule, clipped, is_finite, write


@dataclass
class RowParts:
    """One tensor, or the rows of it that are here, which may be none."""

    parameter: Tensor
    """(rows, ...), as are gradient, momentum and compensation."""
    gradient: Tensor
    row: Tensor
    """(rows,): means of squares along the rows, over the steps; or the squares themselves."""
    column: Tensor | None
    """(columns,): those of the whole tensor; `None` where the second moment is not factored, of
    which each number is a row."""
    momentum: Tensor | None
    compensation: Tensor | None
    key: Tensor
    """(1,), int32: of the random numbers."""
    all_rows: int
    """Of the whole tensor."""
    first_row: int
    """Place of the first row here in the whole tensor."""
    rule: Rule
    at_once: int
    """Rows that are in memory as float32 at a time."""
    _new_row: Tensor = field(init=False)
    _root_row: Tensor = field(init=False)
    _root_column: Tensor | None = field(init=False, default=None)
    _mean: Tensor = field(init=False)
    _finite: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows = len(self.row)
        self._columns = self.parameter.numel() // rows if rows else 0
        self._spare = torch.empty(min(rows, self.at_once) * self._columns, device=self.row.device)

    def squares(self) -> tuple[Tensor, Tensor]:
        """Shares of the rows here in this step's column means, (columns,), and in mean(R), (1,)."""
        self._new_row = torch.empty_like(self.row)
        columns = 0 if self.column is None else len(self.column)
        column = torch.zeros(columns, device=self.row.device)
        for part in self._parts():
            square = self._loaded(part).square_()
            torch.mean(square, 1, out=self._new_row[part])
            if columns:
                column.add_(square.sum(dim=0), alpha=1.0 / self.all_rows)
        rule = self.rule
        torch.lerp(self.row, self._new_row.add_(rule.eps1), rule.new, out=self._new_row)
        return column, self._new_row.sum()[None] / self.all_rows

    def update_squares(self, column: Tensor, mean: Tensor) -> Tensor:
        """Takes the gradient into the second moment; share of the rows in U^2 / mean(R), (1,).

        Args:
            column: This step's column means of the whole tensor; overwritten.
            mean: mean(R) of it.
        """
        self._mean, self._finite = mean, is_finite(mean)
        if self.column is not None:
            new = torch.lerp(self.column, column.add_(self.rule.eps1), self.rule.new, out=column)
            torch.where(self._finite, new, self.column, out=self.column)
            self._root_column = new.rsqrt_()
        torch.where(self._finite, self._new_row, self.row, out=self.row)
        self._root_row = self._new_row.rsqrt_()
        total = torch.zeros_like(mean)
        for part in self._parts():
            scaled = self._by_column(part).mul_(self._root_row[part, None])
            total.add_(scaled.square_().sum())
        return total

    def write(self, total: Tensor, size: Tensor, per_root: Tensor) -> Tensor:
        """Steps the rows here; whether the gradient of the whole tensor was finite, (1,).

        Args:
            total: U^2 / mean(R) summed over the whole tensor, (1,); overwritten.
            size: Factor on the update, learning rate included, (1,).
            per_root: 1 / sqrt(numbers of the whole tensor), (1,).
        """
        rule, finite = self.rule, self._finite
        # Not factored, the update has no factor mean(R).
        reciprocal = torch.ones_like(total) if self.column is None else self._mean.rsqrt()
        at_once = None if self.momentum is not None else size
        factor = clipped(total.sqrt_().mul_(per_root), reciprocal, finite, at_once, rule)
        size = size * finite
        for part in self._parts():
            update = self._by_column(part).mul_((self._root_row[part] * factor)[:, None])
            update.nan_to_num_(0.0, 0.0, 0.0)
            step = update.view(1, *self.parameter[part].shape)
            if self.momentum is not None:
                average = self.momentum[part].lerp_(step[0], (1.0 - rule.beta1) * finite)
                torch.mul(average[None], size, out=step)
            compensation = [] if self.compensation is None else [self.compensation[part]]
            first = (self.first_row + part.start) * self._columns
            write([self.parameter[part]], self.key, compensation, step, size, rule, first)
        return finite

    def _parts(self) -> Iterator[slice]:
        rows = len(self.row)
        for first in range(0, rows, self.at_once):
            yield slice(first, min(rows, first + self.at_once))

    def _loaded(self, part: slice) -> Tensor:
        """(rows of the part, columns), float32: the gradient, until the next is asked for."""
        gradient = self.gradient[part]
        values = self._spare[: gradient.numel()]
        values.view(gradient.shape).copy_(gradient)
        return values.view(-1, self._columns)

    def _by_column(self, part: slice) -> Tensor:
        """The gradient by rsqrt(C)."""
        values = self._loaded(part)
        return values if self._root_column is None else values.mul_(self._root_column)
