"""What is minimised: the section `objective`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Auto, Off, Section

Loss = Literal["mse", "huber", "smooth_l1"]
HuberSchedule = Literal["constant", "exponential", "snr"]
TimestepDraw = Literal["uniform", "logit_normal"]


class ObjectiveConfig(Section):
    """What is minimised."""

    loss: Loss = "mse"
    """`mse`: mean squared error. `huber`: the same for small errors d, and 2 * delta * |d| for
    large ones, so that odd pictures count for less (Khrapov et al. 2024). `smooth_l1`: `huber` over
    delta."""

    huber_delta: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Where `huber` and `smooth_l1` pass from one to the other, at the most noise; pictures in
    latents have a deviation of about 1."""

    huber_schedule: HuberSchedule = "snr"
    """What delta is at less noise. `constant`: the same. `exponential`: it rises to 1 evenly in the
    number of the timestep. `snr`: it rises to 1 with the ratio of signal to noise."""

    snr_gamma: Annotated[float, Field(gt=0)] | Off = "off"
    """Min-SNR weighting (Hang et al. 2023); 5 is customary."""

    debiased: bool = False
    """Weights for an unbiased estimate of the picture (Yu et al. 2023): each noise level counts by
    1 / sqrt(SNR) for a network that predicts the noise. Not together with `snr_gamma`."""

    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Adds this much of one shared number per channel to the noise, for very dark and bright
    pictures."""

    pyramid_noise: Annotated[float, Field(gt=0, lt=1)] | Off = "off"
    """Adds noise of half the resolution times this, of a quarter times its square and so on
    (Whitaker 2023); the sum is scaled back to a deviation of 1. 0.3 is mild, 0.8 strong."""

    input_perturbation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Adds this much further noise to what the network sees and not to what it should answer (Ning
    et al. 2023); 0.1 is customary."""

    timesteps: TimestepDraw = "uniform"
    """How noise levels are drawn, from 0 (none) to 1 (nothing else). `logit_normal`: mostly middle
    ones, the sigmoid of a normal number (Esser et al. 2024, section 3.1)."""

    timestep_mean: Annotated[float, Field(ge=-10, le=10)] = 0.0
    """Of that normal number: above 0 for more noise."""

    timestep_std: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Its deviation."""

    timestep_shift: Annotated[float, Field(gt=0, le=100)] | Auto = "auto"
    """Moves draws t to s * t / (1 + (s - 1) * t): above 1 for more noise, as large pictures want
    it (Esser et al. 2024, section 5.3.2). `auto` is 1 for models that were trained by uniform
    draws, such as `sd15`."""

    timestep_min: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Draws are spread from here, as a share of the schedule, ..."""

    timestep_max: Annotated[float, Field(gt=0, le=1)] = 1.0
    """... to here."""
