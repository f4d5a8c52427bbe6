"""LoHa: an update that is the element-by-element product of two low-rank matrices.

Hyeon-Woo et al. 2022 (FedPara, arXiv 2108.06098, section 2.2): its rank may be the square of that
of the factors. LyCORIS brought it to diffusion models (Yeh et al. 2023, arXiv 2309.14859).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import nn

from surefoot.tuning.factor_shapes import loha_factors
from surefoot.tuning.layers import AdaptableLayer, shape_of
from surefoot.tuning.products import ProductLayer
from surefoot.tuning.replacement import replace_targets
from surefoot.tuning.trainable import Tuned


@final
class LohaLayer(ProductLayer):
    """y = W x + bias + (alpha / rank) ((B1 A1) * (B2 A2)) x."""

    def __init__(
        self,
        path: str,
        base: AdaptableLayer,
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
        dropout: float = 0.0,
    ) -> None:
        """See `ProductLayer`."""
        super().__init__(
            path,
            base,
            loha_factors(shape_of(base), rank),
            alpha=alpha,
            generator=generator,
            dropout=dropout,
            normal=True,
        )


def attach(
    parts: Mapping[str, nn.Module],
    targets: Mapping[str, tuple[str, ...]],
    *,
    rank: int,
    alpha: float,
    generator: torch.Generator,
    dropout: float = 0.0,
) -> Tuned:
    """Freeze the parts and put a Loha layer in the place of every target.

    Args:
        parts: Name of a part (`unet`, `text_encoder`) to its network; changed in place.
        targets: Name of a part to the paths of its linear and convolution layers to adapt.
        rank: Inner width of the factors.
        alpha: The update is scaled by `alpha / rank`.
        generator: Source of the random factors.
        dropout: Share of the adapters' inputs that are zeroed in training.

    Raises:
        TuningError: A target cannot carry an adapter; the parts are untouched then.
    """

    def make_layer(path: str, base: AdaptableLayer) -> LohaLayer:
        return LohaLayer(path, base, rank=rank, alpha=alpha, generator=generator, dropout=dropout)

    return replace_targets(parts, targets, make_layer)
