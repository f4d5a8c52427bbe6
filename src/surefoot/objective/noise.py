"""The forward process of diffusion: noise levels, noisy latents, and what to predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from surefoot.objective.timesteps import Timesteps

Prediction = Literal["epsilon", "v_prediction", "flow"]


class ForwardProcess(Protocol):
    """How pictures turn to noise, and what a network is asked of them on the way."""

    @property
    def prediction(self) -> Prediction:
        """What the network should answer."""
        ...

    def draw_timesteps(
        self, count: int, timesteps: Timesteps, generator: torch.Generator
    ) -> Tensor:
        """Timesteps `(count,)` as the network takes them."""
        ...

    def spread_timesteps(self, draws: int) -> Tensor:
        """`draws` timesteps `(draws,)` at the middles of equal parts of the process."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Noisy latents."""
        ...

    def target(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What the network should answer."""
        ...

    def snr(self, timestep: Tensor) -> Tensor:
        """Signal to noise ratio, of powers, `(B,)`."""
        ...

    def progress(self, timestep: Tensor) -> Tensor:
        """How far along, `(B,)`: 0 without noise, 1 at the end of the process."""
        ...


@dataclass(frozen=True)
class NoiseSchedule:
    """The cumulative alphas of a discrete diffusion, `(T,)`, fp32, and what is predicted."""

    alphas_cumprod: Tensor
    prediction: Prediction = "epsilon"

    def draw_timesteps(
        self, count: int, timesteps: Timesteps, generator: torch.Generator
    ) -> Tensor:
        """Timesteps `(count,)`, int64."""
        length = len(self.alphas_cumprod)
        first = int(timesteps.least * length)
        end = max(first + 1, round(timesteps.most * length))
        if timesteps.is_uniform:
            return torch.randint(first, end, (count,), generator=generator)
        drawn = timesteps.draw(count, generator)
        return (first + drawn * (end - first)).long().clamp(max=end - 1)

    def spread_timesteps(self, draws: int) -> Tensor:
        """`draws` timesteps `(draws,)` at the middles of equal parts of the schedule."""
        length = len(self.alphas_cumprod)
        return ((torch.arange(draws) + 0.5) * length / draws).long()

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """`sqrt(alpha) x + sqrt(1 - alpha) noise` (Ho et al. 2020, equation 4)."""
        signal, grain = self._roots(timestep, latents)
        return signal * latents + grain * noise

    def target(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The noise, or v (Salimans & Ho 2022, section 4), or their difference for a flow."""
        match self.prediction:
            case "epsilon":
                return noise
            case "v_prediction":
                signal, grain = self._roots(timestep, latents)
                return signal * noise - grain * latents
            case "flow":
                return noise - latents
            case _:
                assert_never(self.prediction)

    def snr(self, timestep: Tensor) -> Tensor:
        """Signal to noise ratio `alpha / (1 - alpha)`, `(B,)`."""
        alpha = self.alphas_cumprod[timestep]
        return alpha / (1 - alpha)

    def progress(self, timestep: Tensor) -> Tensor:
        """The timestep as a share of the last, `(B,)`."""
        return timestep / (len(self.alphas_cumprod) - 1)

    def _roots(self, timestep: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = _by_picture(self.alphas_cumprod[timestep], like)
        return alpha.sqrt(), (1 - alpha).sqrt()


@dataclass(frozen=True)
class FlowSchedule:
    """Straight ways from pictures to noise (Liu et al. 2022, "Flow Straight and Fast").

    A timestep is the share of noise s in `(1 - s) x + s noise`, between 0 and 1.
    """

    prediction: Prediction = "flow"

    def draw_timesteps(
        self, count: int, timesteps: Timesteps, generator: torch.Generator
    ) -> Tensor:
        """Timesteps `(count,)`, fp32."""
        drawn = timesteps.draw(count, generator)
        return timesteps.least + drawn * (timesteps.most - timesteps.least)

    def spread_timesteps(self, draws: int) -> Tensor:
        """`draws` timesteps `(draws,)` at the middles of equal parts."""
        return (torch.arange(draws) + 0.5) / draws

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """`(1 - s) x + s noise` (Esser et al. 2024, equation 13)."""
        share = _by_picture(timestep, latents)
        return (1 - share) * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The velocity along the way, `noise - x`, the same everywhere on it."""
        del timestep
        return noise - latents

    def snr(self, timestep: Tensor) -> Tensor:
        """Signal to noise ratio `((1 - s) / s)^2`, `(B,)`."""
        return ((1 - timestep) / timestep).square()

    def progress(self, timestep: Tensor) -> Tensor:
        """The share of noise itself."""
        return timestep


def _by_picture(numbers: Tensor, like: Tensor) -> Tensor:
    """`(B,)` in a shape that multiplies `(B, ...)`."""
    return numbers.view(-1, *[1] * (like.dim() - 1)).to(like.device)


def draw_noise(
    shape: torch.Size,
    generator: torch.Generator,
    *,
    offset: float = 0.0,
    pyramid: float = 0.0,
) -> Tensor:
    """Gaussian noise of a deviation of 1, but for the offset.

    Args:
        shape: (B, C, ...).
        generator: Source of all numbers.
        offset: Times one number for each picture and channel, added (Guttenberg 2023).
        pyramid: Weight of noise of half the resolution; its square of a quarter, and so on.
    """
    noise = torch.randn(shape, generator=generator)
    if pyramid:
        noise = _pyramid(noise, pyramid, generator)
    if offset:
        shared = torch.randn(*shape[:2], *[1] * (len(shape) - 2), generator=generator)
        noise = noise + offset * shared
    return noise


def _pyramid(noise: Tensor, discount: float, generator: torch.Generator) -> Tensor:
    """Coarser and coarser noise added, each number repeated (Whitaker 2023).

    Repeated and not interpolated, so that the variance is the same everywhere and known: the sum
    over the levels of discount^(2 level).
    """
    sides, weight, variance = noise.shape[2:], 1.0, 1.0
    total = noise
    while max(sides) > 1:
        sides = tuple(max(1, side // 2) for side in sides)
        weight *= discount
        variance += weight**2
        coarse = torch.randn(*noise.shape[:2], *sides, generator=generator)
        total = total + weight * F.interpolate(coarse, size=noise.shape[2:], mode="nearest")
    return total / variance**0.5
