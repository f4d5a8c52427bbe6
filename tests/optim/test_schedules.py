"""The learning rate over the run: closed forms."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.optim.schedules import ScheduleKind, relative_rate, schedule_factor

KINDS: tuple[ScheduleKind, ...] = get_args(ScheduleKind)


def factors(kind: ScheduleKind, steps: int, warmup_steps: int = 0) -> list[float]:
    return [
        schedule_factor(kind, step, steps=steps, warmup_steps=warmup_steps) for step in range(steps)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_is_a_line_whose_first_step_moves_and_whose_end_is_the_whole_rate(
    kind: ScheduleKind,
) -> None:
    assert factors(kind, 20, 4)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_constant_stays() -> None:
    assert factors("constant", 5) == [1.0] * 5


def test_linear_falls_by_equal_parts_to_one_part_at_the_last_step() -> None:
    assert factors("linear", 5) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert factors("linear", 6, 2)[2:] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_cosine_is_half_a_wave() -> None:
    expected = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert factors("cosine", 8) == pytest.approx(expected)
    assert factors("cosine", 11, 3)[3:] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_after_the_run_the_rate_is_zero_and_stays_so(kind: ScheduleKind) -> None:
    after = [schedule_factor(kind, step, steps=5, warmup_steps=1) for step in (5, 6, 50)]
    assert after == pytest.approx([0.0, 0.0, 0.0])


@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 60),
    warmup_steps=st.integers(0, 80),
)
def test_every_step_of_every_run_has_a_rate_above_zero(
    kind: ScheduleKind, steps: int, warmup_steps: int
) -> None:
    rates = factors(kind, steps, warmup_steps)
    assert all(0 < rate <= 1 for rate in rates)
    rising, falling = rates[: warmup_steps + 1], rates[warmup_steps:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


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
