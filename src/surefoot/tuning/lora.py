"""LoRA: a frozen weight plus a trained low-rank update (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from surefoot.config.tuning import Initialisation
from surefoot.tuning.factors import FactorLayer
from surefoot.tuning.layers import AdaptableLayer
from surefoot.tuning.replacement import replace_targets
from surefoot.tuning.trainable import Tuned


@final
class LoraLayer(FactorLayer):
    """y = W x + bias + (alpha / rank) B A x."""

    def row_gain(self) -> None:
        """None: LoRA has no gain."""

    def column_gain(self) -> None:
        """None: LoRA has no gain."""


def attach(
    parts: Mapping[str, nn.Module],
    targets: Mapping[str, tuple[str, ...]],
    *,
    rank: int,
    alpha: float,
    generator: torch.Generator,
    dropout: float = 0.0,
    initialisation: Initialisation = "kaiming",
) -> Tuned:
    """Freeze the parts and put a LoRA layer in the place of every target.

    B starts at zero, so the model answers exactly as before.

    Args:
        parts: Name of a part (`unet`, `text_encoder`) to its network; changed in place.
        targets: Name of a part to the paths of its linear and convolution layers to adapt.
        rank: Inner width of the update.
        alpha: The update is scaled by `alpha / rank`.
        generator: Source of the random A.
        dropout: Share of the adapters' inputs that are zeroed in training.
        initialisation: What the factors start from.

    Raises:
        TuningError: A target cannot carry an adapter; the parts are untouched then.
    """

    def make_layer(path: str, base: AdaptableLayer) -> LoraLayer:
        return LoraLayer(
            path,
            base,
            rank=rank,
            alpha=alpha,
            generator=generator,
            dropout=dropout,
            initialisation=initialisation,
        )

    return replace_targets(parts, targets, make_layer)
