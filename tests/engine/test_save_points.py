"""Checkpoints by steps, epochs and minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.engine.save_points import SavePoints
from tests.run_files import look, write_pictures, write_run


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", 5)
    return write_run(tmp_path, {"train.steps": 20, "train.batch_size": 2})


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), [5, 10, 15, 20]),
        (("save.every=8",), [8, 16, 20]),
        (("save.every=off",), [20]),
        # Five pictures, two a step: whole epochs are behind after 2.5, 5, 7.5 steps ...
        (("save.every_epochs=1",), [3, 5, 8, 10, 13, 15, 18, 20]),
        (("save.every_epochs=3",), [8, 15, 20]),
        (("save.every_epochs=3", "save.every=6"), [6, 8, 12, 15, 18, 20]),
        (("save.every_epochs=0.4", "train.steps=4"), [1, 2, 3, 4]),
        (
            ("save.every_epochs=1", "train.gradient_accumulation=2", "train.steps=6"),
            [2, 3, 4, 5, 6],
        ),
        (("save.every_minutes=60",), [20]),
    ],
)
def test_checkpoints_are_due_by_steps_and_epochs(
    overrides: tuple[str, ...], expected: list[int], run_file: Path
) -> None:
    plan, _survey, _findings = look(run_file, *overrides)
    points = SavePoints(plan)
    assert [done for done in range(1, plan.steps + 1) if points.due(done)] == expected


def test_checkpoints_are_due_by_minutes_since_the_last_of_any_kind(run_file: Path) -> None:
    plan, _survey, _findings = look(run_file, "save.every_minutes=1.5", "save.every=12")
    now = 0.0
    points = SavePoints(plan, lambda: now)
    due: list[int] = []
    for done in range(1, 20):
        now += 20.0
        if points.due(done):
            due.append(done)
            points.saved()
    # 90 s are five steps of 20 s; the checkpoint of step 12 begins the count anew.
    assert due == [5, 10, 12, 17]
