"""What all adapters share: a frozen layer with a trainable update beside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot.optim.frozen_weight import frozen_weight
from surefoot.tuning.delta import adapted_weight, weight_delta

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
AdaptableLayer = nn.Linear | Convolution


class TuningError(Exception):
    """The model cannot be tuned as asked. The message says what, where and how to mend it."""


def shape_of(base: AdaptableLayer) -> tuple[int, ...]:
    """(out, in / groups, *kernel) of a layer, also where the weight is stored in another form."""
    if isinstance(base, nn.Linear):
        return base.out_features, base.in_features
    return base.out_channels, base.in_channels // base.groups, *base.kernel_size


class AdapterLayer(nn.Module, ABC):
    """A frozen linear or convolution layer and the adapter that is trained on top of it.

    It takes the place of the layer in the model and answers for the attributes that diffusers and
    transformers read there. The adapter is float32 whatever the layer's own dtype, since steps of
    1e-4 are lost in bfloat16; the output has the dtype of the layer's output.

    Attributes:
        path: Dotted, from the part on, e.g. `unet.mid_block.attentions.0.proj_in`.
        base: The frozen layer.
        alpha: The update is scaled by `alpha / rank`.
        rank: Inner width of the update.
        dropout: Share of the adapter's inputs that are zeroed in training; the frozen layer gets
            all of them.
        enabled: With False the layer answers as if it had no adapter.
        as_lora: By what Adafactor's weight rule takes the layer to be larger (`scaling.as_lora`).
        merged: The adapter is in the frozen weight (see `merging`), and is not computed beside it.
    """

    def __init__(
        self, path: str, base: AdaptableLayer, *, rank: int, alpha: float, dropout: float = 0.0
    ) -> None:
        """Freeze `base`."""
        super().__init__()
        self.path = path
        self.base: AdaptableLayer = base.requires_grad_(False)
        self.alpha = alpha
        self.rank = rank
        self.dropout = dropout
        self.enabled = True
        self.merged = False
        self.as_lora = 1.0

    @property
    def scale(self) -> float:
        """The factor on the update."""
        return self.alpha / self.rank

    @property
    def fan_in(self) -> int:
        """Inputs of the layer, kernel included."""
        return math.prod(self.weight_shape[1:])

    @property
    def weight(self) -> Tensor:
        """The frozen weight, as the layer stores it."""
        return self.base.weight

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out, in / groups, *kernel), also where the weight is stored in another form."""
        return shape_of(self.base)

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
        return self.adapted(x) if self.enabled and not self.merged else self.base(x)

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """The output of the tuned layer."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything the adapter consists of, by its own names (see `formats.leaves`)."""

    def delta(self) -> Tensor:
        """The update of the weight, (out, in / groups, *kernel), float32; DoRA's gain left out."""
        return weight_delta(self.state(), self.weight_shape)

    def delta_norm(self) -> Tensor:
        """The Frobenius norm of `delta`, one number."""
        return torch.linalg.vector_norm(self.delta())

    def factors(self) -> list[nn.Parameter]:
        """The tensors whose product the update is; DoRA's magnitude is none of them."""
        own = self.named_parameters(recurse=False)
        return [parameter for name, parameter in own if name != "magnitude"]

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """The weight of a plain layer that answers as this one does, float32.

        Raises:
            ValueError: What the frozen weight is stored as cannot be read.
        """
        state = self.state()
        device = next(self.parameters(recurse=False)).device  # the frozen weight may be elsewhere
        return adapted_weight(self.frozen_weight().to(device), state)

    def frozen_weight(self) -> Tensor:
        """The frozen weight in numbers, (out, in / groups, *kernel); a quantised one is a copy.

        Raises:
            ValueError: What it is stored as cannot be read.
        """
        return frozen_weight(self.base, "weight")

    def dropped(self, x: Tensor) -> Tensor:
        """What the adapter gets of the layer's input."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _linear(self, attribute: str) -> nn.Linear:
        if not isinstance(self.base, nn.Linear):
            raise AttributeError(f"A convolution has no {attribute}.")
        return self.base

    def _convolution(self, attribute: str) -> Convolution:
        if isinstance(self.base, nn.Linear):
            raise AttributeError(f"A linear layer has no {attribute}.")
        return self.base
