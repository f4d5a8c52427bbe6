"""Frozen weights that stay in main memory and are on the device while their block computes.

A block is what gradient checkpointing computes twice: its weights come for the forward pass, go,
and come again for the second computation, where the graph keeps them until the block's gradients
are there. So one block's weights are on the device at a time. On one and the same device nothing is
copied and nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True)
class _Frozen:
    """A frozen parameter in main memory, and where it belongs."""

    owner: nn.Module
    name: str
    kept: nn.Parameter


@final
class Offload:
    """Keeps the frozen parameters of some blocks in main memory.

    The parameter is put into the module and taken out of it, rather than its data exchanged: what
    autograd has saved must not change under it.
    """

    def __init__(self, blocks: Sequence[nn.Module], share: float, device: torch.device) -> None:
        """Moves the frozen parameters of the first blocks, a share of all, to main memory now.

        Args:
            blocks: In the order in which they are called; none within another.
            share: 0 to 1.
            device: Where they compute.
        """
        self._device = device
        self._hooks: list[RemovableHandle] = []
        self.blocks = tuple(blocks[: math.ceil(share * len(blocks))])
        for block in self.blocks:
            frozen = [
                _Frozen(owner, name, self._put_away(owner, name, parameter))
                for owner in block.modules()
                for name, parameter in owner.named_parameters(recurse=False)
                if not parameter.requires_grad
            ]
            self._follow(block, frozen)

    def _put_away(self, owner: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        data = parameter.detach().to("cpu")
        if self._device.type == "cuda":
            data = data.pin_memory()  # else each copy would wait for the one before
        kept = nn.Parameter(data, requires_grad=False)
        owner._parameters[name] = kept
        return kept

    def _follow(self, block: nn.Module, frozen: list[_Frozen]) -> None:
        def load(*_: object) -> None:
            for item in frozen:
                data = item.kept.detach().to(self._device, non_blocking=True)
                item.owner._parameters[item.name] = nn.Parameter(data, requires_grad=False)

        def release(*_: object) -> None:
            for item in frozen:
                item.owner._parameters[item.name] = item.kept

        self._hooks.append(block.register_forward_pre_hook(load))
        # Also where the forward pass fails, or is ended early by gradient checkpointing.
        self._hooks.append(block.register_forward_hook(release, always_call=True))
