"""Straight ways from pictures to noise, against diffusers and by hand."""

# diffusers exports lazily and annotates tensors by their dtype.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from surefoot.objective.noise import FlowSchedule

SHARES = torch.tensor([0.001, 0.25, 0.5, 1.0])


def test_noisy_latents_are_those_of_diffusers() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 3, 8, 6, generator=generator) for _ in range(2))
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    expected = theirs.scale_noise(latents, SHARES * 1000, noise)
    found = FlowSchedule().add_noise(latents, noise, SHARES)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_step_along_the_target_arrives_at_the_picture_from_anywhere() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 3, 8, 6, generator=generator) for _ in range(2))
    flow = FlowSchedule()
    noisy = flow.add_noise(latents, noise, SHARES)
    target = flow.target(latents, noise, SHARES)
    back = noisy - SHARES.view(-1, 1, 1, 1) * target
    torch.testing.assert_close(back, latents, rtol=1e-5, atol=1e-5)


def test_ratio_of_signal_to_noise_is_that_of_the_variances() -> None:
    shares = SHARES.double().numpy()
    expected = (1 - shares) ** 2 / shares**2
    np.testing.assert_allclose(FlowSchedule().snr(SHARES), expected, rtol=1e-6)


def test_spread_levels_are_the_middles_of_equal_parts() -> None:
    assert FlowSchedule().spread_timesteps(4).tolist() == [0.125, 0.375, 0.625, 0.875]
