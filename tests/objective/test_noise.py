"""Noise, targets and timesteps, against diffusers' scheduler and by hand."""

# diffusers exports lazily and annotates outputs as tuples and loaders as pairs.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from surefoot.objective.noise import NoiseSchedule, Prediction, draw_noise
from surefoot.objective.timesteps import Timesteps

BETAS: dict[str, tuple[Literal["linear", "scaled_linear"], float, float]] = {
    "stable diffusion": ("scaled_linear", 0.00085, 0.012),
    "ddpm": ("linear", 0.0001, 0.02),
}
TIMESTEPS = torch.tensor([0, 1, 250, 999])


def schedules(name: str, prediction: Prediction = "epsilon") -> tuple[NoiseSchedule, DDIMScheduler]:
    kind, start, end = BETAS[name]
    theirs = DDIMScheduler(beta_schedule=kind, beta_start=start, beta_end=end)
    return NoiseSchedule(theirs.alphas_cumprod, prediction), theirs


def latents_and_noise(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (len(TIMESTEPS), *shape)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 3, 8, 6)], ids=["pictures", "videos"])
@pytest.mark.parametrize("name", BETAS)
def test_noisy_latents_and_targets_are_those_of_diffusers(
    name: str, shape: tuple[int, ...]
) -> None:
    ours, theirs = schedules(name, "v_prediction")
    latents, noise = latents_and_noise(*shape)
    noisy = ours.add_noise(latents, noise, TIMESTEPS)
    expected = theirs.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, expected, rtol=0, atol=0)
    velocity = ours.target(latents, noise, TIMESTEPS)
    expected = theirs.get_velocity(latents, noise, TIMESTEPS)
    torch.testing.assert_close(velocity, expected, rtol=0, atol=0)
    assert schedules(name)[0].target(latents, noise, TIMESTEPS) is noise


@pytest.mark.parametrize("name", BETAS)
def test_noisy_latents_and_targets_follow_the_papers(name: str) -> None:
    ours, _ = schedules(name, "v_prediction")
    latents, noise = latents_and_noise(4, 2, 2)
    kind, start, end = BETAS[name]
    betas = np.linspace(start**0.5, end**0.5, 1000) ** 2
    if kind == "linear":
        betas = np.linspace(start, end, 1000)
    alpha = np.cumprod(1 - betas)[TIMESTEPS].reshape(-1, 1, 1, 1)
    x, n = latents.double().numpy(), noise.double().numpy()
    noisy = ours.add_noise(latents, noise, TIMESTEPS)
    # fp32 of 1 - alpha at the first step, where alpha is near 1, has four digits left.
    np.testing.assert_allclose(noisy, alpha**0.5 * x + (1 - alpha) ** 0.5 * n, atol=3e-5)
    velocity = ours.target(latents, noise, TIMESTEPS)
    np.testing.assert_allclose(velocity, alpha**0.5 * n - (1 - alpha) ** 0.5 * x, atol=3e-5)
    np.testing.assert_allclose(ours.snr(TIMESTEPS), (alpha / (1 - alpha)).ravel(), rtol=2e-3)


def test_latents_can_be_had_back_from_noise_and_velocity() -> None:
    ours, _ = schedules("stable diffusion", "v_prediction")
    latents, noise = latents_and_noise(4, 2, 2)
    noisy = ours.add_noise(latents, noise, TIMESTEPS)
    velocity = ours.target(latents, noise, TIMESTEPS)
    alpha = ours.alphas_cumprod[TIMESTEPS].view(-1, 1, 1, 1)
    back = alpha.sqrt() * noisy - (1 - alpha).sqrt() * velocity
    torch.testing.assert_close(back, latents, rtol=1e-5, atol=1e-5)


def test_drawn_timesteps_are_uniform_over_the_whole_schedule() -> None:
    ours, _ = schedules("ddpm")
    drawn = ours.draw_timesteps(100_000, Timesteps(), torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert (drawn.min(), drawn.max()) == (0, 999)
    counts = torch.bincount(drawn, minlength=1000).double()
    # Chi squared of 999 degrees of freedom: 999 +- 45; five standard deviations.
    assert abs(float(((counts - 100) ** 2 / 100).sum()) - 999) < 225
    again = ours.draw_timesteps(100_000, Timesteps(), torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)


@pytest.mark.parametrize("draws", [1, 4, 32, 999, 1000])
def test_spread_timesteps_are_the_middles_of_equal_parts(draws: int) -> None:
    ours, _ = schedules("ddpm")
    spread = ours.spread_timesteps(draws)
    expected = [int((2 * part + 1) * 1000 / (2 * draws)) for part in range(draws)]
    assert spread.tolist() == expected
    assert spread.dtype == torch.int64
    assert len(set(expected)) == draws


def test_plain_noise_is_standard_normal_and_a_pure_function_of_its_generator() -> None:
    shape = torch.Size((8, 4, 64, 64))
    noise = draw_noise(shape, torch.Generator().manual_seed(0))
    assert torch.equal(noise, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.var()) == pytest.approx(1, abs=0.02)


def test_offset_adds_one_number_for_each_picture_and_channel() -> None:
    shape, offset = torch.Size((64, 32, 8, 8)), 0.5
    plain = draw_noise(shape, torch.Generator().manual_seed(0))
    noise = draw_noise(shape, torch.Generator().manual_seed(0), offset=offset)
    added = noise - plain
    torch.testing.assert_close(
        added, added[..., :1, :1].expand(shape), rtol=0, atol=1e-6
    )  # one number for all places
    shared = added[..., 0, 0]
    # 2,048 numbers: a variance within 1 / sqrt(1,024) of itself, three standard deviations.
    assert float(shared.var()) == pytest.approx(offset**2, rel=0.1)
    assert abs(float(shared.mean())) < 3 * offset / 2048**0.5
    # The sum of independent parts: 1 + offset^2.
    assert float(noise.var()) == pytest.approx(1 + offset**2, rel=0.03)
    assert float(shared.mean(dim=0).var()) < 0.02  # pictures differ
    assert float(shared.mean(dim=1).var()) < 0.02  # and so do channels


@pytest.mark.parametrize("sides", [(8, 6), (7, 5), (3, 8, 8)])
def test_pyramid_noise_has_a_variance_of_one_and_neighbours_that_go_together(
    sides: tuple[int, ...],
) -> None:
    shape, discount = torch.Size((4000, 2, *sides)), 0.8
    noise = draw_noise(shape, torch.Generator().manual_seed(0), pyramid=discount)
    # 8,000 numbers a place: a variance within 5 * sqrt(2 / 8,000) of 1.
    assert (noise.var(dim=(0, 1)) - 1).abs().max() < 5 * (2 / 8000) ** 0.5
    levels = 1
    while max(sides) >> (levels - 1) > 1:
        levels += 1
    # The first two of a row share every level but the finest.
    weights = discount ** (2 * np.arange(levels))
    first, second = noise[..., 0].flatten(), noise[..., 1].flatten()
    shared = float((first * second).mean())
    assert shared == pytest.approx(1 - 1 / weights.sum(), abs=0.05)


def test_pyramid_noise_of_no_weight_is_plain_noise() -> None:
    shape = torch.Size((2, 4, 8, 8))
    plain = draw_noise(shape, torch.Generator().manual_seed(0))
    assert torch.equal(plain, draw_noise(shape, torch.Generator().manual_seed(0), pyramid=0.0))
