"""The optimizers, one section each, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    AdanConfig,
    CameConfig,
    DAdaptationConfig,
    LionConfig,
    MuonConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
    ProdigyPlusConfig,
    RatedSection,
    ScheduleFreeAdamWConfig,
    SoapConfig,
    StableAdamWConfig,
)


class AdafactorConfig(RatedSection):
    """Adafactor (Shazeer & Stern 2018)."""

    kind: Literal["adafactor"] = "adafactor"
    """`adafactor`: little memory; with `scale_parameter = "weight"` one rate serves all tunings."""

    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = "auto"
    """Learning rate. `auto` is 1e-2 where it is relative to the weights, else a customary value."""

    scale_parameter: bool | Literal["weight"] = "weight"
    """`true`: each step is multiplied by the tensor's own RMS, which leaves a fresh LoRA or DoRA
    unable to learn. `false`: never. `"weight"`: by the layer that the tensor changes."""

    relative_step: bool = False
    """Replace the learning rate by min(1e-2, 1/sqrt(t)) at step t."""

    warmup_init: bool = False
    """With `relative_step`: begin at 1e-6 and add 1e-6 a step."""

    clip_threshold: Annotated[float, Field(gt=0)] = 1.0
    """An update whose RMS exceeds this is scaled down to it."""

    decay_rate: Annotated[float, Field(lt=0)] = -0.8
    """The second moment's decay at step t is 1 - t^decay_rate."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum; 0 for none, which saves its memory."""

    eps1: Annotated[float, Field(ge=1e-30)] = 1e-30
    """Added to each squared gradient; with 0, a gradient of 0 would give NaN."""

    eps2: Annotated[float, Field(ge=0)] = 1e-3
    """The floor under a tensor's own RMS."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay, multiplied by the scaled learning rate."""

    rounding: Literal["stochastic", "kahan", "nearest"] = "stochastic"
    """How weights in bf16 take a step smaller than their digits. `stochastic`: by chance, right on
    average. `kahan`: added up until it shows, in 2 more bytes a weight. `nearest`: not at all."""

    step_in_backward: bool = False
    """Step each tensor as soon as its gradient is there, and free that: gradients are never in
    memory all at once."""


class AdamWConfig(RatedSection):
    """AdamW (Loshchilov & Hutter 2019), torch's fused kernel."""

    kind: Literal["adamw"] = "adamw"
    """`adamw`: the common choice; two numbers of memory for each weight."""

    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] = "auto"
    """Learning rate, absolute. `auto`: 1e-4 for adapters, 1e-5 for full fine-tuning."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean of the gradients."""

    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the mean of the squared gradients."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""


OptimizerConfig = Annotated[
    AdafactorConfig
    | AdamWConfig
    | AdamW8bitConfig
    | LionConfig
    | CameConfig
    | StableAdamWConfig
    | AdanConfig
    | MuonConfig
    | SoapConfig
    | ProdigyConfig
    | DAdaptationConfig
    | ScheduleFreeAdamWConfig
    | ProdigyPlusConfig
    | NamedOptimizerConfig,
    Field(discriminator="kind"),
]
