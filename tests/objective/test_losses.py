"""Losses and their weights, by hand in float64."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from surefoot.config.objective import HuberSchedule, Loss
from surefoot.objective.losses import debiased_weight, huber_delta, loss_of_each, min_snr_weight

Prediction = Literal["epsilon", "v_prediction", "flow"]
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "v_prediction", "flow")


def test_loss_of_each_is_the_mean_over_all_but_the_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, 4, 5, 6, generator=generator)
    target = torch.randn(3, 4, 5, 6, generator=generator)
    losses = loss_of_each("mse", output, target)
    assert losses.shape == (3,)
    difference = output.double().numpy() - target.double().numpy()
    np.testing.assert_allclose(losses, (difference**2).mean(axis=(1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("loss", ["huber", "smooth_l1"])
def test_huber_losses_follow_the_formula_with_a_delta_for_each_picture(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, 4, 5, 6, generator=generator)
    target = torch.randn(3, 4, 5, 6, generator=generator)
    delta = torch.tensor([0.01, 0.1, 1.0])
    losses = loss_of_each(loss, output, target, delta)
    error = output.double().numpy() - target.double().numpy()
    width = delta.double().numpy().reshape(3, 1, 1, 1)
    expected = 2 * (np.sqrt(error**2 + width**2) - width)
    expected = expected * width if loss == "huber" else expected
    np.testing.assert_allclose(losses, expected.mean(axis=(1, 2, 3)), rtol=2e-6)


def test_huber_is_the_squared_error_for_small_errors_and_linear_for_large_ones() -> None:
    delta = torch.tensor([0.1])
    small, large = torch.full((1, 4), 1e-4), torch.full((1, 4), 100.0)
    nothing = torch.zeros(1, 4)
    assert loss_of_each("huber", small, nothing, delta).item() == pytest.approx(1e-8, rel=1e-5)
    assert loss_of_each("huber", large, nothing, delta).item() == pytest.approx(20, rel=2e-3)
    assert loss_of_each("smooth_l1", large, nothing, delta).item() == pytest.approx(200, rel=2e-3)


def test_huber_has_a_gradient_of_zero_where_there_is_no_error() -> None:
    output = torch.zeros(1, 4, requires_grad=True)
    loss_of_each("huber", output, torch.zeros(1, 4), torch.tensor([0.1])).sum().backward()
    assert output.grad is not None
    assert output.grad.tolist() == [[0.0] * 4]


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
def test_delta_runs_from_one_without_noise_to_its_least_at_the_end(schedule: HuberSchedule) -> None:
    timestep = torch.tensor([0, 250, 999])
    alpha = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)[timestep]
    snr = torch.from_numpy(alpha / (1 - alpha)).float()
    found = huber_delta(schedule, 0.1, snr=snr, progress=timestep / 999)
    sigma = np.sqrt((1 - alpha) / alpha)
    expected = {
        "constant": np.full(3, 0.1),
        "exponential": np.exp(math.log(0.1) * timestep.numpy() / 999),
        "snr": 0.9 / (1 + sigma) ** 2 + 0.1,
    }[schedule]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_delta_is_its_least_where_no_signal_is_left() -> None:
    found = huber_delta("snr", 0.1, snr=torch.tensor([0.0]), progress=torch.tensor([1.0]))
    assert found.item() == pytest.approx(0.1)


def test_half_precision_is_compared_in_fp32() -> None:
    # In bfloat16 1 - 2^-9 would round to 1, and the square of the difference would be lost.
    output = torch.full((1, 4), 1.0, dtype=torch.bfloat16, requires_grad=True)
    target = torch.full((1, 4), 1 - 2.0**-9)
    (loss,) = loss_of_each("mse", output, target)
    assert loss.dtype == torch.float32
    assert loss.item() == 2.0**-18
    loss.backward()
    assert output.grad is not None
    assert output.grad.dtype == torch.bfloat16
    assert output.grad.tolist() == [[2 * 2.0**-9 / 4] * 4]


def error_of_the_picture(snr: np.ndarray, prediction: Prediction) -> np.ndarray:
    """How often the squared error of the answer is in that of the picture, solved by hand.

    With x_t = a x + b n the answer is wrong by e, and the picture by e * dx/de at this x_t.
    """
    if prediction == "flow":  # a + b = 1, u = n - x, x = x_t - b u
        return (1 / (1 + np.sqrt(snr))) ** 2
    a = np.sqrt(snr / (1 + snr))
    b = np.sqrt(1 / (1 + snr))
    # x = (x_t - b n) / a, and x = a x_t - b v.
    return (b / a) ** 2 if prediction == "epsilon" else b**2


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_follow_the_paper(prediction: Prediction, gamma: float) -> None:
    # Hang et al. 2023: w = min(snr, gamma) on the error of the picture x.
    snr = torch.logspace(-4, 4, 33)
    numbers = snr.double().numpy()
    expected = np.minimum(numbers, gamma) * error_of_the_picture(numbers, prediction)
    np.testing.assert_allclose(min_snr_weight(snr, gamma, prediction), expected, rtol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_debiased_weights_are_the_root_of_the_ratio_on_the_error_of_the_picture(
    prediction: Prediction,
) -> None:
    snr = torch.logspace(-4, 4, 33)
    numbers = snr.double().numpy()
    expected = np.sqrt(numbers) * error_of_the_picture(numbers, prediction)
    np.testing.assert_allclose(debiased_weight(snr, prediction), expected, rtol=1e-6)
    if prediction == "epsilon":  # as the paper writes it
        np.testing.assert_allclose(debiased_weight(snr, prediction), numbers**-0.5, rtol=1e-6)


def test_weights_of_noise_are_one_below_gamma() -> None:
    weights = min_snr_weight(torch.tensor([0.001, 1.0, 5.0, 10.0]), 5.0, "epsilon")
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 1.0, 0.5]), rtol=0, atol=1e-7)


def test_v_is_weighted_by_nothing_and_not_by_nan_where_no_signal_is_left() -> None:
    nothing = torch.zeros(1)
    assert min_snr_weight(nothing, 5.0, "v_prediction").tolist() == [0.0]
    assert debiased_weight(nothing, "v_prediction").tolist() == [0.0]
