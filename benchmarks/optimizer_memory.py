"""Bytes of optimizer state for whole models, ours and the peers'.

Each optimizer takes one real step on one tensor of every shape that a model has, and what it keeps
is counted and multiplied by how often the shape occurs; no model has to fit into memory. Prints a
Markdown table; `--write` puts it into docs/optimizer-memory.md.

    python -m benchmarks.optimizer_memory
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks import adafactor
from surefoot.optim.adafactor import Adafactor

PAGE = Path(__file__).parent.parent / "docs" / "optimizer-memory.md"
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def networks() -> dict[str, nn.Module]:
    """The networks that are trained, without their weights."""
    with torch.device("meta"):
        return {
            "SD 1.5": UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8),
            "SDXL": UNet2DConditionModel(**SDXL),
            "Flux.1": FluxTransformer2DModel(guidance_embeds=True),
        }


Shapes = Counter[tuple[int, ...]]


def full(network: nn.Module) -> Shapes:
    """The shapes of all weights."""
    return Counter(tuple(parameter.shape) for parameter in network.parameters())


def lora(network: nn.Module, rank: int) -> Shapes:
    """The shapes of a LoRA on every linear layer of its blocks."""
    shapes: Shapes = Counter()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and "block" in name:
            shapes[rank, layer.in_features] += 1
            shapes[layer.out_features, rank] += 1
    return shapes


Make = Callable[[list[nn.Parameter]], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "**surefoot Adafactor**": lambda found: Adafactor(found, scale_parameter=True),
    "transformers Adafactor": adafactor.transformers,
    "torch Adafactor": adafactor.torch_foreach,
    "pytorch-optimizer AdaFactor": adafactor.pytorch_optimizer,
    "surefoot Adafactor, `beta1`": lambda found: Adafactor(found, beta1=0.9, scale_parameter=True),
    "transformers Adafactor, `beta1`": lambda found: _transformers_with_momentum(found),
    "AdamW": lambda found: torch.optim.AdamW(found),
    "AdamW, 8 bits": lambda found: _of_library("bitsandbytes.optim", "AdamW8bit", found),
    "Lion": lambda found: _of_library("pytorch_optimizer", "Lion", found),
    "CAME": lambda found: _of_library("pytorch_optimizer", "CAME", found),
    "Prodigy": lambda found: _of_library("pytorch_optimizer", "Prodigy", found),
}


def _transformers_with_momentum(found: list[nn.Parameter]) -> Optimizer:
    from transformers import Adafactor as Peer

    return Peer(found, lr=1e-5, beta1=0.9, relative_step=False)


def _of_library(module: str, name: str, found: list[nn.Parameter]) -> Optimizer:
    return getattr(import_module(module), name)(found)


@cache
def state_bytes(optimizer: str, shape: tuple[int, ...]) -> int:
    """Bytes that an optimizer keeps for a float32 tensor of a shape."""
    parameter = nn.Parameter(torch.full(shape, 0.01))
    parameter.grad = torch.full(shape, 1e-3)
    made = OPTIMIZERS[optimizer]([parameter])
    made.step()
    return sum(
        value.numel() * value.element_size()
        for value in made.state[parameter].values()
        if isinstance(value, Tensor)
    )


def table(rank: int) -> str:
    """All optimizers and networks."""
    cases: dict[str, Shapes] = {}
    for name, network in networks().items():
        cases[f"{name}, full"] = full(network)
        cases[f"{name}, LoRA r{rank}"] = lora(network, rank)
    numbers = {
        case: sum(torch.Size(shape).numel() * count for shape, count in shapes.items())
        for case, shapes in cases.items()
    }
    lines = [
        "| MB of state (share of the weights) | " + " | ".join(cases) + " |",
        "|---" * (len(cases) + 1) + "|",
        "| *weights, float32* | "
        + " | ".join(f"*{4 * number / 1e6:,.0f}*" for number in numbers.values())
        + " |",
    ]
    for optimizer in OPTIMIZERS:
        cells: list[str] = []
        for case, shapes in cases.items():
            total = sum(state_bytes(optimizer, shape) * count for shape, count in shapes.items())
            cells.append(f"{total / 1e6:,.1f} ({total / 4 / numbers[case]:.1%})")
        print(optimizer, file=sys.stderr, flush=True)
        lines.append(f"| {optimizer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table and, if asked, writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.name}")
    arguments = parser.parse_args()
    text = table(arguments.rank)
    print(text)
    if arguments.write:
        adafactor.write_between_markers(PAGE, text)


if __name__ == "__main__":
    main()
