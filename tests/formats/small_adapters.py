"""Adapters of every kind for every layer of the tiny pipeline, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from surefoot.formats.adapter_file import LAYOUT_KEY, layout_metadata
from surefoot.formats.original import UnetLayout
from surefoot.formats.weights import write_safetensors
from tests.tiny_sd import build_tiny_pipeline

AdapterKind = Literal["lora", "tucker", "dora output", "dora input", "loha", "lokr", "lokr whole"]
KINDS: tuple[AdapterKind, ...] = (
    *("lora", "tucker", "dora output", "dora input", "loha", "lokr", "lokr whole"),
)
LAYOUT = UnetLayout(layers=1, without_attention=(0,))
METADATA = {LAYOUT_KEY: layout_metadata(LAYOUT)}
Adapter = dict[str, dict[str, Tensor]]
TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = TO_Q.replace(".", "_")
DOWN, UP = torch.ones(2, 6), torch.ones(8, 2)


@cache
def weights() -> dict[str, Tensor]:
    """Canonical path to weight, of all linear layers and convolutions that can be adapted."""
    pipeline = build_tiny_pipeline(seed=0)
    return {
        f"{part}.{path}": module.weight.detach()
        for part, network in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def adapter(kind: AdapterKind, of: Mapping[str, Tensor], *, ranks: tuple[int, ...]) -> Adapter:
    """One for each weight; the ranks take turns, and alpha is 1.5 or 3."""
    generator = torch.Generator().manual_seed(3)
    return {
        path: layer(kind, weight, ranks[number % len(ranks)], 1.5 + number % 2 * 1.5, generator)
        for number, (path, weight) in enumerate(of.items())
    }


def layer(
    kind: AdapterKind, weight: Tensor, rank: int, alpha: float, generator: torch.Generator
) -> dict[str, Tensor]:
    def draw(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    out, inputs, *kernel = weight.shape
    ones = [1] * len(kernel)
    wide = weight[0].numel()
    leaves = {"alpha": torch.tensor(alpha, dtype=torch.float64)}
    match kind:
        case "tucker" if kernel:
            return leaves | {
                "lora_down": draw(rank, inputs, *ones),
                "lora_mid": draw(rank, rank, *kernel),
                "lora_up": draw(out, rank, *ones),
            }
        case "lora" | "tucker" | "dora output" | "dora input":
            leaves |= {
                "lora_down": draw(rank, inputs, *kernel),
                "lora_up": draw(out, rank, *ones),
            }
            if kind == "dora output":
                leaves["magnitude"] = 1 + draw(out, 1, *ones).abs()
            if kind == "dora input":
                leaves["magnitude"] = 1 + draw(1, inputs, *ones).abs()
            return leaves
        case "loha":
            for factor in ("hada_w1", "hada_w2"):
                leaves |= {f"{factor}_a": draw(out, rank), f"{factor}_b": draw(rank, wide)}
            return leaves
        case "lokr":
            return leaves | {
                "lokr_w1": draw(2, 2),
                "lokr_w2_a": draw(out // 2, rank),
                "lokr_w2_b": draw(rank, wide // 2),
            }
        case "lokr whole":
            return {
                "alpha": torch.tensor(1.0, dtype=torch.float64),
                "lokr_w1": draw(2, 2),
                "lokr_w2": draw(out // 2, inputs // 2, *kernel),
            }


def saved(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """The file of these tensors, by the names that they have in it."""
    path = tmp_path / "adapter.safetensors"
    write_safetensors(path, tensors, metadata or {})
    return path
