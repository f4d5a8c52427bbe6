"""What is known about each family without loading it: one row each. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FamilyName = Literal["sd15"]
Prediction = Literal["epsilon", "v_prediction"]

_ATTENTION = tuple(
    f"{block}.{projection}"
    for block in ("attn1", "attn2")
    for projection in ("to_q", "to_k", "to_v", "to_out.0")
)
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_CLIP_ATTENTION = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
_CLIP_FEED_FORWARD = ("mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class PartFacts:
    """One trainable part.

    Attributes:
        single_file_prefix: In front of its names in an original checkpoint.
        presets: The module names that each preset of `tuning.targets` takes. `linear` and `all`
            name everything and are narrowed by the weight's dimensions.
    """

    single_file_prefix: str
    presets: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class FamilyFacts:
    """One family.

    Attributes:
        pipelines: What its diffusers folders may say they are, in model_index.json.
        components: Folders that a diffusers model must have.
        parts: What can be trained.
        latent_channels: Channels of the latents.
        single_file_config: Hub id of the configs for an original checkpoint.
        adapter_lr: Customary absolute learning rate of adapters.
        full_lr: Customary absolute learning rate of full fine-tuning.
    """

    pipelines: tuple[str, ...]
    components: tuple[str, ...]
    parts: dict[str, PartFacts]
    latent_channels: int
    single_file_config: str
    adapter_lr: float
    full_lr: float


def _presets(
    attention: tuple[str, ...], feed_forward: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    return {
        "attention": attention,
        "attention+feed_forward": attention + feed_forward,
        "linear": ("*",),
        "all": ("*",),
    }


FAMILIES: dict[FamilyName, FamilyFacts] = {
    "sd15": FamilyFacts(
        pipelines=("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
        components=("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
        parts={
            "unet": PartFacts("model.diffusion_model.", _presets(_ATTENTION, _FEED_FORWARD)),
            "text_encoder": PartFacts(
                "cond_stage_model.transformer.", _presets(_CLIP_ATTENTION, _CLIP_FEED_FORWARD)
            ),
        },
        latent_channels=4,
        single_file_config="stable-diffusion-v1-5/stable-diffusion-v1-5",
        adapter_lr=1e-4,
        full_lr=1e-5,
    ),
}
