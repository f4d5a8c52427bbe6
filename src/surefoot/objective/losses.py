"""Losses, one number for each picture, and their weights by noise level."""

from __future__ import annotations

from typing import Literal, assert_never

from torch import Tensor

from surefoot.objective.noise import Prediction

Loss = Literal["mse"]


def loss_of_each(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    """`(B, ...)` against `(B, ...)` in fp32 to `(B,)`: the mean over everything else."""
    match loss:
        case "mse":
            return (output.float() - target.float()).square().flatten(1).mean(dim=1)
        case _:
            assert_never(loss)


def min_snr_weight(snr: Tensor, gamma: float, prediction: Prediction) -> Tensor:
    """Min-SNR weights `(B,)` (Hang et al. 2023, section 3.4).

    `min(snr, gamma) / snr` for epsilon, over `snr + 1` for v.
    """
    match prediction:
        case "epsilon":
            return snr.clamp(max=gamma) / snr
        case "v_prediction":
            return snr.clamp(max=gamma) / (snr + 1)
        case _:
            assert_never(prediction)
