"""What the factors of a LoRA or DoRA start from."""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor, nn

from surefoot.config.tuning import Initialisation

_POWER_ITERATIONS = 8
"""Of the randomised decomposition: the leading values come out within a thousandth."""


def fresh_factors(
    kind: Initialisation,
    weight: Tensor,
    rank: int,
    scale: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """`lora_down` (rank, in / groups, *kernel) and `lora_up` (out, rank, *ones), float32.

    - `kaiming`: A uniform within 1 / sqrt(fan in), hence RMS 1 / sqrt(3 fan in); B zero. As in the
      LoRA authors' code.
    - `gaussian`: A normal with a deviation of 1 / rank; B zero. As diffusers' scripts do.
    - `pissa`: s B A is the part of W that its largest singular values make up (Meng et al. 2024,
      arXiv 2404.02948, equations 2 and 3), each factor with the root of the values. The layer must
      take it off again, see `FactorLayer`.

    Args:
        kind: Which of them.
        weight: W, (out, in / groups, *kernel).
        rank: Inner width.
        scale: s.
        generator: Source of all random numbers, on whose device they are drawn.
    """
    out, *fan = weight.shape
    down = torch.empty(rank, *fan, device=generator.device)
    up = torch.zeros(out, rank, *(1 for _ in fan[1:]))
    match kind:
        case "kaiming":
            nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        case "gaussian":
            nn.init.normal_(down, std=1 / rank, generator=generator)
        case "pissa":
            return _principal_factors(weight, down.shape, up.shape, scale, generator)
        case _:
            assert_never(kind)
    return down.to(weight.device), up.to(weight.device)


def _principal_factors(
    weight: Tensor,
    down: torch.Size,
    up: torch.Size,
    scale: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    rows = weight.detach().flatten(1).float()
    rank = up[1]
    # By chance, since a whole decomposition of every layer takes minutes; the chance is ours.
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    devices = [] if rows.device.type == "cpu" else [rows.device]
    with torch.random.fork_rng(devices, device_type=rows.device.type if devices else "cuda"):
        torch.manual_seed(seed)
        # A few more than wanted, so that the last wanted ones are right too.
        wide = min(rank + 8, *rows.shape)
        left, values, right = torch.svd_lowrank(rows, q=wide, niter=_POWER_ITERATIONS)
    found = min(rank, wide)
    root = (values[:found] / scale).sqrt()
    lora_down, lora_up = rows.new_zeros(rank, rows.shape[1]), rows.new_zeros(rows.shape[0], rank)
    lora_down[:found] = root[:, None] * right[:, :found].T
    lora_up[:, :found] = left[:, :found] * root
    return lora_down.view(down), lora_up.view(up)
