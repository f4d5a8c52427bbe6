"""What the trainer asks of a model family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor, nn

from surefoot.objective.noise import ForwardProcess


@dataclass(frozen=True)
class Posterior:
    """What the VAE says of pictures: mean and standard deviation `(B, C, h, w)`, scaled, fp32."""

    mean: Tensor
    std: Tensor


class Family(Protocol):
    """A loaded model: how its pictures and captions are encoded and how it denoises."""

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can be trained, by the names of `FamilyFacts.parts`."""
        ...

    @property
    def noise_schedule(self) -> ForwardProcess:
        """The diffusion it was trained with."""
        ...

    def encode_images(self, pixels: Tensor) -> Posterior:
        """Pixels `(B, 3, H, W)` in [-1, 1] to latents."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> Tensor:
        """Captions to the states `(B, L, D)` that the network attends to."""
        ...

    def denoise(self, noisy: Tensor, timestep: Tensor, conditioning: Tensor) -> Tensor:
        """The network's answer `(B, C, h, w)` to noisy latents at timesteps `(B,)`."""
        ...

    def sample(
        self,
        prompts: Sequence[str],
        *,
        resolution: int,
        steps: int,
        guidance: float,
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """One picture for each prompt, by the pipeline that its users use."""
        ...

    def vae_weights(self) -> dict[str, Tensor]:
        """The weights that latents depend on: the key of the latent cache."""
        ...

    def blocks(self) -> list[nn.Module]:
        """What gradient checkpointing computes twice, one by one, in the order of calls."""
        ...

    def enable_gradient_checkpointing(self) -> None:
        """Trades time for memory in the trained parts."""
        ...

    def save(self, folder: str) -> None:
        """Writes the whole model as a diffusers folder."""
        ...
