"""The loss on held-out pictures, always with the same latents, noise and timesteps."""

from __future__ import annotations

from typing import final

import torch

from surefoot.data.encoded import EncodedPictures
from surefoot.data.randomness import torch_generator
from surefoot.engine.conditioning import Conditioning
from surefoot.families.family import Family
from surefoot.objective.losses import loss_of_each
from surefoot.objective.noise import Prediction, draw_noise

_BATCH = 50


@final
class Validation:
    """Mean squared error over all pictures, `draws` noise levels each, without dropout."""

    def __init__(
        self,
        pictures: EncodedPictures,
        family: Family,
        conditioning: Conditioning,
        *,
        prediction: Prediction,
        draws: int,
        seed: int,
    ) -> None:
        """The seed fixes the noise; the timesteps are spread evenly and rotate over pictures."""
        self._pictures = pictures
        self._family = family
        self._conditioning = conditioning
        self._prediction: Prediction = prediction
        self._draws = draws
        self._seed = seed

    @torch.no_grad()
    def loss(self, device: torch.device) -> float:
        """The loss of the model as it is now."""
        schedule = self._family.noise_schedule
        count = len(self._pictures.examples)
        # Each picture sees `draws` levels; neighbours see others, so that all are covered.
        levels = schedule.spread_timesteps(self._draws * 8)
        total = torch.zeros((), dtype=torch.float64)
        for draw in range(self._draws):
            for start in range(0, count, _BATCH):
                indices = range(start, min(start + _BATCH, count))
                generator = torch_generator(self._seed, "validation", draw, start)
                latents = self._pictures.means(indices)
                noise = draw_noise(latents.shape, 0.0, generator)
                timestep = levels[[draw * 8 + index % 8 for index in indices]]
                noisy = schedule.add_noise(latents, noise, timestep)
                target = schedule.target(self._prediction, latents, noise, timestep)
                states = self._conditioning(
                    [self._pictures.examples[index].caption for index in indices]
                )
                output = self._family.denoise(noisy.to(device), timestep.to(device), states)
                total += loss_of_each("mse", output, target.to(device)).double().sum().cpu()
        return total.item() / (count * self._draws)
