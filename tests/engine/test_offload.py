"""Blocks whose frozen weights are on the device only while they compute."""

# A block is a Sequential, which ModuleList does not say.
# pyright: reportIndexIssue=false

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from surefoot.engine.offload import Offload

DEVICE = torch.device("meta")
"""Another device that every machine has; it computes shapes alone."""


class Network(nn.Module):
    """Blocks of a frozen layer and a trained one, each computed twice."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8, device=DEVICE))
            for _ in range(blocks)
        )
        self.seen: list[tuple[int, tuple[str, ...]]] = []
        for number, block in enumerate(self.blocks):
            block[0].register_forward_pre_hook(lambda *_, number=number: self._look(number))

    def _look(self, number: int) -> None:
        self.seen.append((number, self.places()))

    def places(self) -> tuple[str, ...]:
        return tuple(block[0].weight.device.type for block in self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


def only(number: int, count: int) -> tuple[str, ...]:
    return tuple("meta" if place == number else "cpu" for place in range(count))


def test_one_block_is_on_the_device_at_a_time_forwards_and_then_backwards() -> None:
    network = Network(3)
    kept = [block[0].weight.detach().clone() for block in network.blocks]
    Offload(list(network.blocks), 1.0, DEVICE)
    assert network.places() == ("cpu",) * 3
    output = network(torch.zeros(2, 8, device=DEVICE, requires_grad=True))
    assert network.seen == [(number, only(number, 3)) for number in (0, 1, 2)]
    network.seen.clear()
    output.sum().backward()
    assert network.seen == [(number, only(number, 3)) for number in (2, 1, 0)]
    assert network.places() == ("cpu",) * 3
    for block, weight in zip(network.blocks, kept, strict=True):
        assert torch.equal(block[0].weight, weight)
        assert block[1].weight.grad is not None  # what is trained has stayed where it was
        assert block[1].weight.device == DEVICE


@pytest.mark.parametrize(("share", "moved"), [(0.0, 0), (0.3, 2), (0.5, 2), (1.0, 4)])
def test_share_of_the_blocks_is_rounded_up(share: float, moved: int) -> None:
    blocks = [nn.Linear(2, 2, device=DEVICE).requires_grad_(False) for _ in range(4)]
    # From the meta device no numbers can come back.
    blocks = [block.to_empty(device="cpu") for block in blocks]
    assert len(Offload(blocks, share, DEVICE).blocks) == moved


def test_block_that_fails_leaves_its_weights_in_main_memory() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2).requires_grad_(False)

        def forward(self, x: Tensor) -> Any:
            assert self.layer.weight.device == DEVICE
            raise KeyError

    block = Failing()
    Offload([block], 1.0, DEVICE)
    with pytest.raises(KeyError):
        block(torch.zeros(1))
    assert block.layer.weight.device.type == "cpu"


def test_gradients_are_those_without_offload_to_the_bit() -> None:
    found = []
    for share in (0.0, 1.0):
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(3)]
        for layer in layers:
            layer[0].requires_grad_(False)
        Offload(layers, share, torch.device("cpu"))
        x = torch.randn(4, 8)
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=False)
        x.square().sum().backward()
        found.append([layer[2].weight.grad for layer in layers])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
