"""The rate that is told is the one that was used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from surefoot.config.optimizer import AdafactorConfig, OptimizerConfig
from surefoot.config.optimizer_libraries import (
    DAdaptationConfig,
    LionConfig,
    ProdigyConfig,
    ProdigyPlusConfig,
)
from surefoot.engine.events import read_events
from surefoot.engine.loop import train
from surefoot.engine.optimizer import build_optimizer
from surefoot.optim.rates import real_rates
from surefoot.optim.scaling import TensorKind
from surefoot.tuning.trainable import Trainable
from tests.engine.small_runs import (
    prepare,
    quiet_reporter,
    session_of,
    settings,
    write_model,
    write_pictures,
)

KINDS: tuple[TensorKind, ...] = ("lora_down", "lora_up", "magnitude")


def trainables() -> list[Trainable]:
    """Two of each kind, all numbers of a tensor alike, so that its RMS is that number."""
    return [
        Trainable(f"{layer}.{kind}", nn.Parameter(torch.full((4, 4), size)), kind, 0.5, 4, 8.0, 4)
        for layer, size in enumerate([0.2, 0.4])
        for kind in KINDS
    ]


@pytest.mark.parametrize(
    "config",
    [
        ProdigyConfig(d0=1e-3),
        DAdaptationConfig(d0=1e-3),
        ProdigyPlusConfig(d0=1e-3),
        ProdigyPlusConfig(d0=1e-3, split_groups=False),
    ],
)
def test_rate_that_is_found_is_d_times_lr(config: OptimizerConfig) -> None:
    items = trainables()
    optimizer = build_optimizer(config, 1.0, items)
    for _ in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.5
        for item in items:
            item.parameter.grad = torch.ones_like(item.parameter)
        optimizer.step()
    rates = real_rates(optimizer)
    assert rates == {group["kind"]: group["d"] * 0.5 for group in optimizer.param_groups}
    assert rates.keys() == set(KINDS)
    assert all(rate > 1e-3 * 0.5 for rate in rates.values())


def test_rate_of_adafactor_is_the_mean_step_per_element() -> None:
    items = trainables()
    optimizer = build_optimizer(AdafactorConfig(scale_parameter=True), 1e-2, items)
    rates = real_rates(optimizer)
    assert rates == {kind: pytest.approx(1e-2 * 0.3) for kind in KINDS}
    before = {item.name: item.parameter.detach().clone() for item in items}
    for item in items:
        item.parameter.grad = torch.ones_like(item.parameter)
    optimizer.step()
    steps = [float((before[item.name] - item.parameter.detach()).mean()) for item in items]
    # Differences of float32 numbers near 0.4.
    assert sum(steps) / len(steps) == pytest.approx(1e-2 * 0.3, rel=1e-4)


def test_rate_of_relative_step_is_not_the_one_that_was_set() -> None:
    config = AdafactorConfig(scale_parameter=False, relative_step=True)
    rates = real_rates(build_optimizer(config, 0.5, trainables()))
    assert rates == {kind: pytest.approx(1e-2) for kind in KINDS}


def test_rate_of_others_is_the_one_that_was_set() -> None:
    assert real_rates(build_optimizer(LionConfig(), 1e-4, trainables())) == dict.fromkeys(
        KINDS, 1e-4
    )


def test_events_hold_the_real_rate_of_every_step_and_kind(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 4)
    values: dict[str, Any] = settings(write_model(tmp_path / "model"), pictures, pictures)
    values["validation"] = {"folder": "off"}
    optimizer = {"kind": "prodigy", "d0": 1e-4}
    small = prepare(tmp_path, values, optimizer=optimizer, train__steps=3)
    with session_of(small) as session:
        train(session, quiet_reporter())
        group = session.optimizer.param_groups[0]
    events = [event for event in read_events(small.folder) if event["event"] == "rate"]
    assert [event["step"] for event in events] == [1, 2, 3]
    assert events[-1]["lora_up"] == events[-1]["lora_down"] == group["d"] * group["lr"]
    assert group["lr"] == pytest.approx(0.25)  # of a cosine over three steps
