"""What a tuning hands to the optimizer, the preview and the export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surefoot.optim.scaling import TensorKind
from surefoot.tuning.layers import AdapterLayer


@dataclass(frozen=True)
class Trainable:
    """One trained tensor and what the optimizer must know about it.

    Attributes:
        name: Unique and dotted, from the part on, e.g. `unet.conv_in.lora_down`.
        parameter: The tensor itself, as the model holds it.
        kind: What it is.
        weight_rms: RMS of the frozen weight of the layer for adapters; its own at the start for
            full fine-tuning. What is zero counts as drawn by torch (`usual_rms`).
        fan_in: Inputs of that layer, kernel included; 0 outside adapters.
        alpha: LoRA's alpha; 1.0 outside adapters.
        rank: LoRA's rank; 0 outside adapters.
    """

    name: str
    parameter: nn.Parameter
    kind: TensorKind
    weight_rms: float
    fan_in: int
    alpha: float
    rank: int


@dataclass(frozen=True)
class Tuned:
    """A model made ready for training.

    Attributes:
        trainables: Everything that moves.
        layers: The layers that carry an adapter; none in full fine-tuning.
    """

    trainables: tuple[Trainable, ...]
    layers: tuple[AdapterLayer, ...]

    def adapters(self) -> dict[str, Tensor]:
        """Adapters by canonical names, as `formats.leaves` reads them; not copied."""
        return {
            f"{layer.path}.{name}": tensor
            for layer in self.layers
            for name, tensor in layer.state().items()
        }

    def starts(self) -> dict[str, Tensor]:
        """Tensors that are not trained but belong to the adapters as they were made, by name.

        What an adapter started from, where it is not zero: another decomposition of the same weight
        may come out otherwise in the last digit, so that a checkpoint keeps it.
        """
        return {
            f"{layer.path}.{name}": buffer
            for layer in self.layers
            for name, buffer in layer.named_buffers(recurse=False)
            if name.startswith("start_")
        }

    def weights_changed(self) -> None:
        """Say that the trained tensors may hold other numbers, after a write unknown to torch.

        What is computed from them once, such as DoRA's norms, is computed anew when it is next
        needed. Compiled kernels and libraries that write to `.data` leave no trace themselves.
        """
        torch.autograd.graph.increment_version([item.parameter for item in self.trainables])


@contextmanager
def disabled(tuned: Tuned) -> Iterator[None]:
    """Let the model answer without its adapters; afterwards each is as it was before.

    Of no effect after full fine-tuning, which leaves no untrained model to go back to.
    """
    before = [layer.enabled for layer in tuned.layers]
    try:
        for layer in tuned.layers:
            layer.enabled = False
        yield
    finally:
        for layer, enabled in zip(tuned.layers, before, strict=True):
            layer.enabled = enabled
