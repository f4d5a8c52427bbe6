"""How noise levels are drawn, against the formulas and diffusers."""

# diffusers exports lazily.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from surefoot.objective.noise import FlowSchedule, NoiseSchedule
from surefoot.objective.shift import shift_by_area, shift_of_flux
from surefoot.objective.timesteps import Timesteps

COUNT = 100_000
# Five standard deviations of a share that is found in COUNT draws.
SLACK = 5 * 0.5 / COUNT**0.5


def draws(timesteps: Timesteps) -> np.ndarray:
    drawn = FlowSchedule().draw_timesteps(COUNT, timesteps, torch.Generator().manual_seed(0))
    return drawn.double().numpy()


def normal_share_below(number: float) -> float:
    return 0.5 * (1 + math.erf(number / math.sqrt(2)))


@pytest.mark.parametrize("place", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.6), (-1.0, 2.0)])
def test_logit_normal_draws_have_that_distribution(mean: float, std: float, place: float) -> None:
    drawn = draws(Timesteps("logit_normal", mean=mean, std=std))
    logit = math.log(place / (1 - place))
    expected = normal_share_below((logit - mean) / std)
    assert (drawn < place).mean() == pytest.approx(expected, abs=SLACK)


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_shifted_draws_are_those_of_diffusers(shift: float) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    levels = torch.linspace(1, 1000, 1000, dtype=torch.float64).numpy()[::-1] / 1000
    np.testing.assert_allclose(
        np.asarray(theirs.sigmas), shift * levels / (1 + (shift - 1) * levels), rtol=1e-6
    )
    # The same map, seen in the distribution: t is below s t0 / (1 + (s - 1) t0) as u is below t0.
    drawn = draws(Timesteps("uniform", shift=shift))
    for place in (0.2, 0.5, 0.9):
        moved = shift * place / (1 + (shift - 1) * place)
        assert (drawn < moved).mean() == pytest.approx(place, abs=SLACK)


def test_draws_stay_between_the_ends() -> None:
    for way in ("uniform", "logit_normal"):
        drawn = draws(Timesteps(way, std=3.0, least=0.25, most=0.5))
        assert 0.25 <= drawn.min() < 0.26
        assert 0.49 < drawn.max() <= 0.5
        assert drawn.mean() == pytest.approx(0.375, abs=SLACK)


@pytest.mark.parametrize(
    ("least", "most", "first", "last"), [(0.0, 1.0, 0, 999), (0.2, 0.7, 200, 699)]
)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_steps_of_a_discrete_schedule_are_drawn_within_the_ends(
    least: float, most: float, first: int, last: int, shift: float
) -> None:
    schedule = NoiseSchedule(torch.linspace(1, 0, 1000))
    timesteps = Timesteps("uniform", shift=shift, least=least, most=most)
    drawn = schedule.draw_timesteps(COUNT, timesteps, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert (drawn.min(), drawn.max()) == (first, last)
    middle = first + (last + 1 - first) * shift * 0.5 / (1 + (shift - 1) * 0.5)
    assert (drawn < middle).double().mean() == pytest.approx(0.5, abs=SLACK + 1e-3)


def test_one_step_is_left_of_the_narrowest_range() -> None:
    schedule = NoiseSchedule(torch.linspace(1, 0, 10))
    timesteps = Timesteps("logit_normal", least=0.95, most=0.951)
    drawn = schedule.draw_timesteps(50, timesteps, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {9}


def test_no_draw_leaves_the_schedule() -> None:
    schedule = NoiseSchedule(torch.linspace(1, 0, 10))
    timesteps = Timesteps("logit_normal", mean=10, std=10)  # the sigmoid is 1 to the bit
    drawn = schedule.draw_timesteps(1000, timesteps, torch.Generator().manual_seed(0))
    assert drawn.max() == 9


@pytest.mark.parametrize("tokens", [256, 1024, 1536, 4096])
def test_shift_of_flux_is_that_of_diffusers(tokens: int) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    mu = calculate_shift(tokens, 256, 4096, 0.5, 1.15)
    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    level = torch.tensor([0.3, 0.6], dtype=torch.float64)
    expected = theirs.time_shift(mu, 1.0, level)
    shift = shift_of_flux(tokens)
    np.testing.assert_allclose(shift * level / (1 + (shift - 1) * level), expected, rtol=1e-9)


def test_four_times_the_pixels_shift_by_two() -> None:
    assert shift_by_area(4096, 1024) == 2.0
    assert shift_by_area(1024, 1024) == 1.0
