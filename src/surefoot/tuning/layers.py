"""What LoRA and DoRA share: a frozen layer with a trainable low-rank update beside it.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1): W x becomes W x + (alpha / rank) B A x, with
`lora_down` for A and `lora_up` for B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AdaptableLayer = nn.Linear | nn.Conv2d


class TuningError(Exception):
    """The model cannot be tuned as asked. The message says what, where and how to mend it."""


class AdapterLayer(nn.Module, ABC):
    """A frozen linear or convolution layer and the adapter that is trained on top of it.

    It takes the place of the layer in the model and answers for the attributes that diffusers and
    transformers read there. The adapter is float32 whatever the layer's own dtype, since steps of
    1e-4 are lost in bfloat16; the output has the dtype of the layer's output.

    Attributes:
        path: Dotted, from the part on, e.g. `unet.mid_block.attentions.0.proj_in`.
        base: The frozen layer.
        alpha: The update is scaled by `alpha / rank`.
        rank: Rows of `lora_down`, columns of `lora_up`.
        enabled: With False the layer answers as if it had no adapter.
        lora_down: A, (rank, in) or (rank, in, height, width) of the kernel.
        lora_up: B, (out, rank) or (out, rank, 1, 1).
    """

    def __init__(
        self,
        path: str,
        base: AdaptableLayer,
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        """Freeze `base`; draw `lora_down` from the generator, on whose device it is drawn."""
        super().__init__()
        self.path = path
        self.base: AdaptableLayer = base.requires_grad_(False)
        self.alpha = alpha
        self.rank = rank
        self.enabled = True
        weight = base.weight
        down = torch.empty(rank, *weight.shape[1:], device=generator.device)
        # As in the authors' code: uniform within 1 / sqrt(fan in), hence RMS 1 / sqrt(3 fan in).
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        up = torch.zeros(weight.shape[0], rank, *(1 for _ in weight.shape[2:]))
        self.lora_down = nn.Parameter(down.to(weight.device))
        self.lora_up = nn.Parameter(up.to(weight.device))
        self.train(base.training)

    @property
    def scale(self) -> float:
        """The factor on B A."""
        return self.alpha / self.rank

    @property
    def fan_in(self) -> int:
        """Inputs of the layer, kernel included."""
        return self.lora_down[0].numel()

    @property
    def weight(self) -> Tensor:
        """The frozen weight."""
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias, None where the layer has none."""
        return self.base.bias

    @property
    def in_features(self) -> int:
        """Width of the input of a linear layer."""
        return self._linear("in_features").in_features

    @property
    def out_features(self) -> int:
        """Width of the output of a linear layer."""
        return self._linear("out_features").out_features

    @property
    def in_channels(self) -> int:
        """Channels of the input of a convolution."""
        return self._convolution("in_channels").in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output of a convolution."""
        return self._convolution("out_channels").out_channels

    @final
    def forward(self, x: Tensor) -> Tensor:
        """The output of the tuned layer, or of the frozen one while `enabled` is False."""
        # The frozen layer is called as a module, so that offloading hooks on it keep working.
        output = self.base(x)
        if not self.enabled:
            return output
        return self.combine(output, self._update(x).to(output.dtype))

    @abstractmethod
    def combine(self, output: Tensor, update: Tensor) -> Tensor:
        """Join the frozen layer's output, bias included, with (alpha / rank) B A x."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything the adapter consists of, by its own names (see `formats.names`)."""

    def _factors(self) -> dict[str, Tensor]:
        return {
            "lora_down": self.lora_down.detach(),
            "lora_up": self.lora_up.detach(),
            "alpha": torch.tensor(self.alpha, dtype=torch.float64),
        }

    def _update(self, x: Tensor) -> Tensor:
        """(alpha / rank) B A x, in float32 or in the dtype of the autocast region."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_down.dtype)
        # The scale goes on the narrow tensor: rank columns instead of the layer's width.
        if isinstance(self.base, nn.Linear):
            return F.linear(F.linear(x, self.lora_down) * self.scale, self.lora_up)
        base = self.base
        narrow = F.conv2d(
            x, self.lora_down, None, base.stride, base.padding, base.dilation, base.groups
        )
        return F.conv2d(narrow * self.scale, self.lora_up)

    def _linear(self, attribute: str) -> nn.Linear:
        if not isinstance(self.base, nn.Linear):
            raise AttributeError(f"A convolution has no {attribute}.")
        return self.base

    def _convolution(self, attribute: str) -> nn.Conv2d:
        if not isinstance(self.base, nn.Conv2d):
            raise AttributeError(f"A linear layer has no {attribute}.")
        return self.base
