"""The loss on held-out pictures, always with the same latents, noise and timesteps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import final

import torch

from surefoot.config.captions import CaptionsConfig
from surefoot.data.captions import plain_caption
from surefoot.data.encoded import EncodedPictures
from surefoot.data.randomness import torch_generator
from surefoot.engine.conditioning import Conditioning
from surefoot.families.family import Family
from surefoot.objective.losses import loss_of_each
from surefoot.objective.noise import draw_noise

_NOISE_BLOCK = 50  # pictures whose noise is drawn together; part of what a loss means


@final
class Validation:
    """Mean squared error over all pictures, `draws` noise levels each, without dropout."""

    def __init__(
        self,
        pictures: EncodedPictures,
        family: Family,
        conditioning: Conditioning,
        captions: CaptionsConfig,
        *,
        draws: int,
        batch_size: int,
        seed: int,
    ) -> None:
        """The seed fixes the noise; the timesteps are spread evenly and rotate over pictures."""
        self._pictures = pictures
        self._family = family
        self._conditioning = conditioning
        self._captions = captions
        self._draws = draws
        self._batch_size = batch_size
        self._seed = seed

    def _blocks(self) -> Iterator[range]:
        """Pictures whose noise is drawn together, all of one size."""
        start = 0
        for _size, views in itertools.groupby(self._pictures.views, key=lambda view: view.size):
            end = start + len(list(views))
            for first in range(start, end, _NOISE_BLOCK):
                yield range(first, min(first + _NOISE_BLOCK, end))
            start = end

    @torch.no_grad()
    def loss(self, device: torch.device) -> float:
        """The loss of the model as it is now."""
        schedule = self._family.noise_schedule
        count = len(self._pictures.views)
        # Each picture sees `draws` levels; neighbours see others, so that all are covered.
        levels = schedule.spread_timesteps(self._draws * 8)
        total = torch.zeros((), dtype=torch.float64)
        for draw in range(self._draws):
            for indices in self._blocks():
                generator = torch_generator(self._seed, "validation", draw, indices.start)
                latents = self._pictures.means(indices)
                noise = draw_noise(latents.shape, generator)
                timestep = levels[[draw * 8 + index % 8 for index in indices]]
                noisy = schedule.add_noise(latents, noise, timestep)
                target = schedule.target(latents, noise, timestep)
                states = self._conditioning(
                    [
                        plain_caption(self._pictures.views[index].example.captions, self._captions)
                        for index in indices
                    ]
                )
                # No more pictures at once than in training, which fitted into memory.
                for part in torch.arange(len(indices)).split(self._batch_size):
                    output = self._family.denoise(
                        noisy[part].to(device), timestep[part].to(device), states[part]
                    )
                    losses = loss_of_each("mse", output, target[part].to(device))
                    total += losses.cpu().double().sum()
        return total.item() / (count * self._draws)
