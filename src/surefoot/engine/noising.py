"""The objective of a run: what the network is shown of latents, and what its answer costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from surefoot.config.objective import ObjectiveConfig
from surefoot.objective.losses import (
    debiased_weight,
    huber_delta,
    loss_of_each,
    min_snr_weight,
)
from surefoot.objective.noise import ForwardProcess, draw_noise
from surefoot.objective.timesteps import Timesteps


@dataclass(frozen=True)
class Noised:
    """Pictures with noise.

    Attributes:
        noisy: What the network is shown, `(B, C, ...)`.
        timestep: How noisy, `(B,)`.
        target: What it should answer, as `noisy`.
    """

    noisy: Tensor
    timestep: Tensor
    target: Tensor


def add_drawn_noise(
    objective: ObjectiveConfig,
    process: ForwardProcess,
    latents: Tensor,
    generators: Sequence[torch.Generator],
) -> Noised:
    """Draws noise and timesteps for latents `(B, C, ...)`, each by a generator of its own.

    So what a picture is given does not depend on which others are in the batch.
    """
    pyramid = 0.0 if objective.pyramid_noise == "off" else objective.pyramid_noise
    one, timesteps = latents[:1].shape, timesteps_of(objective)
    noises: list[Tensor] = []
    drawn: list[Tensor] = []
    for generator in generators:
        offset = objective.noise_offset
        noises.append(draw_noise(one, generator, offset=offset, pyramid=pyramid))
        drawn.append(process.draw_timesteps(1, timesteps, generator))
    noise, timestep = torch.cat(noises), torch.cat(drawn)
    shown = noise
    if objective.input_perturbation:
        # Ning et al. 2023, arXiv 2301.11706: only the input has it.
        further = torch.cat([torch.randn(one, generator=each) for each in generators])
        shown = noise + objective.input_perturbation * further
    return Noised(
        noisy=process.add_noise(latents, shown, timestep),
        timestep=timestep,
        target=process.target(latents, noise, timestep),
    )


def timesteps_of(objective: ObjectiveConfig) -> Timesteps:
    """The distribution of noise levels; every family so far was trained without a shift."""
    shift = objective.timestep_shift
    return Timesteps(
        draw_by=objective.timesteps,
        mean=objective.timestep_mean,
        std=objective.timestep_std,
        shift=1.0 if shift == "auto" else shift,
        least=objective.timestep_min,
        most=objective.timestep_max,
    )


def losses_of(
    objective: ObjectiveConfig, process: ForwardProcess, output: Tensor, noised: Noised
) -> Tensor:
    """The loss of each picture `(B,)`, weighted by its noise level."""
    snr = process.snr(noised.timestep).to(output.device)
    delta = None
    if objective.loss != "mse":
        progress = process.progress(noised.timestep).to(output.device)
        delta = huber_delta(
            objective.huber_schedule, objective.huber_delta, snr=snr, progress=progress
        )
    losses = loss_of_each(objective.loss, output, noised.target.to(output.device), delta)
    if objective.snr_gamma != "off":
        losses = losses * min_snr_weight(snr, objective.snr_gamma, process.prediction)
    if objective.debiased:
        losses = losses * debiased_weight(snr, process.prediction)
    return losses
