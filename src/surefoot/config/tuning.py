"""How the weights may move: everything, or adapters, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Section

Part = Literal["unet", "text_encoder"]
Preset = Literal["attention", "attention+feed_forward", "linear", "all"]
WeightsDtype = Literal["fp32", "bf16"]
BaseWeights = Literal["fp32", "bf16", "nf4", "int8", "torchao_int8", "torchao_fp8"]
Rank = Annotated[int, Field(ge=1, le=4096)]
Alpha = Annotated[float, Field(gt=0)] | Literal["auto"]
Parts = Annotated[tuple[Part, ...], Field(min_length=1)]


class FullConfig(Section):
    """Every weight of the parts is trained."""

    kind: Literal["full"] = "full"
    """`full`: every weight is trained; the result is a whole model."""

    parts: Parts = ("unet",)
    """Which parts are trained: `unet`, `text_encoder`."""

    weights: WeightsDtype = "fp32"
    """`bf16`: the trained parts are kept in bfloat16, for half the memory of weights and gradients.
    Adafactor's `rounding` says what becomes of steps smaller than its digits."""


class AdapterConfig(Section):
    """What the adapters share."""

    parts: Parts = ("unet",)
    """Which parts get an adapter: `unet`, `text_encoder`."""

    base_weights: BaseWeights = "fp32"
    """What the frozen weights of those parts are kept in. `bf16`: half the memory. `nf4`, `int8`:
    the linear layers in 4 or 8 bits by bitsandbytes. `torchao_int8`, `torchao_fp8`: in 8 bits by
    torchao. What is trained stays fp32; docs/training.md has the errors that were measured."""

    rank: Rank = 16
    """Columns of the low-rank update."""

    alpha: Alpha = "auto"
    """The update is multiplied by alpha / rank. `auto` is the rank."""

    targets: Preset | Annotated[tuple[str, ...], Field(min_length=1)] = "attention+feed_forward"
    """A preset, or patterns of module names such as `["attn2.to_k", "*.ff.net.2"]`."""

    rank_pattern: dict[str, Rank] = Field(default_factory=dict)
    """Other ranks by patterns as in `targets`, such as `{ "attn2.*" = 32 }`; the first that
    matches a layer counts."""

    alpha_pattern: dict[str, Alpha] = Field(default_factory=dict)
    """Other alphas, likewise."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' inputs that are zeroed at each training step; the frozen layers get
    all of theirs."""

    rslora: bool = False
    """Multiply the update by alpha / sqrt(rank) instead (Kalajdzievski 2023), so that a high rank
    does not learn more slowly."""

    max_norm: Annotated[float, Field(gt=0)] | Literal["off"] = "off"
    """Largest Frobenius norm of an update, alpha / rank included: after each step what is larger is
    scaled back. sd-scripts calls it `scale_weight_norms`, and 1.0 is usual there."""


Initialisation = Literal["kaiming", "gaussian", "pissa"]


class TwoFactorsConfig(AdapterConfig):
    """What LoRA and DoRA share."""

    initialisation: Initialisation = "kaiming"
    """What the factors start from. `kaiming`: `lora_down` as the LoRA authors draw it, `lora_up` at
    zero. `gaussian`: `lora_down` with a deviation of 1 / rank, as diffusers' scripts. `pissa`: both
    from the largest singular values of the weight (Meng et al. 2024), which are taken off again, so
    that it starts as the others do; the file has twice the rank."""


class LoraConfig(TwoFactorsConfig):
    """LoRA (Hu et al. 2021): W + (alpha / rank) * lora_up @ lora_down."""

    kind: Literal["lora"] = "lora"
    """`lora`: a low-rank update; a small file."""


class DoraConfig(TwoFactorsConfig):
    """DoRA (Liu et al. 2024): LoRA on the direction of each row, and its length on its own."""

    kind: Literal["dora"] = "dora"
    """`dora`: LoRA with a trained length for each row of each weight."""

    norm_axis: Literal["output", "input"] = "output"
    """What has a length: each output, as in the paper, PEFT and diffusers, or each input, as in
    OneTrainer unless told otherwise."""


class LohaConfig(AdapterConfig):
    """LoHa (Hyeon-Woo et al. 2022): (alpha / rank) * (B1 A1) * (B2 A2), number by number."""

    kind: Literal["loha"] = "loha"
    """`loha`: as many numbers as LoRA of twice the rank, and updates of a far higher one."""


class LokrConfig(AdapterConfig):
    """LoKr (Edalati et al. 2022): a small matrix times a larger one, as a Kronecker product."""

    kind: Literal["lokr"] = "lokr"
    """`lokr`: the smallest files; the larger matrix has the rank, or is whole where that is no
    larger."""

    factor: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    """Size of the small matrix, as far as the layer can be divided by it. `auto`: as large as it
    can be, for the fewest numbers (LyCORIS's -1)."""

    decompose_both: bool = False
    """The small matrix is of low rank too, where that saves something."""


TUNING_NAMES = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}
"""What the adapters are called, by their `kind`."""

AnyAdapterConfig = LoraConfig | DoraConfig | LohaConfig | LokrConfig
TuningConfig = Annotated[FullConfig | AnyAdapterConfig, Field(discriminator="kind")]


QUANTISED_BY = {
    "nf4": "bitsandbytes",
    "int8": "bitsandbytes",
    "torchao_int8": "torchao",
    "torchao_fp8": "torchao",
}
"""Kinds of `base_weights` that a library makes, and which."""


def base_weights(tuning: TuningConfig) -> BaseWeights:
    """What frozen weights are kept in; nothing of a trained part is frozen in full fine-tuning."""
    return "fp32" if isinstance(tuning, FullConfig) else tuning.base_weights


def weights_dtype(tuning: TuningConfig) -> WeightsDtype:
    """What trained weights are kept in; adapters are small, and always fp32."""
    return tuning.weights if isinstance(tuning, FullConfig) else "fp32"
