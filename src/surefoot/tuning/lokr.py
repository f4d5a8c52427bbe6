"""LoKr: an update that is the Kronecker product of a small matrix and a larger one.

Edalati et al. 2022 (KronA, arXiv 2212.10650, section 3) and LyCORIS (Yeh et al. 2023, arXiv
2309.14859). Every block of the update is the larger matrix, times a number of the small one.
"""

from __future__ import annotations

from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot.tuning.factor_shapes import lokr_factors
from surefoot.tuning.layers import AdaptableLayer, shape_of
from surefoot.tuning.products import ProductLayer


@final
class LokrLayer(ProductLayer):
    """y = W x + bias + (alpha / rank) (W1 x W2) x, Kronecker; a side may be B A or whole."""

    def __init__(
        self,
        path: str,
        base: AdaptableLayer,
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
        dropout: float = 0.0,
        factor: int | Literal["auto"] = "auto",
        decompose_both: bool = False,
    ) -> None:
        """See `ProductLayer`, and `factor_shapes.lokr_factors` of `factor` and `decompose_both`."""
        super().__init__(
            path,
            base,
            lokr_factors(shape_of(base), rank, factor, decompose_both=decompose_both),
            alpha=alpha,
            generator=generator,
            dropout=dropout,
        )

    def update(self, x: Tensor) -> Tensor:
        """What the adapter adds to the output.

        (W1 x W2) x is W2 X W1^T with the numbers of x as a matrix X: no matrix of the size of the
        weight is made.
        """
        if not isinstance(self.base, nn.Linear):
            return super().update(x)
        first, second = self._side("lokr_w1"), self._side("lokr_w2")
        # The small matrix is made whole, in float32: one rounding instead of two.
        with torch.autocast(x.device.type, enabled=False):
            small = self.scale * (first[0] if len(first) == 1 else first[0] @ first[1])
        if not torch.is_autocast_enabled(x.device.type):
            small = small.to(x.dtype)
            second = [factor.to(x.dtype) for factor in second]
        rows = x.unflatten(-1, (small.shape[1], second[-1].shape[1]))
        for factor in reversed(second):
            rows = F.linear(rows, factor)
        return F.linear(rows.transpose(-1, -2), small).transpose(-1, -2).flatten(-2)

    def _side(self, name: str) -> list[Tensor]:
        """The factors of a side, the left one first."""
        named = self.named_parameters(recurse=False)
        return [tensor for key, tensor in named if key.startswith(name)]
