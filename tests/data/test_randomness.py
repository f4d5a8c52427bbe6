"""Torch generators by name."""

from __future__ import annotations

import pytest
import torch

from surefoot.data.batches import stream_seed
from surefoot.data.randomness import torch_generator


def test_a_torch_generator_is_a_function_of_its_name() -> None:
    first, again = torch_generator(5, "noise", 3, 0), torch_generator(5, "noise", 3, 0)
    drawn = torch.randn(8, generator=first)
    assert torch.equal(drawn, torch.randn(8, generator=again))
    assert not torch.equal(drawn, torch.randn(8, generator=first))
    assert first.device == torch.device("cpu")


@pytest.mark.parametrize("other", [(6, "noise", 3), (5, "time", 3), (5, "noise", 4), (5, "noise")])
def test_other_names_give_other_numbers(other: tuple[int, ...]) -> None:
    drawn = torch.randn(8, generator=torch_generator(5, "noise", 3))
    assert not torch.equal(drawn, torch.randn(8, generator=torch_generator(*other)))


def test_torch_and_numpy_streams_are_seeded_by_one_rule() -> None:
    assert torch_generator(5, "noise").initial_seed() == stream_seed(5, "noise") % 2**64


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.randn(3, generator=torch_generator(1))
    assert torch.equal(torch.get_rng_state(), before)
