"""Updates kept below a norm: none may move its weight further, however long it trains."""

from __future__ import annotations

import torch
from torch import Tensor

from surefoot.tuning.trainable import Tuned


@torch.no_grad()
def limit_norms(tuned: Tuned, most: float) -> Tensor:
    """Scale back every adapter whose update, alpha / rank included, has a larger norm.

    The factors of an adapter share the reduction evenly, so that none outgrows the others. DoRA's
    magnitude is left alone: the norm is that of the update before it. Nothing waits for the device.

    Args:
        tuned: What `attach` of a tuning gave.
        most: The largest Frobenius norm of an update.

    Returns:
        How many adapters were scaled back, one number on their device.
    """
    reduced: list[Tensor] = []
    for layer in tuned.layers:
        ratio = (most / layer.delta_norm()).clamp(max=1.0)
        reduced.append(ratio < 1)
        factors = layer.factors()
        for factor in factors:
            factor.mul_(ratio ** (1 / len(factors)))
    return torch.stack(reduced).sum()
