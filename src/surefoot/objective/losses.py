"""Losses, one number for each picture, and their weights by noise level."""

from __future__ import annotations

from typing import assert_never

from torch import Tensor

from surefoot.config.objective import HuberSchedule, Loss
from surefoot.objective.noise import Prediction


def loss_of_each(loss: Loss, output: Tensor, target: Tensor, delta: Tensor | None = None) -> Tensor:
    """`(B, ...)` against `(B, ...)` in fp32 to `(B,)`: the mean over everything else.

    The Huber losses are the smooth ones of Charbonnier et al. 1997, by which Khrapov et al. 2024
    (arXiv 2403.16728) train: with the error d they are

        huber       2 delta (sqrt(d^2 + delta^2) - delta)     d^2 for small d
        smooth_l1   the same over delta                       2 |d| for large d

    Args:
        loss: Which of them.
        output: The network's answer.
        target: What it should be.
        delta: Of each picture, `(B,)`; for the Huber losses.
    """
    error = output.float() - target.float()
    if loss == "mse":
        return error.square().flatten(1).mean(dim=1)
    assert delta is not None, "a Huber loss has a delta"
    by_picture = delta.view(-1, *[1] * (error.dim() - 1))
    # Not the difference of the roots, which would lose its digits where the error is small.
    length = (error.square() + by_picture.square()).sqrt() + by_picture
    smooth = (2 * error.square() / length).flatten(1).mean(dim=1)
    match loss:
        case "huber":
            return smooth * delta
        case "smooth_l1":
            return smooth
        case _:
            assert_never(loss)


def huber_delta(schedule: HuberSchedule, delta: float, *, snr: Tensor, progress: Tensor) -> Tensor:
    """Delta at each noise level, `(B,)`, from 1 without noise to `delta` with nothing else.

    Large errors at much noise come from pictures that do not belong; at little noise a large delta
    keeps the details of a squared error (Khrapov et al. 2024).

    Args:
        schedule: `exponential`: delta^progress. `snr`: (1 - delta) / (1 + sigma)^2 + delta, with
            sigma = 1 / sqrt(SNR), as in sd-scripts.
        delta: At the most noise.
        snr: Signal to noise ratio, `(B,)`.
        progress: How far along, `(B,)`.
    """
    match schedule:
        case "constant":
            return progress.float() * 0 + delta
        case "exponential":
            return delta ** progress.float()
        case "snr":
            # 1 / (1 + 1 / sqrt(snr)), without a division by the 0 of the last level.
            share = snr.sqrt() / (1 + snr.sqrt())
            return (1 - delta) * share.square() + delta
        case _:
            assert_never(schedule)


def min_snr_weight(snr: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Min-SNR weights `(B,)` (Hang et al. 2023, section 3.4).

    They are min(snr, gamma) on the picture's error: `min(snr, gamma) / snr` for epsilon, over
    `snr + 1` for v.
    """
    return snr.clamp(max=gamma) * _picture_error(snr, prediction)


def debiased_weight(snr: Tensor, prediction: Prediction) -> Tensor:
    """Weights `(B,)` of Yu et al. 2023 (arXiv 2310.08442): sqrt(snr) on the picture's error.

    `1 / sqrt(snr)` for epsilon, `sqrt(snr) / (snr + 1)` for v. The paper has the former only; the
    latter weights the same error.
    """
    return snr.sqrt() * _picture_error(snr, prediction)


def _picture_error(snr: Tensor, prediction: Prediction) -> Tensor:
    """What squared error of the picture a squared error of 1 in the answer means, `(B,)`."""
    match prediction:
        case "epsilon":
            return 1 / snr
        case "v_prediction":
            return 1 / (snr + 1)
        case "flow":
            # x = noisy - s u, and the share of noise s is 1 / (1 + sqrt(snr)).
            return (1 + snr.sqrt()).square().reciprocal()
        case _:
            assert_never(prediction)
