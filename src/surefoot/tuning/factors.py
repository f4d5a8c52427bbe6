"""What LoRA and DoRA share: the two factors of the update, and their way beside the frozen layer.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1): W x becomes W x + (alpha / rank) B A x, with
`lora_down` for A and `lora_up` for B.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot.config.tuning import Initialisation
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import usual_rms
from surefoot.tuning.factor_shapes import lora_factors
from surefoot.tuning.initialisation import fresh_factors
from surefoot.tuning.layers import AdaptableLayer, AdapterLayer, Convolution
from surefoot.tuning.low_rank import adapted_linear, joined, scaled_rows

_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
"""By the dimensions of the weight."""


class FactorLayer(AdapterLayer):
    """A layer whose update is `alpha / rank * lora_up @ lora_down`.

    With factors A0 and B0 to start from that are not zero (PiSSA), the update is
    `alpha / rank * (lora_up @ lora_down - B0 @ A0)`, by factors of twice the rank: the frozen
    weight stays what it is, so that it may be quantised or shared, and nothing has to be put back.

    Attributes:
        lora_down: A, (rank, in) or (rank, in / groups, *kernel). Every group has the same A.
        lora_up: B, (out, rank) or (out, rank, *ones).
        start_down: A0 as `lora_down`; None where B0 is zero.
        start_up: -B0 as `lora_up`; None where it is zero.
    """

    start_down: Tensor | None
    start_up: Tensor | None

    def __init__(
        self,
        path: str,
        base: AdaptableLayer,
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
        dropout: float = 0.0,
        initialisation: Initialisation = "kaiming",
    ) -> None:
        """Freeze `base`; make the factors with numbers of the generator, on its device."""
        super().__init__(path, base, rank=rank, alpha=alpha, dropout=dropout)
        weight = self.frozen_weight()
        down, up = fresh_factors(initialisation, weight, rank, self.scale, generator)
        self.lora_down = nn.Parameter(down)
        self.lora_up = nn.Parameter(up)
        subtracted = initialisation == "pissa"
        # Nothing else depends on the weight, which takes a pass over it.
        weight_rms = root_mean_squares([weight])[0] if subtracted else 0.0
        self.as_lora = lora_factors(
            self.weight_shape,
            rank,
            initialisation,
            weight_rms=weight_rms or usual_rms(self.fan_in),
            scale=self.scale,
        ).as_lora
        self.register_buffer("start_down", down.clone() if subtracted else None)
        self.register_buffer("start_up", -up if subtracted else None)
        self.train(base.training)

    @abstractmethod
    def row_gain(self) -> Tensor | None:
        """DoRA's gain over outputs, (out,), float32."""

    @abstractmethod
    def column_gain(self) -> Tensor | None:
        """DoRA's gain over inputs, (in / groups,), float32."""

    def adapted(self, x: Tensor) -> Tensor:
        """The output of the tuned layer."""
        row_gain, column_gain = self.row_gain(), self.column_gain()
        down, up = self.both_factors()
        dropping = self.dropout > 0 and self.training
        if _is_plain_linear(self.base) and not dropping:
            return adapted_linear(
                x,
                self.weight,
                self.bias,
                down,
                up,
                self.scale,
                row_gain=row_gain,
                column_gain=column_gain,
            )
        if column_gain is not None:
            x = self._columns_scaled(x, column_gain)
        output = self.base(x)
        x = self.dropped(x)
        if isinstance(self.base, nn.Linear):
            return joined(output, x, self.bias, down, up, self.scale, row_gain=row_gain)
        update = self._convolved(self.base, x, down, up)
        output = torch.add(output, update.to(output.dtype), alpha=self.scale)
        return output if row_gain is None else scaled_rows(output, row_gain, self.bias)

    def both_factors(self) -> tuple[Tensor, Tensor]:
        """A and B of the update, with A0 and -B0 beside them where there are any."""
        if self.start_down is None or self.start_up is None:
            return self.lora_down, self.lora_up
        down = torch.cat([self.lora_down, self.start_down])
        return down, torch.cat([self.lora_up, self.start_up], dim=1)

    @torch.no_grad()
    def delta_norm(self) -> Tensor:
        """The Frobenius norm of `delta`, one number: ||B A||^2 = <B^T B, A A^T>."""
        down, up = (factor.flatten(1) for factor in self.both_factors())
        squared = torch.sum((up.T @ up) * (down @ down.T))
        return squared.clamp_min(0).sqrt() * self.scale

    def state(self) -> dict[str, Tensor]:
        """`lora_down`, `lora_up` and `alpha`, of twice the rank with factors to start from."""
        down, up = self.both_factors()
        return {
            "lora_down": down.detach(),
            "lora_up": up.detach(),
            "alpha": torch.tensor(self.scale * len(down), dtype=torch.float64),
        }

    def _columns_scaled(self, x: Tensor, gain: Tensor) -> Tensor:
        """Every input multiplied by its gain; groups share the gains, as they share A."""
        if isinstance(self.base, nn.Linear):
            return x + x * (gain - 1).to(x.dtype)
        excess = (gain - 1).repeat(self.base.groups).to(x.dtype)
        return x + x * excess.view(-1, *(1 for _ in self.base.kernel_size))

    def _convolved(self, base: Convolution, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """B A x, with the stride, padding and dilation of the frozen layer in A."""
        if not torch.is_autocast_enabled(x.device.type):
            down, up = down.to(x.dtype), up.to(x.dtype)
        convolve = _CONVOLVE[down.ndim]
        down = down.repeat(base.groups, *(1 for _ in down.shape[1:])) if base.groups > 1 else down
        padding = base.padding
        if base.padding_mode != "zeros":
            x = F.pad(x, base._reversed_padding_repeated_twice, mode=base.padding_mode)
            padding = 0
        narrow = convolve(x, down, None, base.stride, padding, base.dilation, base.groups)
        return convolve(narrow, up, groups=base.groups)


def _is_plain_linear(base: nn.Module) -> bool:
    """Whether the layer computes x W^T + b and nothing else, as nothing has been hung on it."""
    return (
        type(base) is nn.Linear
        # torchao quantises the weight and leaves the layer as it is.
        and type(base.weight) is nn.Parameter
        # Libraries that move weights about put a `forward` of their own, or hooks, on the layer.
        and "forward" not in vars(base)
        and not base._forward_hooks
        and not base._forward_pre_hooks
        and not base._backward_hooks
        and not base._backward_pre_hooks
    )
