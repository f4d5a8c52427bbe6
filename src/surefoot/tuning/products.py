"""What LoHa and LoKr share: several factors of which one starts at zero, and their way to x."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot.tuning.delta import weight_delta
from surefoot.tuning.factor_shapes import Factor, Factors
from surefoot.tuning.layers import AdaptableLayer, AdapterLayer


class ProductLayer(AdapterLayer):
    """y = W x + bias + delta x, with the update of the weight made anew at each step.

    Each factor is a parameter of the name that it has in files.
    """

    def __init__(
        self,
        path: str,
        base: AdaptableLayer,
        factors: Factors,
        *,
        alpha: float,
        generator: torch.Generator,
        dropout: float = 0.0,
        normal: bool = False,
    ) -> None:
        """Freeze `base`; draw the factors from the generator, on whose device they are drawn.

        Args:
            path: Dotted, from the part on.
            base: The frozen layer.
            factors: What the adapter consists of.
            alpha: The update is scaled by `alpha / rank`; 1 where no factors meet in a rank.
            generator: Source of the factors.
            dropout: Share of the adapter's inputs that are zeroed in training.
            normal: Draw from a normal distribution, else from a uniform one.
        """
        alpha = float(factors.rank) if factors.is_whole else alpha
        super().__init__(path, base, rank=factors.rank, alpha=alpha, dropout=dropout)
        self.as_lora = factors.as_lora
        for factor in factors.all:
            drawn = _drawn(factor, generator, normal=normal)
            self.register_parameter(factor.name, nn.Parameter(drawn.to(self.weight.device)))
        self.train(base.training)

    def adapted(self, x: Tensor) -> Tensor:
        """The output of the tuned layer."""
        output = self.base(x)
        return output + self.update(self.dropped(x)).to(output.dtype)

    def update(self, x: Tensor) -> Tensor:
        """What the adapter adds to the output."""
        delta = weight_delta(self._leaves(), self.weight_shape)
        if not torch.is_autocast_enabled(x.device.type):
            delta = delta.to(x.dtype)
        if isinstance(self.base, nn.Linear):
            return F.linear(x, delta)
        return self.base._conv_forward(x, delta, None)

    def state(self) -> dict[str, Tensor]:
        """The factors and `alpha`."""
        return {name: tensor.detach() for name, tensor in self._leaves().items()}

    def _leaves(self) -> dict[str, Tensor]:
        alpha = torch.tensor(self.alpha, dtype=torch.float64)
        return {**dict(self.named_parameters(recurse=False)), "alpha": alpha}


def _drawn(factor: Factor, generator: torch.Generator, *, normal: bool) -> Tensor:
    tensor = torch.zeros(factor.shape, device=generator.device)
    if not factor.rms:
        return tensor
    if normal:
        return tensor.normal_(0.0, factor.rms, generator=generator)
    bound = math.sqrt(3.0) * factor.rms
    return tensor.uniform_(-bound, bound, generator=generator)
