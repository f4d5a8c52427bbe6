"""The average that a schedule-free optimizer keeps, in and out of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surefoot.optim.external import ShowsOtherWeights


@final
class ScheduleFreeAverage:
    """Shows the optimizer's average x instead of y, where gradients are taken.

    The optimizer computes one from the other, which rounds. So y is put aside and put back: a run
    does not depend on how often it was looked at.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        """The optimizer trains exactly these parameters.

        Raises:
            TypeError: If it keeps no average.
        """
        if not isinstance(optimizer, ShowsOtherWeights):
            raise TypeError(f"{type(optimizer).__name__} keeps no average")
        self._optimizer = optimizer
        self._parameters = list(parameters)
        optimizer.train()

    def update(self, updates: int) -> None:
        """Nothing: the optimizer averages by itself."""

    @property
    def averages(self) -> list[Tensor]:
        """A copy of x of each parameter."""
        with self.in_place():
            return [item.detach().clone() for item in self._parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the parameters hold x; afterwards y, to the bit."""
        kept = [item.detach().clone() for item in self._parameters]
        self._optimizer.eval()
        # It writes to `.data`, of which torch keeps no account.
        torch.autograd.graph.increment_version(self._parameters)
        try:
            yield
        finally:
            self._optimizer.train()
            with torch.no_grad():
                for parameter, before in zip(self._parameters, kept, strict=True):
                    parameter.copy_(before)
