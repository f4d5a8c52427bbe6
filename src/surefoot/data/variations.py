"""Random crops and colours of a picture, as a pure function of what it is. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageEnhance

from surefoot.config.data import DataConfig


@dataclass(frozen=True)
class Variation:
    """One look of a picture.

    Attributes:
        across: Where the crop lies, from 0 (left) to 1 (right).
        down: From 0 (top) to 1 (bottom).
        brightness: A factor; so are the next two.
        contrast: As above.
        saturation: As above.
    """

    across: float = 0.5
    down: float = 0.5
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    def coloured(self, picture: Image.Image) -> Image.Image:
        """The picture with its colours changed."""
        for enhance, factor in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ):
            if factor != 1:
                picture = enhance(picture).enhance(factor)
        return picture


PLAIN = Variation()


def variation(data: DataConfig, content: str, variant: int) -> Variation:
    """The look of a picture in one of its variants.

    It depends on neither the seed nor the run, so that runs can share what is cached.

    Args:
        data: Whether anything is random, and how much.
        content: What tells the picture from others, such as the digest of its file.
        variant: Its number.
    """
    if not data.is_varied:
        return PLAIN
    from surefoot.data.batches import step_generator  # with numpy, which a check does without

    across, down, *shades = step_generator(0, "variation", content, variant).random(5).tolist()
    if data.crop == "center":
        across = down = 0.5
    return Variation(across, down, *(1 + data.colour_jitter * (2 * shade - 1) for shade in shades))
