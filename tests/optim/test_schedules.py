"""The learning rate over the run: closed forms, exact ends, torch's and transformers' schedules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, lr_scheduler
from transformers import get_scheduler

from surefoot.optim.schedules import Schedule, ScheduleKind, relative_rate, steps_of_share

KINDS: tuple[ScheduleKind, ...] = get_args(ScheduleKind)
FALLING = tuple(kind for kind in KINDS if kind not in ("constant", "inverse_sqrt"))
ROUNDING = 1e-12  # of a few float64 operations on numbers up to 1


def factors(schedule: Schedule) -> list[float]:
    return [schedule.factor(step) for step in range(schedule.steps)]


@st.composite
def schedules(draw: st.DrawFn, kinds: tuple[ScheduleKind, ...] = KINDS) -> Schedule:
    """Any schedule whose warm-up ends within the run and whose cycles all have steps."""
    kind = draw(st.sampled_from(kinds))
    steps = draw(st.integers(1, 3000))
    warmup_steps = draw(st.integers(0, steps - 1))
    schedule = Schedule(
        kind,
        steps,
        warmup_steps,
        end_factor=draw(st.floats(0, 1)) if kind in FALLING else 0.0,
        power=draw(st.floats(0.1, 10)),
        cycles=draw(st.integers(1, 7)),
        cycle_multiplier=draw(st.sampled_from([1.0, 1.5, 2.0, 3.0])),
        timescale=draw(st.integers(1, 5000)),
    )
    if len({*schedule.restarts()}) <= schedule.cycles:
        schedule = Schedule(kind, steps, warmup_steps, schedule.end_factor, timescale=7)
    return schedule


@given(schedule=schedules())
def test_every_factor_lies_between_the_end_factor_and_one(schedule: Schedule) -> None:
    found = factors(schedule)
    assert all(0 < factor <= 1 for factor in found)
    after = found[schedule.warmup_steps :]
    assert min(after) >= schedule.end_factor - ROUNDING


@given(schedule=schedules())
def test_ends_are_exact(schedule: Schedule) -> None:
    warmup, steps = schedule.warmup_steps, schedule.steps
    assert schedule.factor(warmup) == 1.0
    if warmup:
        assert schedule.factor(0) == 1 / (warmup + 1)
        assert schedule.factor(warmup - 1) == warmup / (warmup + 1)
    if schedule.kind in FALLING:
        # No rounding: for whoever looks after the last step, and the steps after it.
        assert schedule.factor(steps) == schedule.end_factor
        assert schedule.factor(10 * steps) == schedule.end_factor


@given(schedule=schedules())
def test_warm_up_rises_and_all_but_restarts_fall_after_it(schedule: Schedule) -> None:
    found = [*factors(schedule), schedule.factor(schedule.steps)]
    rising, falling = found[: schedule.warmup_steps + 1], found[schedule.warmup_steps :]
    assert all(later > earlier for earlier, later in itertools.pairwise(rising))
    if schedule.kind != "cosine_restarts":
        pairs = itertools.pairwise(falling)
        assert all(later <= earlier + ROUNDING for earlier, later in pairs)


@given(schedule=schedules(("cosine_restarts",)))
def test_each_cycle_begins_at_exactly_one_and_falls_until_the_next(schedule: Schedule) -> None:
    bounds = [schedule.warmup_steps + bound for bound in schedule.restarts()]
    assert bounds[0] == schedule.warmup_steps
    assert bounds[-1] == schedule.steps
    for begin, end in itertools.pairwise(bounds):
        cycle = [schedule.factor(step) for step in range(begin, end)]
        assert cycle[0] == 1.0
        pairs = itertools.pairwise(cycle)
        assert all(later <= earlier + ROUNDING for earlier, later in pairs)
    # Each cycle is that many times as long as the one before, to the nearest step.
    lengths = [end - begin for begin, end in itertools.pairwise(bounds)]
    unit = Fraction(bounds[-1] - bounds[0]) / sum(
        Fraction(schedule.cycle_multiplier) ** cycle for cycle in range(schedule.cycles)
    )
    for cycle, length in enumerate(lengths):
        assert abs(length - unit * Fraction(schedule.cycle_multiplier) ** cycle) <= 1


def test_linear_falls_by_equal_parts_to_one_part_at_the_last_step() -> None:
    assert factors(Schedule("linear", 5)) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert factors(Schedule("linear", 6, 2))[2:] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    ended = Schedule("linear", 4, end_factor=0.2)
    assert factors(ended) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine_is_half_a_wave() -> None:
    expected = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert factors(Schedule("cosine", 8)) == pytest.approx(expected)
    assert factors(Schedule("cosine", 11, 3))[3:] == pytest.approx(expected)


def test_rex_is_the_profile_of_its_paper() -> None:
    # 2 (1 - x) / (2 - x) at x = n/10, the paper's quotient with both sides doubled.
    expected = [float(2 * (1 - x) / (2 - x)) for x in (Fraction(n, 10) for n in range(10))]
    assert factors(Schedule("rex", 10)) == pytest.approx(expected, rel=ROUNDING)
    assert factors(Schedule("rex", 12, 2))[2:] == pytest.approx(expected, rel=ROUNDING)


def test_inverse_root_has_fallen_to_a_half_after_three_timescales() -> None:
    schedule = Schedule("inverse_sqrt", 100, 10, timescale=20)
    assert [schedule.factor(step) for step in (10, 30, 70)] == pytest.approx([1, 0.5**0.5, 0.5])


def test_power_one_is_the_line() -> None:
    line = factors(Schedule("linear", 9, 2, 0.1))
    assert factors(Schedule("polynomial", 9, 2, 0.1, power=1.0)) == pytest.approx(line)


# What transformers calls them, and what they need besides.
THEIRS: dict[ScheduleKind, tuple[str, dict[str, float]]] = {
    "constant": ("constant_with_warmup", {}),
    "linear": ("linear", {}),
    "cosine": ("cosine", {}),
    "cosine_restarts": ("cosine_with_restarts", {"num_cycles": 3}),
    "polynomial": ("polynomial", {"power": 2.5, "lr_end": 0.1}),
    "inverse_sqrt": ("inverse_sqrt", {"timescale": 4}),
}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
@pytest.mark.parametrize("kind", THEIRS)
def test_factors_are_those_of_transformers_whose_warm_up_begins_a_step_earlier(
    kind: ScheduleKind,
) -> None:
    steps, warmup = 40, 4  # 36 steps fall: three cycles of 12
    name, special = THEIRS[kind]
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # Their first step has a factor of 0 and does nothing; ours is their second.
    theirs = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=warmup + 1,
        num_training_steps=steps + 1,
        scheduler_specific_kwargs=dict(special),
    )
    expected: list[float] = []
    for _ in range(steps):
        theirs.step()
        expected.append(float(theirs.get_last_lr()[0]))
    ours = Schedule(
        kind,
        steps,
        warmup,
        end_factor=0.1 if kind == "polynomial" else 0.0,
        power=2.5,
        cycles=3,
        timescale=4,
    )
    assert factors(ours) == pytest.approx(expected, abs=ROUNDING)


def torch_factors(steps: int, make: Callable[[SGD], lr_scheduler.LRScheduler]) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found: list[float] = []
    for _ in range(steps):
        found.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("ours", "make"),
    [
        (
            Schedule("linear", 20, end_factor=0.25),
            lambda x: lr_scheduler.LinearLR(x, 1.0, 0.25, total_iters=20),
        ),
        (
            Schedule("cosine", 20, end_factor=0.1),
            lambda x: lr_scheduler.CosineAnnealingLR(x, T_max=20, eta_min=0.1),
        ),
        (
            Schedule("polynomial", 20, power=3.0),
            lambda x: lr_scheduler.PolynomialLR(x, total_iters=20, power=3.0),
        ),
        (
            Schedule("cosine_restarts", 35, end_factor=0.1, cycles=3, cycle_multiplier=2.0),
            lambda x: lr_scheduler.CosineAnnealingWarmRestarts(x, T_0=5, T_mult=2, eta_min=0.1),
        ),
    ],
    ids=["linear", "cosine", "polynomial", "restarts"],
)
def test_factors_are_those_of_torch(
    ours: Schedule, make: Callable[[SGD], lr_scheduler.LRScheduler]
) -> None:
    # torch multiplies its way from step to step.
    assert factors(ours) == pytest.approx(torch_factors(ours.steps, make), abs=1e-10)


@pytest.mark.parametrize(
    ("share", "steps", "expected"),
    [(0.0, 100, 0), (0.1, 100, 10), (0.07, 100, 7), (0.001, 100, 1), (0.5, 1, 1), (0.999, 10, 10)],
)
def test_share_of_a_run_is_the_nearest_number_of_steps(
    share: float, steps: int, expected: int
) -> None:
    assert steps_of_share(share, steps) == expected


@pytest.mark.parametrize(
    ("step", "rate"), [(1, 1e-2), (9_999, 1e-2), (10_000, 1e-2), (40_000, 5e-3), (10**6, 1e-3)]
)
def test_the_relative_rate_is_constant_for_10000_steps_and_then_the_inverse_root(
    step: int, rate: float
) -> None:
    assert relative_rate(step, warmup_init=False) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "rate"), [(1, 1e-6), (2, 2e-6), (5_000, 5e-3), (10_000, 1e-2), (40_000, 5e-3)]
)
def test_the_relative_rate_with_warm_up_rises_for_10000_steps(step: int, rate: float) -> None:
    assert relative_rate(step, warmup_init=True) == pytest.approx(rate)
