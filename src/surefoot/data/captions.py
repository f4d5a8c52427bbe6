"""What is done to a caption before it is encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def drop_caption(caption: str, dropout: float, generator: np.random.Generator) -> str:
    """Replace the caption by "" with probability `dropout`.

    This trains the unconditional branch that classifier-free guidance needs (Ho and Salimans
    2022, algorithm 1). One number is drawn whatever `dropout` is, so that changing it does not
    shift any later draw.

    Raises:
        ValueError: `dropout` is not within 0 to 1.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must lie within 0 to 1, not {dropout}")
    return "" if generator.random() < dropout else caption
