"""What a bfloat16 loses of a step, compared with torch's own rounding."""

from __future__ import annotations

import pytest
import torch

from surefoot.optim.lost_steps import share_lost, smallest_change


@pytest.mark.parametrize("size", [0.75, 1.0, 1.5, 0.017, 300.0])
def test_smallest_change_is_the_least_that_moves_a_number(size: float) -> None:
    number = torch.tensor(size, dtype=torch.bfloat16)
    for factor, moves in ((0.99, False), (1.01, True)):
        moved = (number.float() + factor * smallest_change(float(number))).bfloat16()
        assert bool(moved != number) == moves


@pytest.mark.parametrize("rms", [0.04, 1.0])
@pytest.mark.parametrize("relative", [3e-2, 1e-2, 3e-3, 1e-3, 1e-4])
def test_share_lost_is_that_of_normal_numbers(relative: float, rms: float) -> None:
    count = 100_000
    generator = torch.Generator().manual_seed(0)
    numbers = (rms * torch.randn(count, generator=generator)).bfloat16()
    # Away from zero: towards it, a number just above a power of two is moved by half as much.
    moved = (numbers.float() + relative * rms * numbers.sign().float()).bfloat16()
    share = (moved == numbers).float().mean().item()
    assert share == pytest.approx(share_lost(relative * rms, rms), abs=0.01)


def test_zeros_lose_nothing() -> None:
    assert share_lost(1e-9, 0.0) == 0.0
