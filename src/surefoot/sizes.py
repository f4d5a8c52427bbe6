"""How many bytes a run will hold and write, from shapes alone. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.run import RunConfig
from surefoot.config.tuning import DoraConfig, FullConfig, LoraConfig, weights_dtype
from surefoot.formats.abilities import planned_formats
from surefoot.optim.facts import facts_of
from surefoot.optim.memory import WIDTHS, remembered_bytes
from surefoot.sheet import PlannedTensor

_FP32 = WIDTHS["fp32"]


@dataclass(frozen=True)
class Bytes:
    """Sizes in bytes.

    Attributes:
        trained: The trained tensors.
        gradients: Their gradients; the largest, where each is freed before the next.
        optimizer: What the optimizer remembers of them.
        ema: Their moving average.
        checkpoint: One checkpoint on disk.
        export: The files or the folder at the end.
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
    latent_numbers: int,
    model_bytes: int,
) -> Bytes:
    """The sizes of a run.

    Args:
        config: What was asked.
        tensors: What is trained.
        latent_numbers: Numbers in the latents of all pictures that are cached.
        model_bytes: Size of the whole model, which full fine-tuning writes anew.
    """
    dtype = weights_dtype(config.tuning)
    numbers = [tensor.numbers for tensor in tensors]
    trained = WIDTHS[dtype] * sum(numbers)
    optimizer = sum(
        remembered_bytes(config.optimizer, tensor.kind, tensor.shape, dtype) for tensor in tensors
    )
    ema = 0 if config.train.ema == "off" else _FP32 * sum(numbers)
    started = _started(config, tensors)
    # A checkpoint also holds the weights to show, where they are not the trained ones.
    shown = ema or (trained if facts_of(config.optimizer).averages else 0)
    whole_model = isinstance(config.tuning, FullConfig)
    formats = planned_formats(config.save.formats, config.tuning)
    return Bytes(
        trained=trained,
        gradients=WIDTHS[dtype]
        * (max(numbers, default=0) if _freed_at_once(config) else sum(numbers)),
        optimizer=optimizer,
        ema=ema,
        checkpoint=trained + started + optimizer + shown,
        export=model_bytes if whole_model else (trained + started) * len(formats),
        # Mean and standard deviation, fp32.
        cache=0 if config.data.cache == "off" else 2 * _FP32 * latent_numbers,
    )


def _started(config: RunConfig, tensors: Sequence[PlannedTensor]) -> int:
    """What adapters started from, where the files and the checkpoints hold it beside them."""
    tuning = config.tuning
    if not isinstance(tuning, LoraConfig | DoraConfig) or tuning.initialisation != "pissa":
        return 0
    return _FP32 * sum(item.numbers for item in tensors if item.kind in ("lora_up", "lora_down"))


def _freed_at_once(config: RunConfig) -> bool:
    """Whether each gradient is used and freed before the next is there."""
    optimizer = config.optimizer
    inside = isinstance(optimizer, AdafactorConfig) and optimizer.step_in_backward
    return inside and config.train.gradient_accumulation == 1
