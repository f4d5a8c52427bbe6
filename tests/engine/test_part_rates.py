"""Parts with learning rates of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surefoot.engine.events import read_events
from tests.engine.small_runs import (
    prepare,
    settings,
    train,
    write_model,
    write_pictures,
)

PARTS = {"unet", "text_encoder"}
TUNING = {"kind": "lora", "rank": 2, "targets": "attention", "parts": sorted(PARTS)}


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    model = write_model(tmp_path / "model")
    pictures = write_pictures(tmp_path / "pictures", 5)
    held_out = write_pictures(tmp_path / "held out", 2, first=20)
    made = settings(model, pictures, held_out) | {"tuning": TUNING}
    return made | {"schedule": {"kind": "linear", "warmup_steps": 2}}


@pytest.mark.parametrize(
    "optimizer",
    [
        {"kind": "adamw"},
        {"kind": "adafactor", "scale_parameter": False},
        {"kind": "muon"},
        {"kind": "schedule_free_adamw"},
    ],
    ids=lambda optimizer: optimizer["kind"],
)
def test_each_part_is_trained_at_its_own_rate_times_the_schedule(
    optimizer: dict[str, Any], values: dict[str, Any], tmp_path: Path
) -> None:
    rates = {"lr": 1e-3, "part_lr": {"text_encoder": 2e-5}}
    averages = optimizer["kind"].startswith("schedule_free")
    schedule = {"kind": "constant", "warmup_steps": 2} if averages else values["schedule"]
    small = prepare(tmp_path, values, optimizer=optimizer | rates, schedule=schedule)
    train(small)
    told = [event for event in read_events(small.folder) if event["event"] == "rate"]
    assert len(told) == small.plan.steps
    for event in told:
        factor = small.plan.schedule.factor(int(str(event["step"])) - 1)
        for kind in ("lora_up", "lora_down"):
            assert event[f"unet.{kind}"] == pytest.approx(1e-3 * factor)
            assert event[f"text_encoder.{kind}"] == pytest.approx(2e-5 * factor)


def test_sheet_shows_the_steps_of_each_part(values: dict[str, Any], tmp_path: Path) -> None:
    optimizer = {"kind": "adamw", "lr": 1e-3, "part_lr": {"text_encoder": 2e-5}}
    constant = {"kind": "constant"}
    plan = prepare(tmp_path, values, optimizer=optimizer, schedule=constant).plan
    steps = {row.name: row.first for row in plan.sheet}
    assert steps == pytest.approx(
        {
            "unet.lora_up": 1e-3,
            "text_encoder.lora_up": 2e-5,
            "unet.lora_down": 1e-3,
            "text_encoder.lora_down": 2e-5,
        }
    )
