"""A factor on the loss that keeps small gradients above what float16 can hold.

Float16 has nothing below 6e-8. The loss is multiplied before the backward pass and the gradients
are divided again, in float32 (Micikevicius et al. 2018, "Mixed Precision Training", arXiv
1710.03740, section 3.2). The factor is a power of two, so that nothing is rounded by it; what is
too large for float16 comes out as infinite, and the factor is halved.
"""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

_START = 2.0**16
_LARGEST = 2.0**24
_GROW_AFTER = 2000  # steps without an overflow, as torch's GradScaler


@dataclass
class LossScale:
    """The factor, and how many steps it has held.

    Attributes:
        factor: A power of two, at least 1.
        held: Steps since it last changed.
    """

    factor: float = _START
    held: int = 0

    @torch.no_grad()
    def divide(self, parameters: Sequence[nn.Parameter]) -> None:
        """Takes the factor off the gradients, in place."""
        gradients = [item.grad for item in parameters if item.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.factor)

    def fitted(self) -> None:
        """After a step whose gradients were finite: twice as large when it has held for long."""
        self.held += 1
        if self.held >= _GROW_AFTER and self.factor < _LARGEST:
            self.factor, self.held = self.factor * 2, 0

    def overflowed(self) -> bool:
        """After gradients that are not finite: half as large. False where 1 is reached already.

        Then it is not the factor that makes them so.
        """
        if self.factor == 1:
            return False
        self.factor, self.held = self.factor / 2, 0
        return True

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps of it."""
        return {"factor": self.factor, "held": float(self.held)}

    def restore(self, state: dict[str, float]) -> None:
        """Goes on from a checkpoint; from one without it, at the beginning."""
        if state:
            self.factor, self.held = state["factor"], int(state["held"])
