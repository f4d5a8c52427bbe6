"""Networks for parameter groups, and how to read the groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

RELATIVE = 1e-6
"""Twelve digits of alpha are kept, an RMS is float32."""


class Network(nn.Module):
    """Layers of every kind; `zero` starts at zero, as ControlNet's and AdaLN's do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 24)
        self.wide = nn.Linear(24, 48)
        self.norm = nn.LayerNorm(48)
        self.conv = nn.Conv2d(6, 12, 3)
        self.line = nn.Conv1d(6, 12, 3)
        self.space = nn.Conv3d(6, 12, 3)
        self.zero = nn.Linear(48, 8)
        self.gain = nn.Parameter(torch.zeros(48))
        with torch.no_grad():
            self.zero.weight.zero_()
            self.zero.bias.zero_()


def network() -> Network:
    torch.manual_seed(0)
    return Network()


class LargeNetwork(nn.Module):
    """Layers whose adapters have enough numbers for a root mean square to be what it should."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(576, 768)
        self.conv = nn.Conv2d(64, 96, 3)


def large_network() -> LargeNetwork:
    torch.manual_seed(0)
    return LargeNetwork()


def described(groups: list[dict[str, Any]]) -> dict[str, tuple[str, float, float]]:
    """Name to kind, alpha and RMS of the layer; each name once."""
    rows = [
        (name, (group["kind"], group["alpha"], rms))
        for group in groups
        for (name, _), rms in zip(group["params"], group["weight_rms"], strict=True)
    ]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def ends(found: Mapping[str, tuple[str, float, float]], end: str) -> tuple[str, float, float]:
    (row,) = (row for name, row in found.items() if name.endswith(end))
    return row


def rms(tensor: Tensor) -> float:
    return tensor.detach().double().square().mean().sqrt().item()
