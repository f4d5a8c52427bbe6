"""Numbers that are none, found in every dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def computable(tensor: Tensor) -> Tensor:
    """The same numbers in a dtype that torch computes with, as it does with none of 8 bits."""
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def all_finite(tensor: Tensor) -> bool:
    """Whether none of its numbers is NaN or infinite."""
    return bool(torch.isfinite(computable(tensor)).all())
