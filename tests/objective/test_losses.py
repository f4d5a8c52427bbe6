"""Losses and their weights, by hand in float64."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from surefoot.objective.losses import loss_of_each, min_snr_weight


def test_loss_of_each_is_the_mean_over_all_but_the_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(3, 4, 5, 6, generator=generator)
    target = torch.randn(3, 4, 5, 6, generator=generator)
    losses = loss_of_each("mse", output, target)
    assert losses.shape == (3,)
    difference = output.double().numpy() - target.double().numpy()
    np.testing.assert_allclose(losses, (difference**2).mean(axis=(1, 2, 3)), rtol=1e-6)


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


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_follow_the_paper(
    prediction: Literal["epsilon", "v_prediction"], gamma: float
) -> None:
    snr = torch.logspace(-4, 4, 33)
    # Hang et al. 2023: w = min(snr, gamma) on the error of the picture x. The error of the noise
    # is snr times as large, that of v snr + 1 times.
    numbers = snr.double().numpy()
    errors = {"epsilon": numbers, "v_prediction": numbers + 1}[prediction]
    expected = np.minimum(numbers, gamma) / errors
    np.testing.assert_allclose(min_snr_weight(snr, gamma, prediction), expected, rtol=1e-6)


def test_weights_of_noise_are_one_below_gamma() -> None:
    weights = min_snr_weight(torch.tensor([0.001, 1.0, 5.0, 10.0]), 5.0, "epsilon")
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 1.0, 0.5]), rtol=0, atol=1e-7)
