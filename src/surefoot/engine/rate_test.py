"""A learning-rate range test on a run's own data, in a copy that is thrown away.

Smith 2017, Cyclical Learning Rates, arXiv 1506.01186, section 3.3: the rate rises from stage to
stage in one training, and what the loss does says which rates train. There the loss is that of the
training batches; here it is measured after each stage on the same pictures, noise and timesteps, so
that what was drawn does not decide.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from surefoot.config.optimizer import AdafactorConfig
from surefoot.engine.assemble import assemble
from surefoot.engine.events import Events
from surefoot.engine.loop import loss_at
from surefoot.engine.probe import take_step
from surefoot.engine.session import Session
from surefoot.finding import Finding, Refused
from surefoot.optim.facts import facts_of
from surefoot.plan import Plan
from surefoot.survey import Survey
from surefoot.watch_words import FINDS_ITSELF, OF_PARTS, SETS_ITSELF

_BELOW, _ABOVE = 1.5, 2.0  # decades around the planned rate
_PER_DECADE = 4  # stages
_DRAWN = 32  # pictures that a loss is measured on, at least
_RUINED = 2.0  # times the loss of the beginning: higher rates need not be tried
_LEARNED = 0.01  # share of its beginning that the loss must fall by for a rate to be told
_RISEN = 1.01  # times the lowest loss

Outcome = Literal["found", "falls to the end", "learns nothing"]


@dataclass(frozen=True)
class Stage:
    """Some steps at one learning rate, and the loss after them."""

    lr: float
    loss: float


@dataclass(frozen=True)
class RateTest:
    """What the test found.

    Attributes:
        before: The loss without any step.
        stages: In the order of their rates; ended early where the loss is ruined.
        steps_each: Steps of a stage.
        planned: The run's own learning rate.
        outcome: Whether the loss falls at all, and whether it rises again.
        fastest: The rate at which the loss falls by the largest share; NaN if it does not fall.
        rises_above: The last rate before the loss rises, NaN if it does not.
    """

    before: float
    stages: tuple[Stage, ...]
    steps_each: int
    planned: float
    outcome: Outcome
    fastest: float
    rises_above: float


def find_rate(plan: Plan, survey: Survey, steps_each: int) -> RateTest:
    """Trains with a rising rate; the run's own folder is not touched.

    Raises:
        Refused: If there is no rate to look for, or the run cannot be assembled.
    """
    if reason := _nothing_to_find(plan):
        raise Refused([Finding("SF534", "error", "optimizer", {"reason": reason})])
    with TemporaryDirectory() as folder:
        copy = replace(plan, run_folder=Path(folder))
        with Events(copy.run_folder, 0) as events:
            session = assemble(copy, survey, events, None)
            before = _fixed_loss(session)
            return judged(before, _stages(session, before, steps_each), steps_each, plan.lr)


def rates_around(planned: float) -> list[float]:
    """The rates that are tried, in a geometric row."""
    count = round((_BELOW + _ABOVE) * _PER_DECADE)
    return [planned * 10 ** (number / _PER_DECADE - _BELOW) for number in range(count + 1)]


def judged(before: float, stages: Sequence[Stage], steps_each: int, planned: float) -> RateTest:
    """What the losses say of the rates.

    The fall of a stage is that of the loss's logarithm.
    """
    losses = [before, *(stage.loss if math.isfinite(stage.loss) else math.inf for stage in stages)]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    fastest = rises_above = math.nan
    outcome: Outcome = "learns nothing"
    if losses[lowest] < (1 - _LEARNED) * before:
        fallen = losses[: lowest + 1]
        falls = [math.log(old / new) for old, new in pairwise(fallen)]
        fastest = stages[max(range(len(falls)), key=falls.__getitem__)].lr
        outcome = "falls to the end"
        if losses[-1] > _RISEN * losses[lowest]:
            outcome, rises_above = "found", stages[lowest - 1].lr
    elif losses[-1] > _RISEN * before:
        rises_above = stages[max(0, lowest - 1)].lr
    return RateTest(before, tuple(stages), steps_each, planned, outcome, fastest, rises_above)


def _nothing_to_find(plan: Plan) -> str:
    optimizer = plan.config.optimizer
    if isinstance(optimizer, AdafactorConfig) and optimizer.relative_step:
        return SETS_ITSELF
    if facts_of(optimizer).finds_rate:
        return FINDS_ITSELF
    return OF_PARTS if optimizer.part_lr else ""


def _stages(session: Session, before: float, steps_each: int) -> list[Stage]:
    stages: list[Stage] = []
    step = 0
    for lr in rates_around(session.plan.lr):
        for group in session.optimizer.param_groups:
            group["lr"] = lr
        for _each in range(steps_each):
            take_step(session, step)
            step += 1
        stages.append(Stage(lr, _fixed_loss(session)))
        if not stages[-1].loss < _RUINED * before:
            break
    return stages


def _fixed_loss(session: Session) -> float:
    """Always of the same pictures, noise and timesteps: those of steps that no run reaches here."""
    train = session.plan.config.train
    batches = -(-_DRAWN // (train.batch_size * train.gradient_accumulation))
    return statistics.fmean(loss_at(session, session.plan.steps + at) for at in range(batches))
