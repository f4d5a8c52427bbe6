"""Held-out loss against learning rate, and what can be read off it. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.study.results import Result

_LEARNS = 0.5
_LEARNS_LITTLE = 0.1


@dataclass(frozen=True)
class Curve:
    """One method under one setting.

    Attributes:
        losses: Learning rate, ascending, to the losses by seed; infinity where it diverged.
    """

    method: str
    setting: str
    losses: dict[float, dict[int, float]]

    def mean(self, lr: float) -> float:
        """Mean over the seeds; infinity if one of them diverged."""
        return statistics.fmean(self.losses[lr].values())

    @property
    def best(self) -> float:
        """The learning rate of the lowest mean."""
        # One that fewer seeds have tried is no rival: its mean has another error.
        most = max(len(seeds) for seeds in self.losses.values())
        tried = [lr for lr, seeds in self.losses.items() if len(seeds) == most]
        return min(tried, key=self.mean)


def optimum(points: Sequence[tuple[float, float]]) -> float:
    """The lowest point of the parabola through the best point and its neighbours.

    The parabola is in the logarithm of the rate. At an end of the grid, or beside a divergence, it
    is the best rate itself.

    Args:
        points: Learning rates, ascending, and losses.
    """
    place = min(range(len(points)), key=lambda index: points[index][1])
    if place in (0, len(points) - 1):
        return points[place][0]
    (x0, y0), (x1, y1), (x2, y2) = (
        (math.log(lr), loss) for lr, loss in points[place - 1 : place + 2]
    )
    if not all(map(math.isfinite, (y0, y1, y2))):
        return points[place][0]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    if bend <= 0:
        return points[place][0]
    # The slope of the parabola is `left` in the middle of x0 and x1.
    return math.exp((x0 + x1) / 2 - left / (2 * bend))


@dataclass(frozen=True)
class Study:
    """All curves of one protocol.

    Attributes:
        untrained: Held-out loss without training.
        lowest: The lowest mean of any curve, to which falls are compared.
    """

    curves: dict[tuple[str, str], Curve]
    untrained: float
    lowest: float
    seeds: int

    def share(self, loss: float) -> float:
        """How much of the largest fall of the study a loss is; minus infinity if it diverged."""
        return (self.untrained - loss) / (self.untrained - self.lowest)

    def of_setting(self, setting: str) -> list[Curve]:
        """The curves of a setting, in the order of the methods as they were run."""
        return [curve for curve in self.curves.values() if curve.setting == setting]


def study_of(results: Iterable[Result]) -> Study:
    """Sorts results into curves.

    Raises:
        ValueError: If there is no result.
    """
    found = list(results)
    if not found:
        raise ValueError("there are no results")
    curves: dict[tuple[str, str], Curve] = {}
    for result in sorted(found, key=lambda result: (result.lr, result.seed)):
        key = (result.method, result.setting)
        curve = curves.setdefault(key, Curve(result.method, result.setting, {}))
        curve.losses.setdefault(result.lr, {})[result.seed] = result.judged_loss
    return Study(
        curves=curves,
        untrained=statistics.fmean(result.outcome.untrained for result in found),
        lowest=min(curve.mean(curve.best) for curve in curves.values()),
        seeds=len({result.seed for result in found}),
    )


def optima(study: Study, curve: Curve) -> list[float]:
    """For each seed that tried three rates or more, the best one, between those tried.

    A neighbour beyond the cliff tells that the optimum is before it, not how far: it bends no
    parabola.
    """
    seeds = sorted({seed for losses in curve.losses.values() for seed in losses})
    found: list[float] = []
    for seed in seeds:
        points = [(lr, losses[seed]) for lr, losses in curve.losses.items() if seed in losses]
        level = [
            (lr, loss if verdict(study.share(loss)) == "learns" else math.inf)
            for lr, loss in points
        ]
        if len(level) >= 3:
            found.append(optimum(level))
    return found


def verdict(share: float) -> str:
    """A key of the words: what a share of the largest fall means."""
    if share < 0:
        return "noise"
    if share < _LEARNS_LITTLE:
        return "nothing"
    return "little" if share < _LEARNS else "learns"


def cliff(study: Study, curve: Curve) -> float:
    """The lowest rate above the best that was tried and learns little or less; else infinity."""
    beyond = [lr for lr in curve.losses if lr > curve.best]
    fallen = [lr for lr in beyond if verdict(study.share(curve.mean(lr))) != "learns"]
    return min(fallen, default=math.inf)


def common_rate(study: Study, curves: Sequence[Curve]) -> tuple[float, float] | None:
    """The one rate that serves all curves best, and the share of the worst curve at it."""
    shared = set.intersection(*(set(curve.losses) for curve in curves))
    if not shared:
        return None

    def worst(lr: float) -> float:
        return min(study.share(curve.mean(lr)) for curve in curves)

    best = max(sorted(shared), key=worst)
    return best, worst(best)
