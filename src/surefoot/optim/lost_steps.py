"""What becomes of a step that is smaller than the digits of a bfloat16 weight. No torch."""

from __future__ import annotations

import math


def smallest_change(size: float) -> float:
    """The least step that changes a bfloat16 number of this size, if rounded to the nearest.

    A bfloat16 has 8 binary digits: from 2^e up to 2^(e+1) its neighbours are 2^(e-7) away, and
    what is below half of that is rounded away.
    """
    return math.ldexp(1.0, math.frexp(size)[1] - 9)


def share_lost(step: float, rms: float) -> float:
    """Share of a tensor's numbers that a step leaves as they are, if rounded to the nearest.

    The numbers are taken to be drawn from a normal distribution about zero with this root mean
    square; a tensor of zeros loses nothing.
    """
    if rms == 0:
        return 0.0
    # From this size on, the smallest change is more than the step.
    size = math.ldexp(1.0, math.frexp(step)[1] + 8)
    return math.erfc(size / rms / math.sqrt(2))
