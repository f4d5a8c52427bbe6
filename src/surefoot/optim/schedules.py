"""The learning rate over the steps of a run, as a factor between 0 and 1. No torch."""

from __future__ import annotations

import math
from typing import Literal, assert_never

ScheduleKind = Literal["constant", "linear", "cosine"]


def schedule_factor(kind: ScheduleKind, step: int, *, steps: int, warmup_steps: int) -> float:
    """The factor on the learning rate at a step counted from 0.

    A linear warm-up over `warmup_steps` (the first step already moves), then constant, or down to
    0 along a line or half a cosine, which would reach 0 one step after the last and stay there.

    >>> [round(schedule_factor("cosine", step, steps=4, warmup_steps=0), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    share = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - share
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * share))
        case _:
            assert_never(kind)


def relative_rate(step: int, *, warmup_init: bool) -> float:
    """Adafactor's own learning rate at a step counted from 1 (paper, section 8 and table 2).

    It is constant for the first 10,000 steps, or a ramp of `1e-6 * step` with `warmup_init`.
    """
    return min(1e-6 * step if warmup_init else 1e-2, step**-0.5)
