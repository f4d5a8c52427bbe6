"""The loop: the section `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import DEVICE, Off, Positive, Section


class TrainConfig(Section):
    """The loop."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """Optimizer steps, at most a million."""

    batch_size: Positive = 1
    """Pictures in one forward pass."""

    gradient_accumulation: Positive = 1
    """Forward passes in one step; the pictures of a step are this times `batch_size`."""

    clip_grad_norm: Annotated[float, Field(gt=0)] | Off = "off"
    """Largest norm of all gradients together. Adafactor clips its updates itself."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """`bf16`: the forward pass in bfloat16; trained weights stay as `tuning` has them. `fp16`: in
    float16, with a factor on the loss that follows its narrow range; for GPUs without bfloat16."""

    gradient_checkpointing: bool = False
    """Compute activations twice to hold fewer of them."""

    offload: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the UNet's blocks whose frozen weights stay in main memory and go to the device
    while their block computes: less memory there, slower steps. For adapters, with
    `gradient_checkpointing`."""

    ema: Annotated[float, Field(gt=0, lt=1)] | Off = "off"
    """Decay of a moving average of the trained weights, which is then what is exported. After n
    steps it is at most (1 + n) / (10 + n), so that a short run is not left behind."""

    ema_device: Literal["same", "cpu"] = "same"
    """`cpu`: keep the average in main memory, for its size in memory of the device; slower."""

    device: Annotated[str, Field(pattern=DEVICE)] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
