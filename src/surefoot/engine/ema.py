"""A moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@final
class MovingAverage:
    """An exponential moving average whose decay warms up, so that short runs are not left behind.

    The decay after `n` updates is `min(decay, (1 + n) / (10 + n))`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        """Starts at the parameters as they are."""
        self._parameters = list(parameters)
        self._decay = decay
        self.averages: list[Tensor] = [item.detach().clone() for item in parameters]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Moves towards the parameters; `updates` counts the earlier ones."""
        decay = min(self._decay, (1 + updates) / (10 + updates))
        current = [item.detach() for item in self._parameters]
        get_ema_multi_avg_fn(decay)(self.averages, current, updates)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the parameters hold the averages; afterwards what they held before."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters, self.averages, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
