"""The pictures to learn from: the sections `data` and `data.folders`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Auto, Off, PathText, Positive, Section

Side = Annotated[int, Field(ge=8, le=8192)]
Sides = Side | Annotated[tuple[Side, ...], Field(min_length=1)] | Auto
Weight = Annotated[float, Field(gt=0, le=100)]


class FolderConfig(Section):
    """One folder of pictures with captions beside them."""

    path: PathText
    """A folder of pictures; `cat.png` has its caption in `cat.txt` or `cat.caption`.
    Folders inside count too. `builtin` is the example set."""

    role: Literal["train", "regularisation"] = "train"
    """`regularisation`: pictures of the same kind of thing as the base model draws it, which keep
    it from forgetting what it knew (prior preservation, Ruiz et al. 2023); their loss is
    multiplied by `data.prior_weight`."""

    repeats: Positive = 1
    """How often each picture is seen in one epoch."""

    samples: Positive | Off = "off"
    """How many pictures an epoch takes of this folder, instead of `repeats`. The next epoch goes
    on where this one ended, so that all come round equally often."""

    loss_weight: Weight = 1.0
    """The loss on each of its pictures is multiplied by this."""

    resolution: Sides = "auto"
    """As `data.resolution`, for this folder alone; `auto` is what stands there."""


class DataConfig(Section):
    """The pictures to learn from."""

    folders: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]
    """The folders."""

    resolution: Sides = "auto"
    """Side in pixels of a square picture, or several in a list: then each picture is seen at each
    of them. `auto` is what the model was trained on."""

    buckets: Auto | Off = "auto"
    """`auto`: each picture is scaled and cropped to the nearest of several shapes, none with more
    pixels than the square. `off`: all are cropped to the square."""

    bucket_step: Side | Auto = "auto"
    """The sides of buckets are multiples of so many pixels; `auto` is what the model needs."""

    longest_ratio: Annotated[float, Field(ge=1, le=8)] = 2.0
    """The long side of a bucket is at most this many times the short one."""

    small_pictures: Literal["scale_up", "smaller_bucket", "leave_out"] = "scale_up"
    """What becomes of a picture that is smaller than its bucket: it is scaled up; or goes to a
    smaller bucket; or is left out, which the check tells."""

    crop: Literal["center", "random"] = "center"
    """Which part of a picture is kept where its shape is not that of its bucket."""

    flip: bool = False
    """Mirror half of the pictures. Not for things with a left and a right, such as letters."""

    colour_jitter: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Brightness, contrast and saturation are each multiplied by a number drawn from 1 minus this
    to 1 plus this. 0.05 is mild."""

    variants: Positive | Auto = "auto"
    """How many random crops and colours of each picture the cache holds; each step takes one of
    them. `auto` is 4 where there is anything random. Without a cache every step draws anew."""

    prior_weight: Weight = 1.0
    """The loss on pictures of regularisation folders is multiplied by this."""

    cache: Literal["disk", "off"] = "disk"
    """`disk`: encode each picture once and keep the latents beside the run folders, in
    `.cache`."""

    def without_chance(self) -> DataConfig:
        """The same with every picture as it is, for the loss on held-out ones."""
        return self.model_copy(update={"crop": "center", "colour_jitter": 0.0, "flip": False})

    @property
    def is_varied(self) -> bool:
        """Whether a picture is not the same each time, mirroring aside."""
        return self.crop == "random" or self.colour_jitter > 0

    @property
    def kept_variants(self) -> int:
        """How many variants of each picture there are; 0 for one of its own at each step."""
        if not self.is_varied:
            return 1
        if self.cache == "off":
            return 0
        return 4 if self.variants == "auto" else self.variants
