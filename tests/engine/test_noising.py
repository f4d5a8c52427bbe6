"""The objective of a run as the loop calls it, by hand in float64."""

# diffusers exports lazily.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from surefoot.config.objective import ObjectiveConfig
from surefoot.engine.noising import add_drawn_noise, losses_of
from surefoot.objective.noise import NoiseSchedule, Prediction

ALPHAS = DDIMScheduler(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
).alphas_cumprod


def generators(count: int) -> list[torch.Generator]:
    return [generator(100 + number) for number in range(count)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_input_perturbation_is_seen_and_not_asked_for() -> None:
    latents = torch.randn(5, 4, 8, 8, generator=generator(1))
    process = NoiseSchedule(ALPHAS, "epsilon")
    plain = add_drawn_noise(ObjectiveConfig(), process, latents, generators(len(latents)))
    perturbed = add_drawn_noise(
        ObjectiveConfig(input_perturbation=0.1), process, latents, generators(len(latents))
    )
    assert torch.equal(perturbed.target, plain.target)
    assert torch.equal(perturbed.timestep, plain.timestep)
    grain = np.sqrt(1 - ALPHAS.double().numpy()[plain.timestep]).reshape(-1, 1, 1, 1)
    added = (perturbed.noisy - plain.noisy).double().numpy() / grain
    assert added.std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("weights", [{}, {"snr_gamma": 5.0}, {"debiased": True}])
@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_losses_are_weighted_by_the_noise_level_of_each_picture(
    loss: str, weights: dict[str, object], prediction: Prediction
) -> None:
    objective = ObjectiveConfig.model_validate({"loss": loss, **weights})
    latents = torch.randn(6, 4, 8, 8, generator=generator(1))
    process = NoiseSchedule(ALPHAS, prediction)
    noised = add_drawn_noise(objective, process, latents, generators(len(latents)))
    output = torch.randn(latents.shape, generator=generator(2))
    found = losses_of(objective, process, output, noised)
    alpha = ALPHAS.double().numpy()[noised.timestep]
    snr, sigma = alpha / (1 - alpha), np.sqrt((1 - alpha) / alpha)
    error = output.double().numpy() - noised.target.double().numpy()
    if loss == "mse":
        each = (error**2).mean(axis=(1, 2, 3))
    else:
        delta = (0.9 / (1 + sigma) ** 2 + 0.1).reshape(-1, 1, 1, 1)
        each = (2 * delta * (np.sqrt(error**2 + delta**2) - delta)).mean(axis=(1, 2, 3))
    of_picture = 1 / snr if prediction == "epsilon" else 1 / (1 + snr)
    if "snr_gamma" in weights:
        each = each * np.minimum(snr, 5) * of_picture
    if "debiased" in weights:
        each = each * np.sqrt(snr) * of_picture
    # fp32 of 1 - alpha has four digits left where alpha is near 1.
    np.testing.assert_allclose(found, each, rtol=1e-3)


def test_noise_levels_follow_their_keys() -> None:
    objective = ObjectiveConfig(
        timesteps="logit_normal", timestep_mean=1.0, timestep_min=0.5, timestep_max=0.9
    )
    latents = torch.zeros(2000, 1, 1, 1)
    process = NoiseSchedule(ALPHAS, "epsilon")
    drawn = add_drawn_noise(objective, process, latents, generators(len(latents))).timestep
    assert drawn.min() >= 500
    assert drawn.max() < 900
    # The median of the draws is the sigmoid of the mean.
    expected = 500 + 400 / (1 + np.exp(-1))
    assert float(drawn.double().median()) == pytest.approx(expected, abs=10)


def test_what_a_picture_is_given_does_not_depend_on_the_others() -> None:
    objective = ObjectiveConfig(
        pyramid_noise=0.5, noise_offset=0.1, input_perturbation=0.1, timesteps="logit_normal"
    )
    latents = torch.randn(4, 4, 8, 8, generator=generator(1))
    process = NoiseSchedule(ALPHAS, "v_prediction")
    together = add_drawn_noise(objective, process, latents, generators(4))
    halves = [
        add_drawn_noise(objective, process, latents[part], generators(4)[part])
        for part in (slice(0, 2), slice(2, 4))
    ]
    for name in ("noisy", "timestep", "target"):
        apart = torch.cat([getattr(half, name) for half in halves])
        assert torch.equal(getattr(together, name), apart)
