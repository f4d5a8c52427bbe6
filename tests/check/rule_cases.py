"""What a rule's test takes, and the cases of the rules about schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from surefoot.finding import Level


@dataclass(frozen=True)
class Case:
    """Overrides that trip a rule, and some that are close but do not."""

    code: str
    rule: str
    level: Level
    trips: tuple[str, ...]
    passes: tuple[tuple[str, ...], ...]
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    path: str = ""

    def __str__(self) -> str:
        """Its name among the tests."""
        return f"{self.code} {' '.join(self.trips)}"


SCHEDULE_CASES = (
    Case(
        "SF106",
        "warmup_longer_than_run",
        "error",
        ("schedule.warmup_steps=120",),
        (("schedule.warmup_steps=119",),),
        {"warmup": 120, "steps": 120},
        "schedule.warmup_steps",
    ),
    Case(
        "SF106",
        "warmup_longer_than_run",
        "error",
        ("schedule.warmup_fraction=0.999",),
        (("schedule.warmup_fraction=0.99",),),
        {"warmup": 120, "steps": 120},
        "schedule.warmup_fraction",
    ),
    Case(
        "SF131",
        "warmup_given_twice",
        "error",
        ("schedule.warmup_steps=3", "schedule.warmup_fraction=0.1"),
        (("schedule.warmup_steps=3",), ("schedule.warmup_fraction=0.1",)),
        {"steps": 3, "fraction": 0.1},
        "schedule.warmup_fraction",
    ),
    Case(
        "SF132",
        "cycles_without_steps",
        "error",
        ("schedule.kind=cosine_restarts", "schedule.cycles=80", "schedule.warmup_steps=50"),
        (
            ("schedule.kind=cosine_restarts", "schedule.cycles=70", "schedule.warmup_steps=50"),
            ("schedule.kind=cosine_restarts", "schedule.cycles=4", "schedule.cycle_multiplier=2.5"),
        ),
        {"cycles": 80, "steps": 70},
        "schedule.cycles",
    ),
)
