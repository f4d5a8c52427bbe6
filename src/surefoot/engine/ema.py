"""A moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_TOGETHER = 64
"""Tensors that are widened to fp32 at once, so that there is never a wide copy of all."""


@final
class MovingAverage:
    """An exponential moving average whose decay warms up, so that short runs are not left behind.

    The decay after `n` updates is `min(decay, (1 + n) / (10 + n))`, as TensorFlow's
    ExponentialMovingAverage with `num_updates` has it. The averages are fp32 whatever
    the weights are: they move by less than a bfloat16 tells apart.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        decay: float,
        device: torch.device | None = None,
    ) -> None:
        """Starts at the parameters as they are; `device` holds the averages, None for theirs."""
        self._parameters = list(parameters)
        self._decay = decay
        self.averages: list[Tensor] = [
            item.detach().to(device, torch.float32, copy=True) for item in parameters
        ]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Moves towards the parameters; `updates` counts the earlier ones."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        average = get_ema_multi_avg_fn(decay)
        for first in range(0, len(self._parameters), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            means = self.averages[some]
            current = [
                item.detach().to(mean.device, torch.float32)
                for item, mean in zip(self._parameters[some], means, strict=True)
            ]
            average(means, current, updates)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the parameters hold the averages; afterwards what they held before."""
        # Put aside, not swapped: an average would lose its digits in a bfloat16 weight. There is
        # room for it where the gradients were.
        kept = [item.detach().clone() for item in self._parameters]
        self._fill(self.averages)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, tensors: Sequence[Tensor]) -> None:
        for parameter, tensor in zip(self._parameters, tensors, strict=True):
            parameter.copy_(tensor)
