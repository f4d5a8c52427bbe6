"""A network, a loop around it, and what it has learned."""

from __future__ import annotations

from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from surefoot.optim import Adafactor, parameter_groups

WIDTH = 12


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 24)
        self.norm = nn.LayerNorm(24)
        self.last = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())


def adapted(use_dora: bool = False) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=4, target_modules=["first"], modules_to_save=["norm"], use_dora=use_dora
    )
    return cast(nn.Module, get_peft_model(cast(Any, Network()), config))


def gradients(model: nn.Module, seed: int) -> None:
    """The same for the same seed and the same weights."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, WIDTH, generator=generator)
    model(x).square().sum().backward()


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        gradients(model, seed)
        optimizer.step()


def optimizer_of(model: nn.Module, **options: Any) -> Adafactor:
    return Adafactor(parameter_groups(model), lr=1e-2, **options)
