"""The learning rate over the steps of a run, as a factor between 0 and 1. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, assert_never

ScheduleKind = Literal[
    "constant", "linear", "cosine", "cosine_restarts", "polynomial", "inverse_sqrt", "rex"
]


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule with every number in it: a pure function of the step.

    The factor is a function of the steps already done, which for the step numbered `n` from 0 is
    `n`, and is exact in float64 at its ends:

    - the first step of a warm-up of `w` steps has `1 / (w + 1)`, its last `w / (w + 1)`;
    - the step after the warm-up, step `w`, has 1;
    - with all `steps` done it is `end_factor`, so the last step still is one part above it. A last
      step with a factor of 0 would move nothing; torch and transformers count the same way.

    Attributes:
        steps: Optimizer steps of the run.
        warmup_steps: Steps of the linear warm-up, among `steps`.
        end_factor: Share of the learning rate at the end; for all but `constant`, `inverse_sqrt`.
        power: Of `polynomial`.
        cycles: Of `cosine_restarts`.
        cycle_multiplier: Each cycle is this many times as long as the one before.
        timescale: Of `inverse_sqrt`: steps after the warm-up until the factor is 1/sqrt(2).
    """

    kind: ScheduleKind
    steps: int
    warmup_steps: int = 0
    end_factor: float = 0.0
    power: float = 1.0
    cycles: int = 1
    cycle_multiplier: float = 1.0
    timescale: int = 1

    def factor(self, step: int) -> float:
        """The factor on the learning rate at a step counted from 0.

        >>> [round(Schedule("cosine", 4).factor(step), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        curve = self._curve(step - self.warmup_steps)
        # Written so that 1 stays 1 and 0 becomes `end_factor` without rounding.
        return curve + self.end_factor * (1.0 - curve)

    @property
    def falling_steps(self) -> int:
        """Steps after the warm-up."""
        return max(0, self.steps - self.warmup_steps)

    def restarts(self) -> tuple[int, ...]:
        """The steps after the warm-up at which a cycle of `cosine_restarts` begins; and the end.

        Cycles grow by `cycle_multiplier` (Loshchilov & Hutter 2017, T_mult); they begin at whole
        steps, so that each begins with a factor of exactly 1.
        """
        lengths = [self.cycle_multiplier**cycle for cycle in range(self.cycles)]
        begun = [sum(lengths[:cycle]) / sum(lengths) for cycle in range(self.cycles)]
        return (*(round(self.falling_steps * share) for share in begun), self.falling_steps)

    def _curve(self, since: int) -> float:
        """From 1 at the end of the warm-up, `since` steps ago, to 0 at the end of the run."""
        left = max(0, self.falling_steps - since) / max(1, self.falling_steps)
        match self.kind:
            case "constant":
                return 1.0
            case "linear":
                return left
            case "cosine":
                return _half_wave(min(1.0, since / max(1, self.falling_steps)))
            case "cosine_restarts":
                return self._restarting(since)
            case "polynomial":
                return left**self.power
            case "inverse_sqrt":
                # Vaswani et al. 2017, equation 3, if the timescale is that of the warm-up.
                return math.sqrt(self.timescale / (self.timescale + since))
            case "rex":
                # Chen et al. 2021 (arXiv 2107.04197), the profile of REX.
                return left / (0.5 + 0.5 * left)
            case _:
                assert_never(self.kind)

    def _restarting(self, since: int) -> float:
        if since >= self.falling_steps:
            return 0.0
        bounds = self.restarts()
        begin = max(bound for bound in bounds if bound <= since)
        end = min(bound for bound in bounds if bound > since)
        return _half_wave((since - begin) / (end - begin))


def steps_of_share(share: float, steps: int) -> int:
    """A share of a run in whole steps, the nearest number; at least 1 unless the share is 0."""
    return max(1, round(share * steps)) if share > 0 else 0


def _half_wave(share: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov & Hutter 2017, equation 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * share))


def relative_rate(step: int, *, warmup_init: bool) -> float:
    """Adafactor's own learning rate at a step counted from 1 (paper, section 8 and table 2).

    It is constant for the first 10,000 steps, or a ramp of `1e-6 * step` with `warmup_init`.
    """
    return min(1e-6 * step if warmup_init else 1e-2, step**-0.5)
