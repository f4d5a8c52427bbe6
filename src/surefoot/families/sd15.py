"""Stable Diffusion 1.x and 2.x: a UNet with cross-attention to one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
)
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from surefoot.families.family import Posterior
from surefoot.objective.noise import NoiseSchedule


class StableDiffusion:
    """A loaded Stable Diffusion 1.x or 2.x."""

    def __init__(self, pipeline: StableDiffusionPipeline, device: torch.device) -> None:
        """Takes over a pipeline; `load` makes one."""
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(device)
        self._pipeline = pipeline
        self._device = device
        self._vae: AutoencoderKL = pipeline.vae.eval()
        self._unet: UNet2DConditionModel = pipeline.unet
        self._text_encoder: CLIPTextModel = pipeline.text_encoder
        self._tokenizer: CLIPTokenizer = pipeline.tokenizer
        self._scaling_factor = float(self._vae.config["scaling_factor"])
        scheduler = pipeline.scheduler
        self._schedule = NoiseSchedule(
            scheduler.alphas_cumprod.float().cpu(), scheduler.config["prediction_type"]
        )

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The UNet and the text encoder."""
        return {"unet": self._unet, "text_encoder": self._text_encoder}

    @property
    def noise_schedule(self) -> NoiseSchedule:
        """The discrete schedule of the model's scheduler config."""
        return self._schedule

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Posterior:
        """Pixels `(B, 3, H, W)` in [-1, 1] to latents `(B, 4, H/8, W/8)`, scaled."""
        pixels = pixels.to(self._device, self._vae.dtype)
        posterior = self._vae.encode(pixels, return_dict=False)[0]
        factor = self._scaling_factor
        return Posterior(posterior.mean.float() * factor, posterior.std.float() * factor)

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """The last hidden states `(B, L, D)`, padded to the tokenizer's length."""
        tokens = self._tokenizer(
            list(captions),
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self._text_encoder(tokens.to(self._device)).last_hidden_state

    def denoise(self, noisy: Tensor, timestep: Tensor, conditioning: Tensor) -> Tensor:
        """The UNet's answer: noise, or v for a v-prediction model."""
        # Not the network's own word for it, which may be that of an adapter.
        dtype = self._unet.conv_in.weight.dtype
        return self._unet(noisy.to(dtype), timestep, conditioning.to(dtype)).sample

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        *,
        resolution: int,
        steps: int,
        guidance: float,
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """One picture for each prompt, by diffusers' own pipeline and the model's scheduler."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        side = resolution // self._pipeline.vae_scale_factor
        shape = (len(prompts), int(self._unet.config["in_channels"]), side, side)
        # In fp32 whatever the weights are: the pipeline would draw other numbers in bfloat16.
        latents = randn_tensor(shape, generator=generators, device=self._device)
        mixed = any(
            parameter.dtype in (torch.bfloat16, torch.float16)
            for part in (self._unet, self._text_encoder)
            for parameter in part.parameters()
        )
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
            pictures, _ = self._pipeline(
                list(prompts),
                height=resolution,
                width=resolution,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                latents=latents,
                return_dict=False,
            )
        return cast(list[Image.Image], pictures)

    def vae_weights(self) -> dict[str, Tensor]:
        """The autoencoder's weights, and the factor on its latents."""
        factor = torch.tensor(self._scaling_factor)
        return {**self._vae.state_dict(), "scaling_factor": factor}

    def blocks(self) -> list[nn.Module]:
        """The UNet's residual and transformer blocks."""
        kinds = ResnetBlock2D, BasicTransformerBlock
        parts = self._unet.down_blocks, self._unet.mid_block, self._unet.up_blocks
        return [item for part in parts for item in part.modules() if isinstance(item, kinds)]

    def enable_gradient_checkpointing(self) -> None:
        """Both trained parts compute activations twice."""
        self._unet.enable_gradient_checkpointing()
        self._text_encoder.activation_checkpointing_enable({"use_reentrant": False})

    def save(self, folder: str) -> None:
        """Writes a diffusers folder, safetensors only."""
        self._pipeline.save_pretrained(folder, safe_serialization=True)


def load(
    path: Path,
    *,
    single_file: bool,
    config: str,
    prediction: str,
    device: torch.device,
    zero_terminal_snr: bool = False,
) -> StableDiffusion:
    """Loads a diffusers folder or an original checkpoint, in fp32.

    Args:
        path: The folder or file.
        single_file: Whether it is an original checkpoint.
        config: For a single file: folder or hub id of its configs and tokenizer.
        prediction: Written into the scheduler, so that previews agree with training.
        device: Where the model goes.
        zero_terminal_snr: Whether its last noise level has no signal; written there too.
    """
    if single_file:
        pipeline = StableDiffusionPipeline.from_single_file(
            str(path), config=config, dtype=torch.float32, safety_checker=None
        )
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            local_files_only=True,
        )
    pipeline.scheduler = _scheduler(pipeline.scheduler, prediction, zero_terminal_snr)
    return StableDiffusion(pipeline, device)


def _scheduler(found: Any, prediction: str, zero_terminal_snr: bool) -> Any:  # noqa: ANN401
    """The model's scheduler, or DDIM's where it knows no schedule that ends without a signal."""
    changes: dict[str, object] = {"prediction_type": prediction}
    kind: Any = type(found)
    known = "rescale_betas_zero_snr" in found.config
    if zero_terminal_snr:
        # Lin et al. 2023, section 3.3: sampling has to begin at the last level.
        changes["timestep_spacing"] = "trailing"
        kind = kind if known else DDIMScheduler
    if zero_terminal_snr or known:
        changes["rescale_betas_zero_snr"] = zero_terminal_snr
    return kind.from_config(found.config, **changes)
