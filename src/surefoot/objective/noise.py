"""The forward process of diffusion: noise levels, noisy latents, and what to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class NoiseSchedule:
    """The cumulative alphas of a discrete diffusion, `(T,)`, fp32."""

    alphas_cumprod: Tensor

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform timesteps `(count,)`, int64."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def spread_timesteps(self, draws: int) -> Tensor:
        """`draws` timesteps `(draws,)` at the middles of equal parts of the schedule."""
        length = len(self.alphas_cumprod)
        return ((torch.arange(draws) + 0.5) * length / draws).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """`sqrt(alpha) x + sqrt(1 - alpha) noise` (Ho et al. 2020, equation 4)."""
        signal, grain = self._roots(timestep, latents)
        return signal * latents + grain * noise

    def target(
        self, prediction: Prediction, latents: Tensor, noise: Tensor, timestep: Tensor
    ) -> Tensor:
        """What the network should answer: the noise, or v (Salimans & Ho 2022, section 4)."""
        match prediction:
            case "epsilon":
                return noise
            case "v_prediction":
                signal, grain = self._roots(timestep, latents)
                return signal * noise - grain * latents
            case _:
                assert_never(prediction)

    def snr(self, timestep: Tensor) -> Tensor:
        """Signal to noise ratio `alpha / (1 - alpha)`, `(B,)`."""
        alpha = self.alphas_cumprod[timestep]
        return alpha / (1 - alpha)

    def _roots(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod[timestep].view(-1, *[1] * (like.dim() - 1)).to(like.device)
        return alpha.sqrt(), (1 - alpha).sqrt()


def draw_noise(shape: torch.Size, offset: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise, plus `offset` times one number for each picture and channel."""
    noise = torch.randn(shape, generator=generator)
    if offset:
        shared = torch.randn(*shape[:2], *[1] * (len(shape) - 2), generator=generator)
        noise = noise + offset * shared
    return noise
