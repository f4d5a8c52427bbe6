"""Sizes of tensors, measured together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from surefoot.optim.root_mean_square import PIECE, root_mean_squares
from tests.optim.networks import (
    rms,
)

# Two million squares are added up in float32.
SUM_OF_MILLIONS = 1e-4


def test_sizes_are_those_of_the_whole_tensor_in_any_dtype_and_shape() -> None:
    torch.manual_seed(0)
    tensors = [
        torch.randn(5, PIECE // 2 + 3, dtype=torch.bfloat16),
        torch.randn(7, 3).T,
        torch.randn(4, 4, dtype=torch.float16) * 300,
        torch.randn(4, dtype=torch.float64),
        torch.tensor(-3.0),
        torch.zeros(0, 4),
    ]
    expected = [rms(tensor) if tensor.numel() else 0.0 for tensor in tensors]
    assert root_mean_squares(tensors) == pytest.approx(expected, rel=SUM_OF_MILLIONS)
    assert root_mean_squares([]) == []


def test_tensors_are_let_go_one_by_one() -> None:
    alive = 0
    most = 0

    class Counted(Tensor):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def tensors() -> Iterator[Tensor]:
        nonlocal alive, most
        for _ in range(4):
            alive += 1
            most = max(most, alive)
            yield torch.Tensor._make_subclass(Counted, torch.ones(3))

    assert root_mean_squares(tensors()) == pytest.approx([1.0] * 4)
    assert most <= 2
