"""The optimizers that libraries bring; `optim/external.py` builds them.

Defaults are those of the methods' authors, so that a recipe from elsewhere means the same here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Section
from surefoot.config.tuning import Part

Rate = Annotated[float, Field(gt=0, le=10)] | Literal["auto"]
Decay = Annotated[float, Field(ge=0, lt=1)]
Small = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class RatedSection(Section):
    """What the optimizers share."""

    part_lr: dict[Part, Annotated[float, Field(gt=0, le=10)]] = Field(
        default_factory=dict[Part, float]
    )
    """Learning rates of single parts instead of `lr`, such as `{ text_encoder = 5e-5 }`. The
    schedule multiplies all alike."""


class AdamW8bitConfig(RatedSection):
    """AdamW with its memory in 8 bits (Dettmers et al. 2022), of bitsandbytes."""

    kind: Literal["adamw_8bit"] = "adamw_8bit"
    """`adamw_8bit`: AdamW with a quarter of its memory; small tensors keep theirs in 32 bits."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: that of `adamw`."""

    beta1: Decay = 0.9
    """Decay of the mean of the gradients."""

    beta2: Decay = 0.999
    """Decay of the mean of the squared gradients."""

    eps: Small = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Share = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""

    min_8bit_size: Count = 4096
    """A tensor of fewer numbers keeps its memory in 32 bits."""


class LionConfig(RatedSection):
    """Lion (Chen et al. 2023): the sign of a momentum."""

    kind: Literal["lion"] = "lion"
    """`lion`: every number moves by exactly the learning rate; one number of memory."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: a fifth of that of `adamw`."""

    beta1: Decay = 0.9
    """Share of the momentum in what the sign is taken of."""

    beta2: Decay = 0.99
    """Decay of the momentum."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the learning rate; 3 to 10 times that of AdamW."""


class CameConfig(RatedSection):
    """CAME (Luo et al. 2023): Adafactor with momentum, trusted where it is steady."""

    kind: Literal["came"] = "came"
    """`came`: memory of little more than the momentum; steps of several learning rates at first."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: half of that of `adamw`."""

    beta1: Decay = 0.9
    """Decay of the momentum."""

    beta2: Decay = 0.999
    """Decay of the mean of the squared gradients."""

    beta3: Decay = 0.9999
    """Decay of the mean of the squared distances between update and momentum."""

    eps1: Small = 1e-30
    """Added to each squared gradient."""

    eps2: Small = 1e-16
    """Added to each squared distance."""

    clip_threshold: Small = 1.0
    """An update whose RMS exceeds this is scaled down to it."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the learning rate."""


class StableAdamWConfig(RatedSection):
    """StableAdamW (Wortsman et al. 2023): AdamW whose updates are clipped as Adafactor's."""

    kind: Literal["stable_adamw"] = "stable_adamw"
    """`stable_adamw`: AdamW that needs no clipping of gradients."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: that of `adamw`."""

    beta1: Decay = 0.9
    """Decay of the mean of the gradients."""

    beta2: Decay = 0.99
    """Decay of the mean of the squared gradients."""

    eps: Small = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Share = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""


class AdanConfig(RatedSection):
    """Adan (Xie et al. 2022): Nesterov momentum from differences of gradients."""

    kind: Literal["adan"] = "adan"
    """`adan`: takes larger learning rates than AdamW; four numbers of memory for each weight."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: five times that of `adamw`."""

    beta1: Decay = 0.98
    """Decay of the mean of the gradients."""

    beta2: Decay = 0.92
    """Decay of the mean of their differences."""

    beta3: Decay = 0.99
    """Decay of the mean of the squared look-ahead gradients."""

    eps: Small = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the learning rate."""


class MuonConfig(RatedSection):
    """Muon (Jordan et al. 2024), its steps sized to AdamW's (Liu et al. 2025)."""

    kind: Literal["muon"] = "muon"
    """`muon`: matrices take steps in all directions alike; vectors and embeddings take AdamW's."""

    lr: Rate = "auto"
    """Learning rate of all tensors: a matrix moves by 0.2 lr per element. `auto`: as `adamw`."""

    momentum: Decay = 0.95
    """Decay of the matrices' momentum."""

    nesterov: bool = True
    """Look ahead along the momentum."""

    ns_steps: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations that make a momentum orthogonal."""

    beta1: Decay = 0.9
    """For tensors that are no matrices: decay of the mean of the gradients."""

    beta2: Decay = 0.95
    """For tensors that are no matrices: decay of the mean of the squared gradients."""

    eps: Small = 1e-10
    """For tensors that are no matrices: added to the root of the second moment."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the learning rate."""


class SoapConfig(RatedSection):
    """SOAP (Vyas et al. 2024): Adam in the eigenbasis of Shampoo."""

    kind: Literal["soap"] = "soap"
    """`soap`: fewer steps for more work; four square matrices of memory for each weight matrix."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: that of `adamw`. The first step only looks."""

    beta1: Decay = 0.95
    """Decay of the mean of the gradients."""

    beta2: Decay = 0.95
    """Decay of the mean of the squared gradients, and of the matrices."""

    eps: Small = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Share = 0.01
    """Decoupled weight decay, multiplied by the learning rate."""

    precondition_frequency: Annotated[int, Field(ge=1)] = 10
    """Steps between two updates of the eigenbasis."""

    max_precondition_dim: Annotated[int, Field(ge=1)] = 10_000
    """A side longer than this gets no matrix."""


class ProdigyConfig(RatedSection):
    """Prodigy (Mishchenko & Defazio 2023): AdamW that finds its own learning rate."""

    kind: Literal["prodigy"] = "prodigy"
    """`prodigy`: finds the learning rate d while it trains; four numbers of memory."""

    lr: Rate = "auto"
    """A factor on what it finds, not a learning rate. `auto`: 1, and it should stay 1."""

    beta1: Decay = 0.9
    """Decay of the mean of the gradients."""

    beta2: Decay = 0.999
    """Decay of the mean of the squared gradients."""

    beta3: Decay | Literal["auto"] = "auto"
    """Decay of the averages that d is made of. `auto`: the square root of beta2."""

    eps: Small = 1e-8
    """Added, times d, to the root of the second moment."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the real learning rate, d * lr."""

    d0: Small = 1e-6
    """Where d starts. It only grows."""

    d_coef: Small = 1.0
    """A factor on d: the way to tune it, 0.5 to 2."""

    growth_rate: Annotated[float, Field(gt=1)] | Literal["off"] = "off"
    """The most by which d is multiplied in one step; `off` for no limit, 1.02 is a warm-up."""

    bias_correction: bool = False
    """Adam's correction of its means for the start from zero."""

    safeguard_warmup: bool = False
    """Keep a warm-up of the schedule from making d too large."""


class DAdaptationConfig(RatedSection):
    """D-Adaptation for Adam (Defazio & Mishchenko 2023): Prodigy's forerunner."""

    kind: Literal["d_adaptation"] = "d_adaptation"
    """`d_adaptation`: finds its learning rate, more slowly than `prodigy`; three numbers."""

    lr: Rate = "auto"
    """A factor on what it finds, not a learning rate. `auto`: 1, and it should stay 1."""

    beta1: Decay = 0.9
    """Decay of the mean of the gradients."""

    beta2: Decay = 0.999
    """Decay of the mean of the squared gradients."""

    eps: Small = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the real learning rate, d * lr."""

    d0: Small = 1e-6
    """Where d starts. It only grows."""

    growth_rate: Annotated[float, Field(gt=1)] | Literal["off"] = "off"
    """The most by which d is multiplied in one step; `off` for no limit."""


class ScheduleFreeAdamWConfig(RatedSection):
    """Schedule-free AdamW (Defazio et al. 2024): an average instead of a schedule."""

    kind: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    """`schedule_free_adamw`: may be stopped at any step; without a `[schedule]` it is constant."""

    lr: Rate = "auto"
    """Learning rate, absolute. `auto`: three times that of `adamw`."""

    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """How near to the average the gradient is taken."""

    beta2: Decay = 0.999
    """Decay of the mean of the squared gradients."""

    eps: Small = 1e-8
    """Added to the root of the second moment."""

    weight_decay: Share = 0.0
    """Weight decay, taken where the gradient is taken."""

    r: Share = 0.0
    """The average weighs step t by t^r."""

    weight_lr_power: Share = 2.0
    """The average weighs a step by the largest learning rate so far to this power."""


class ProdigyPlusConfig(RatedSection):
    """Prodigy and schedule-free in one (LoganBooker's prodigy-plus-schedule-free, version 2)."""

    kind: Literal["prodigy_plus"] = "prodigy_plus"
    """`prodigy_plus`: neither learning rate nor schedule; without a `[schedule]` it is constant."""

    lr: Rate = "auto"
    """A factor on what it finds, not a learning rate. `auto`: 1, and it should stay 1."""

    beta1: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """How near to the average the gradient is taken."""

    beta2: Decay = 0.99
    """Decay of the mean of the squared gradients."""

    beta3: Decay | Literal["auto"] = "auto"
    """Decay of the averages that d is made of. `auto`: the square root of beta2."""

    eps: Small = 1e-8
    """Added, times d, to the root of the second moment."""

    weight_decay: Share = 0.0
    """Decoupled weight decay, multiplied by the real learning rate, d * lr."""

    d0: Small = 1e-6
    """Where d starts. It only grows."""

    d_coef: Small = 1.0
    """A factor on d: the way to tune it, 0.5 to 2."""

    d_limiter: bool = True
    """Let d grow by at most a fifth in one step."""

    prodigy_steps: Count = 0
    """After this many steps d stays as it is; 0: never."""

    schedulefree_c: Share = 0.0
    """Larger: a shorter average, 6 to 12 in short runs; 0: that of schedule-free."""

    split_groups: bool = True
    """A d for each kind of tensor; false: one for all."""

    factored: bool = True
    """Keep the second moment of a matrix as rows and columns."""

    use_stableadamw: bool = True
    """Scale an update of too large an RMS down, in place of clipping gradients."""

    use_bias_correction: bool = False
    """Correct for the start from zero; d is then found later."""

    use_speed: bool = False
    """Experimental: find d from progress instead."""


Argument = bool | int | float | str | tuple[int | float | bool, ...]


class NamedOptimizerConfig(RatedSection):
    """Any optimizer of pytorch-optimizer, by the name of its class."""

    kind: Literal["pytorch_optimizer"] = "pytorch_optimizer"
    """`pytorch_optimizer`: a class of that library by name, with arguments of one's own."""

    name: Annotated[str, Field(min_length=1)]
    """The class, such as `AdaBelief`; the library's own list is what may stand here."""

    lr: Rate = "auto"
    """Learning rate. `auto`: that of `adamw`, or 1 for those that find their own."""

    arguments: dict[str, Argument] = Field(default_factory=dict)
    """What its class takes, such as `{ betas = [0.9, 0.95] }`; compared with the class before."""


def averages_itself(section: Mapping[str, object]) -> bool:
    """Whether the weights that an optimizer shows are an average that it keeps.

    Args:
        section: The `[optimizer]` of a run.toml, as read or as written by a config.
    """
    kind, name = section.get("kind"), str(section.get("name", ""))
    if kind == "pytorch_optimizer":
        return name == "SPlus" or name.startswith("ScheduleFree")
    return kind in ("schedule_free_adamw", "prodigy_plus")
