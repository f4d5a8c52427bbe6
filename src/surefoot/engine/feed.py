"""What a micro-batch is made of: pictures, captions and their random choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from surefoot.config.run import RunConfig
from surefoot.data.batches import Batches, step_generator
from surefoot.data.buckets import Framing
from surefoot.data.captions import drawn_caption
from surefoot.data.encoded import EncodedPictures, Look
from surefoot.data.randomness import torch_generator


@dataclass(frozen=True)
class Portion:
    """One micro-batch.

    Attributes:
        latents: `(B, C, h, w)`, on the CPU.
        captions: As they are shown, "" where they are left out.
        framings: How each picture was scaled and cropped.
        weight: What the loss of each picture is multiplied by, `(B,)`.
        draws: Where all further numbers of each picture come from.
    """

    latents: Tensor
    captions: list[str]
    framings: list[Framing]
    weight: Tensor
    draws: list[torch.Generator]


@final
class Feed:
    """Micro-batches by number: each is a pure function of seed, step and part."""

    def __init__(self, config: RunConfig, pictures: EncodedPictures, batches: Batches) -> None:
        """Takes what the session has."""
        self._config = config
        self._pictures = pictures
        self._batches = batches

    def at(self, step: int, part: int) -> Portion:
        """A resumed run, which asks for its next step, is given what it would have been given."""
        config, parts = self._config, self._config.train.gradient_accumulation
        indices = self._batches.at(step, part, parts).tolist()
        # The randomness of a picture depends on its place in the step alone, so that it does not
        # matter into how many parts a step is cut.
        first = part * config.train.batch_size
        places = range(first, first + len(indices))
        draws = [torch_generator(config.seed, "step", step, place) for place in places]
        choices = [step_generator(config.seed, "choices", step, place) for place in places]
        flips = [bool(choice.random() < (0.5 if config.data.flip else 0.0)) for choice in choices]
        views = [self._pictures.views[index] for index in indices]
        captions = [
            drawn_caption(
                view.example.captions,
                config.captions,
                seed=config.seed,
                step=step,
                position=place,
            )
            for view, place in zip(views, places, strict=True)
        ]
        variants = [self._variant(step, place) for place in places]
        looks = [Look(*look) for look in zip(indices, flips, variants, strict=True)]
        return Portion(
            latents=self._pictures.draw(looks, draws),
            captions=captions,
            framings=[self._pictures.framing(look) for look in looks],
            weight=torch.tensor([view.weight for view in views]),
            draws=draws,
        )

    def _variant(self, step: int, place: int) -> int:
        """Which look of a picture: one that is kept, or one of this step alone."""
        kept, train = self._config.data.kept_variants, self._config.train
        if not kept:
            return step * train.gradient_accumulation * train.batch_size + place
        return int(step_generator(self._config.seed, "variant", step, place).random() * kept)
