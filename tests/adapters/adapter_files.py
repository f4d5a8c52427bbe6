"""Small models and adapters for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from surefoot.adapters.model_weights import ModelWeights
from surefoot.config.adapter_format import AdapterFormat
from surefoot.formats.adapter_file import AdapterFile, open_adapter, write_adapter

LAYERS = (
    "unet.conv_in",
    "unet.down_blocks.0.attentions.0.proj_in",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.up_blocks.1.attentions.1.transformer_blocks.0.ff.net.2",
    "text_encoder.encoder.layers.0.self_attn.q_proj",
)
"""A convolution of 3x3, one of 1x1, two linear layers, and one of the other part."""


def lora(shape: tuple[int, ...], rank: int, seed: int, alpha: float = 0.0) -> dict[str, Tensor]:
    """The leaves of a LoRA with random factors for a weight of this shape."""
    generator = torch.Generator().manual_seed(seed)
    ones = [1] * (len(shape) - 2)
    return {
        "lora_down": torch.randn(rank, *shape[1:], generator=generator) * 0.1,
        "lora_up": torch.randn(shape[0], rank, *ones, generator=generator) * 0.1,
        "alpha": torch.tensor(alpha or rank, dtype=torch.float64),
    }


def dora(weight: Tensor, rank: int, seed: int, *, axis: str = "output") -> dict[str, Tensor]:
    """The leaves of a DoRA whose magnitudes have moved by some percent."""
    generator = torch.Generator().manual_seed(seed + 1000)
    kept = 0 if axis == "output" else 1
    dims = [dim for dim in range(weight.ndim) if dim != kept]
    norms = torch.linalg.vector_norm(weight.float(), dim=dims, keepdim=True)
    moved = 1 + 0.05 * torch.randn(norms.shape, generator=generator)
    return {**lora(tuple(weight.shape), rank, seed), "magnitude": norms * moved}


def loras(
    model: ModelWeights, rank: int = 3, alpha: float = 0.0, layers: Iterable[str] = LAYERS
) -> dict[str, dict[str, Tensor]]:
    """A LoRA on some layers of a model."""
    return {layer: lora(model.shape(layer), rank, seed, alpha) for seed, layer in enumerate(layers)}


def doras(
    model: ModelWeights, rank: int = 3, axis: str = "output", layers: Iterable[str] = LAYERS
) -> dict[str, dict[str, Tensor]]:
    """A DoRA on some layers of a model."""
    return {
        layer: dora(model.read(layer), rank, seed, axis=axis) for seed, layer in enumerate(layers)
    }


def write(
    path: Path,
    layers: Mapping[str, Mapping[str, Tensor]],
    to: AdapterFormat = "kohya",
    **metadata: str,
) -> AdapterFile:
    """An adapter file, opened."""
    write_adapter(path, layers.items(), to, metadata)
    return open_adapter(path)
