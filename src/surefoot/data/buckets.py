"""Aspect-ratio buckets: which size a picture is brought to, and what is cropped for it. No torch.

Pictures of one batch must have one size. Instead of one square for all, each picture goes to the
size nearest to its own proportions, among sizes that all have about the same area (NovelAI 2022,
"NovelAI Improvements on Stable Diffusion").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Size:
    """Pixels; written `768x512`."""

    width: int
    height: int

    def __str__(self) -> str:
        """Width first."""
        return f"{self.width}x{self.height}"

    @property
    def area(self) -> int:
        """Pixels in all."""
        return self.width * self.height

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.width / self.height


@dataclass(frozen=True)
class Framing:
    """How a picture became the one that is trained on; families such as SDXL are told.

    Attributes:
        original: Its size in the file, upright.
        scaled: Its size after scaling, which covers `target`.
        left: Columns of the scaled picture left of what is kept.
        top: Rows above it.
        target: The size that is trained on.
    """

    original: Size
    scaled: Size
    left: int
    top: int
    target: Size

    def mirrored(self) -> Framing:
        """Of the mirror image."""
        left = self.scaled.width - self.target.width - self.left
        return Framing(self.original, self.scaled, left, self.top, self.target)


def bucket_sizes(resolution: int, step: int, longest_ratio: float) -> tuple[Size, ...]:
    """All buckets of one resolution, from the tallest to the widest.

    No bucket has more pixels than the square, so that none needs more memory.

    Args:
        resolution: Side of the square in pixels, a multiple of `step`.
        step: Sides are multiples of this many pixels.
        longest_ratio: No long side is more than this many times the short one; 1 gives the square
            alone.

    Raises:
        ValueError: An argument is below 1.
    """
    if resolution < 1 or step < 1 or longest_ratio < 1:
        raise ValueError(f"{resolution}, {step} and {longest_ratio} must all be at least 1")
    sizes = {Size(resolution, resolution)}
    longest = math.isqrt(int(resolution**2 * longest_ratio))
    for long in range(resolution + step, longest + 1, step):
        short = resolution**2 // long // step * step
        if short and long <= short * longest_ratio:
            sizes |= {Size(long, short), Size(short, long)}
    return tuple(sorted(sizes, key=lambda size: (size.ratio, size.area)))


def nearest_bucket(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """The one bucket of a picture: that which keeps most of it, and of equals the largest.

    Raises:
        ValueError: There is no bucket.
    """
    ratio = width / height
    return max(sizes, key=lambda size: (_kept_of_ratio(ratio, size.ratio), size))


def smaller_bucket(width: int, height: int, bucket: Size, step: int) -> Size:
    """A bucket for a picture that is not to be scaled up: no side is longer than its own.

    The sides are multiples of `step` and never below it, so that the tiniest pictures are scaled
    up after all.
    """
    sides = min(width, bucket.width), min(height, bucket.height)
    return Size(*(max(step, side // step * step) for side in sides))


def scale_of(width: int, height: int, target: Size) -> float:
    """By how much a picture is scaled to cover a bucket; above 1 it is scaled up."""
    return max(target.width / width, target.height / height)


def kept_share(width: int, height: int, target: Size) -> float:
    """Which share of a picture is left after cropping."""
    return _kept_of_ratio(width / height, target.ratio)


def _kept_of_ratio(ratio: float, of_bucket: float) -> float:
    return min(ratio, of_bucket) / max(ratio, of_bucket)


def frame(width: int, height: int, target: Size, across: float = 0.5, down: float = 0.5) -> Framing:
    """What scaling to cover and cropping make of a picture.

    Args:
        width: Of the picture, upright.
        height: Of the picture.
        target: Its bucket.
        across: Where the crop lies, from 0 (left) to 1 (right).
        down: From 0 (top) to 1 (bottom).
    """
    scale = scale_of(width, height, target)
    scaled = Size(
        max(target.width, round(width * scale)), max(target.height, round(height * scale))
    )
    left = round((scaled.width - target.width) * across)
    top = round((scaled.height - target.height) * down)
    return Framing(Size(width, height), scaled, left, top, target)
