"""LoHa: an update that is the element-by-element product of two low-rank matrices.

Hyeon-Woo et al. 2022 (FedPara, arXiv 2108.06098, section 2.2): its rank may be the square of that
of the factors. LyCORIS brought it to diffusion models (Yeh et al. 2023, arXiv 2309.14859).
"""

from __future__ import annotations

from typing import final

import torch

from surefoot.tuning.factor_shapes import loha_factors
from surefoot.tuning.layers import AdaptableLayer, shape_of
from surefoot.tuning.products import ProductLayer


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
