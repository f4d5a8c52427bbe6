"""Preview pictures in two numbers, by which noise is told from a picture. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from surefoot.engine.watch_verdict import Look

_FLATTEST = 1.0  # variance, of 255^2: below it a picture has one colour


def look_at(pictures: Sequence[Path], vae_factor: int) -> Look:
    """The median over pictures, so that a single odd one does not count.

    Noise in the latents comes out of the VAE as blobs of a latent's width, which are smooth from
    pixel to pixel; they are rough by that width.
    """
    looks = [_look(path, vae_factor) for path in pictures]
    return Look(
        statistics.median(look.roughness for look in looks),
        statistics.median(look.contrast for look in looks),
    )


def _look(path: Path, cell: int) -> Look:
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    height, width = pixels.shape[0] // cell, pixels.shape[1] // cell
    whole = pixels[: height * cell, : width * cell]
    cells = whole.reshape(height, cell, width, cell, 3).mean(axis=(1, 3))
    spread = float(cells.var(axis=(0, 1)).mean())
    variance = float(pixels.var(axis=(0, 1)).mean())
    steps = [np.square(np.diff(cells, axis=axis)).mean() for axis in (0, 1)]
    roughness = float(np.mean(steps)) / (2 * spread) if spread > _FLATTEST else 0.0
    return Look(roughness, variance**0.5)
