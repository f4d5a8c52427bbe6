"""What a run's figures so far say about it. Pure logic on numbers: no torch, no files.

Every threshold here was set on runs of the built-in model, see docs/watch-and-probe.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from surefoot.finding import Finding, Value

T = TypeVar("T")
Verdict = Literal[
    "no verdict yet", "learning", "learning nothing", "overfitting", "diverging", "noise"
]

_NARROWEST, _WIDEST = 10, 50  # steps that the smoothed loss looks back
_ERRORS = 4.0  # standard errors that a rise of the training loss must exceed
_RISE = 1.3  # of the training loss over its beginning: diverging
_ABOVE_BASE = 1.5  # of the training loss over the base model's validation loss: diverging
_FAR_ABOVE_BASE = 8.0  # of each of three training losses in a row: diverging
_WORSE_THAN_BASE = 1.25  # of the validation loss over the base model's: diverging
_EXPLODED, _EXPLODED_AT_ONCE = 20.0, 50.0  # of the gradient's norm over its beginning
_SUSTAINED = 5  # steps whose median a norm is taken by
_VANISHED = 1e-3  # of its beginning
_OVER = 1.03  # of two validation losses in a row over the best: overfitting
_FAR_OVER = 1.10  # of one
_FALL_LOST = 0.1  # share of the best fall that must be lost besides
_IDLE_IN_RUN = 0.01  # of its layer, for an adapter that could be said to learn nothing
_IDLE_IN_STEP, _IDLE_IN_SHORT = 5e-5, 1e-5  # in a run of less than _SHORT steps
_SHORT = 100
_IDLE_BESIDE = 50.0  # times as fast as lora_up the magnitude moves, where only it is trained
_STILL_IN_RUN = 1e-3  # of itself, for a weight
_STILL_IN_STEP = 1e-5
_FINDING = 100  # steps that an optimizer may look for its learning rate
_NO_GAIN = 3e-4  # of the base model's loss, at half of the run
_TRIED = 50  # steps without gain before that is told; 20 of Lion on LoKr gain less and are sound
_GAIN = 0.005
_ROUGH, _ROUGHER = 0.5, 1.6  # of a preview's neighbouring cells, and times the base model's
_FLAT = 0.15  # of the base model's contrast


@dataclass(frozen=True)
class Stride:
    """How fast tensors of one kind move, as a share of themselves; `lora_up`: of its layer.

    Attributes:
        per_step: By one step.
        since_start: Since the run began.
    """

    per_step: float
    since_start: float


@dataclass(frozen=True)
class Look:
    """What pictures look like in numbers.

    Attributes:
        roughness: Mean squared difference of neighbouring cells over twice their variance, cells
            being squares of a latent's width: above 0.5 for noise, near 0 for a smooth
            picture.
        contrast: Standard deviation of the pixels, of 255.
    """

    roughness: float
    contrast: float


@dataclass
class History:
    """The figures of a run, by the number of steps done.

    Attributes:
        losses: The training loss of each step.
        norms: The norm of all gradients of each step, before clipping.
        validations: The validation loss; at 0 the base model's.
        previews: Likewise.
        strides: By kind of tensor.
    """

    losses: dict[int, float] = field(default_factory=dict[int, float])
    norms: dict[int, float] = field(default_factory=dict[int, float])
    validations: dict[int, float] = field(default_factory=dict[int, float])
    previews: dict[int, Look] = field(default_factory=dict[int, Look])
    strides: dict[int, dict[str, Stride]] = field(default_factory=dict[int, dict[str, Stride]])


@dataclass(frozen=True)
class Outlook:
    """What of the plan the verdict needs.

    Attributes:
        rates: The scheduled learning rate of every step; only their ratios count.
        finds_rate: The optimizer finds its rate in the run and may begin with next to none.
        foretold: Codes of the findings that the check gave beforehand.
    """

    rates: Sequence[float]
    finds_rate: bool = False
    foretold: frozenset[str] = frozenset()

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return len(self.rates)

    @property
    def window(self) -> int:
        """Steps that the smoothed loss is the mean of: a twentieth of the run, 10 to 50."""
        return max(_NARROWEST, min(_WIDEST, self.steps // 20))


@dataclass(frozen=True)
class Judged:
    """A verdict, and the finding that says it in words where it is trouble."""

    verdict: Verdict
    finding: Finding | None = None


def judge(history: History, outlook: Outlook) -> Judged:
    """The verdict on a run, the worst that holds."""
    for rule in (_diverging, _exploding, _noise, _overfitting, _vanished, _idle, _no_gain):
        found = rule(history, outlook)
        if found is not None:
            return found
    return Judged("learning" if _learns(history, outlook) else "no verdict yet")


def smoothed(history: History, window: int) -> float:
    """Mean training loss of the last `window` steps, NaN before the first."""
    recent = list(history.losses.values())[-window:]
    return statistics.fmean(recent) if recent else math.nan


def _diverging(history: History, outlook: Outlook) -> Judged | None:
    """The loss is clearly above where it began, or above what the untrained model has."""
    window = outlook.window
    losses = list(history.losses.values())
    recent = losses[-min(window, max(5, len(losses) // 2)) :]
    if len(recent) < 5:
        return None
    base = history.validations.get(0, math.nan)
    beginning = losses[:window] if len(losses) >= 2 * window else []
    worse = _last(history.validations, math.nan) > _WORSE_THAN_BASE * base
    if beginning and worse and _clearly_above(beginning, recent, 1.0, errors=2.0):
        return None  # the training loss falls: that is overfitting
    level = math.exp(_log_mean(beginning)[0]) if beginning else base
    risen = bool(beginning) and _clearly_above(recent, beginning, _RISE)
    above = _log_mean(recent)[0] - _ERRORS * _log_mean(recent)[1] > math.log(_ABOVE_BASE * base)
    far = min(losses[-3:]) > _FAR_ABOVE_BASE * base
    if not (worse or risen or above or far):
        return None
    strides = _last(history.strides, dict[str, Stride]())
    fastest = max(strides, key=lambda kind: strides[kind].per_step, default="-")
    values: dict[str, Value] = {
        "loss": statistics.fmean(recent),
        "level": base if math.isnan(level) else level,
        "fastest": fastest,
        "percent": 100 * strides[fastest].per_step if strides else math.nan,
        "cause": _cause(outlook, "SF109", "SF110", "SF201", "SF101", "SF102"),
    }
    return Judged("diverging", Finding("SF523", "error", "optimizer.lr", values))


def _exploding(history: History, outlook: Outlook) -> Judged | None:
    """The gradients have grown far beyond those of the beginning, whatever the loss is."""
    norms, window = _norms(history), outlook.window
    if len(norms) < _SUSTAINED or not norms[0]:
        return None
    # At once: the first gradient is that of the untrained model; later ones may be high already,
    # and fall again once the weights are broken.
    level, now = norms[0], _highest(norms[: 2 * window])
    found = now > _EXPLODED_AT_ONCE * level and not _gains(history)
    if not found and len(norms) >= 2 * window:
        level, now = statistics.median(norms[:window]), statistics.median(norms[-window:])
        found = now > _EXPLODED * level
    if not found:
        return None
    cause = _cause(outlook, "SF109", "SF110", "SF201", "SF101", "SF102")
    values: dict[str, Value] = {"now": now, "level": level, "cause": cause}
    return Judged("diverging", Finding("SF525", "error", "optimizer.lr", values))


def _vanished(history: History, outlook: Outlook) -> Judged | None:
    """Hardly a gradient arrives any more."""
    norms, window = _norms(history), outlook.window
    if len(norms) < 2 * window:
        return None
    # What explodes at first and falls to where it began has not vanished.
    level = min(norms[0], statistics.median(norms[:window]))
    now = statistics.median(norms[-window:])
    if now > _VANISHED * level:
        return None
    cause = _cause(outlook, "SF109", "SF110", "SF201", "SF101")
    values: dict[str, Value] = {"now": now, "level": level, "cause": cause}
    return Judged("learning nothing", Finding("SF526", "error", "optimizer.lr", values))


def _norms(history: History) -> list[float]:
    """The gradient's norm of each step; what is not finite is the largest of all."""
    return [norm if math.isfinite(norm) else math.inf for norm in history.norms.values()]


def _highest(norms: Sequence[float]) -> float:
    """That they have come to in several steps together: single steps may jump."""
    return max(
        statistics.median(norms[end - _SUSTAINED : end])
        for end in range(_SUSTAINED, len(norms) + 1)
    )


def _noise(history: History, outlook: Outlook) -> Judged | None:
    """Previews have lost what the base model's have: neighbours that are alike."""
    before, now = history.previews.get(0), _last(history.previews, None)
    if before is None or now is None or now == before:
        return None
    rough = now.roughness > max(_ROUGH, _ROUGHER * before.roughness)
    if not rough and now.contrast > _FLAT * before.contrast:
        return None
    values: dict[str, Value] = {
        "roughness": now.roughness,
        "before": before.roughness,
        "contrast": now.contrast,
        "contrast_before": before.contrast,
        "cause": _cause(outlook, "SF201", "SF109", "SF110", "SF101"),
    }
    return Judged("noise", Finding("SF524", "error", "", values))


def _overfitting(history: History, outlook: Outlook) -> Judged | None:
    """The validation loss goes up again, though the training loss does not."""
    if len(history.validations) < 3 or 0 not in history.validations:
        return None
    losses = list(history.validations.values())
    best = min(losses)
    step = next(at for at, loss in history.validations.items() if loss == best)
    needed = best + _FALL_LOST * (history.validations[0] - best)
    far = losses[-1] > max(_FAR_OVER * best, needed)
    twice = min(losses[-2:]) > max(_OVER * best, needed)
    if not (far or twice):
        return None
    values: dict[str, Value] = {
        "best": best,
        "step": step,
        "now": losses[-1],
        "base": history.validations[0],
        "cause": _cause(outlook, "SF303"),
    }
    return Judged("overfitting", Finding("SF522", "warning", "train.steps", values))


def _idle(history: History, outlook: Outlook) -> Judged | None:
    """What should change the layers takes steps that come to nothing by the end of the run."""
    done = max(history.strides, default=0)
    if len(history.strides) < 2 or done < _patience(outlook, 0):
        return None
    kind = next((name for name in ("lora_up", "weight") if name in history.strides[done]), "")
    if not kind:
        return None
    pace = _pace(history, outlook, kind)
    run = pace * math.fsum(outlook.rates)
    step = run / outlook.steps
    idle_step = _IDLE_IN_STEP if outlook.steps >= _SHORT else _IDLE_IN_SHORT
    most_run, most_step = (
        (_IDLE_IN_RUN, idle_step) if kind == "lora_up" else (_STILL_IN_RUN, _STILL_IN_STEP)
    )
    other = _pace(history, outlook, "magnitude") if kind == "lora_up" else 0.0
    only_magnitude = other > _IDLE_BESIDE * pace
    if not only_magnitude and (run >= most_run or step >= most_step or _gains(history)):
        return None
    values: dict[str, Value] = {
        "kind": kind,
        "percent": 100 * run,
        "other": "magnitude" if only_magnitude else "-",
        "other_percent": 100 * other * math.fsum(outlook.rates),
        "times": max(2.0, 10 * most_run / run) if run else math.inf,
        "cause": _cause(outlook, "SF101", "SF102", "SF129", "SF106", "SF107"),
    }
    code = "SF520" if only_magnitude else "SF519"
    return Judged("learning nothing", Finding(code, "error", "optimizer", values))


def _no_gain(history: History, outlook: Outlook) -> Judged | None:
    """At half of the run the validation loss is still the base model's."""
    base, last = history.validations.get(0), max(history.validations, default=0)
    needed = max(_TRIED, 2 * outlook.window, outlook.steps / 2)
    if base is None or last < _patience(outlook, needed):
        return None
    if min(_after(history.validations, 0)) < base * (1 - _NO_GAIN):
        return None
    values: dict[str, Value] = {
        "base": base,
        "now": history.validations[last],
        "step": last,
        "cause": _cause(outlook, "SF101", "SF129", "SF201", "SF107"),
    }
    return Judged("learning nothing", Finding("SF521", "warning", "optimizer.lr", values))


def _learns(history: History, outlook: Outlook) -> bool:
    if len(history.validations) > 1:
        return _gains(history)
    losses = list(history.losses.values())
    if len(losses) < 2 * outlook.window:
        return False
    beginning, recent = losses[: outlook.window], losses[-outlook.window :]
    return _clearly_above(beginning, recent, 1.0, errors=2.0)


def _gains(history: History) -> bool:
    """Whether the validation loss has come clearly below the base model's."""
    base = history.validations.get(0, math.nan)
    return _last(history.validations, math.nan) < base * (1 - _GAIN)


def _pace(history: History, outlook: Outlook, kind: str) -> float:
    """How far a unit of learning rate takes it, over the steps that were measured."""
    measured = {step: found[kind] for step, found in history.strides.items() if kind in found}
    if outlook.finds_rate and measured:
        measured = {max(measured): measured[max(measured)]}
    rates = math.fsum(outlook.rates[step - 1] for step in measured)
    taken = math.fsum(stride.per_step for stride in measured.values())
    return taken / rates if rates else 0.0


def _patience(outlook: Outlook, steps: float) -> float:
    """These steps; an optimizer that looks for its rate may move by nothing for a good while."""
    return max(steps, _FINDING, outlook.steps / 2) if outlook.finds_rate else steps


def _cause(outlook: Outlook, *codes: str) -> str:
    """The first of these findings that the check gave; empty if it gave none."""
    return next((code for code in codes if code in outlook.foretold), "")


def _log_mean(losses: Sequence[float]) -> tuple[float, float]:
    """Mean of the logarithms and its standard error; a loss spreads by factors, not by sums."""
    logs = [math.log(max(loss, 1e-30)) if math.isfinite(loss) else 30.0 for loss in losses]
    if len(logs) < 2:
        return (logs[0] if logs else math.nan), math.inf
    return statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))


def _clearly_above(
    high: Sequence[float], low: Sequence[float], times: float, errors: float = _ERRORS
) -> bool:
    """Whether losses are more than `times` others, beyond the errors of both means."""
    (above, first), (below, second) = _log_mean(high), _log_mean(low)
    return above - below > math.log(times) + errors * math.hypot(first, second)


def _after(values: Mapping[int, T], step: int) -> list[T]:
    return [value for at, value in values.items() if at > step]


def _last(values: Mapping[int, T], otherwise: T) -> T:
    return values[max(values)] if values else otherwise
