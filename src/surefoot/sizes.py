"""How many bytes a run will hold and write, from shapes alone. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.config.run import RunConfig
from surefoot.config.tuning import FullConfig
from surefoot.optim.facts import facts_of
from surefoot.optim.memory import remembered_bytes
from surefoot.sheet import PlannedTensor

_FP32 = 4


@dataclass(frozen=True)
class Bytes:
    """Sizes in bytes.

    Attributes:
        trained: The trained tensors, in fp32.
        gradients: Their gradients.
        optimizer: What the optimizer remembers of them.
        ema: Their moving average.
        checkpoint: One checkpoint on disk.
        export: The file or folder at the end.
        cache: The cached latents.
    """

    trained: int
    gradients: int
    optimizer: int
    ema: int
    checkpoint: int
    export: int
    cache: int

    def needed_on_disk(self, keep: int) -> int:
        """Room the run takes: checkpoints (one more while writing), the export, the cache."""
        return self.checkpoint * (keep + 1) + self.export + self.cache


def bytes_of(
    config: RunConfig,
    tensors: Sequence[PlannedTensor],
    *,
    pictures: int,
    latent_numbers: int,
    model_bytes: int,
) -> Bytes:
    """The sizes of a run.

    Args:
        config: What was asked.
        tensors: What is trained.
        pictures: How many are cached.
        latent_numbers: Numbers in one picture's latents.
        model_bytes: Size of the base model in fp32, which full fine-tuning writes anew.
    """
    trained = _FP32 * sum(tensor.numbers for tensor in tensors)
    optimizer = sum(
        remembered_bytes(config.optimizer, tensor.kind, tensor.shape) for tensor in tensors
    )
    ema = 0 if config.train.ema == "off" else trained
    # A checkpoint also holds the weights to show, where they are not the trained ones.
    shown = trained if ema or facts_of(config.optimizer).averages else 0
    mirrored = 2 if config.data.flip else 1
    whole_model = isinstance(config.tuning, FullConfig)
    return Bytes(
        trained=trained,
        gradients=trained,
        optimizer=optimizer,
        ema=ema,
        checkpoint=trained + optimizer + shown,
        export=model_bytes if whole_model else trained,
        # Mean and standard deviation, fp32.
        cache=0 if config.data.cache == "off" else 2 * _FP32 * pictures * latent_numbers * mirrored,
    )
