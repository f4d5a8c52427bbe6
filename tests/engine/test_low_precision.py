"""Weights in bfloat16, and the step inside the backward pass, in whole runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from surefoot.engine import loop
from surefoot.engine.ema import MovingAverage
from surefoot.engine.events import read_events
from surefoot.engine.sample import sample_run
from surefoot.engine.session import Session
from surefoot.finding import Refused
from tests.engine.small_runs import (
    SmallRun,
    prepare,
    quiet_reporter,
    session_of,
    settings,
    train,
    write_model,
    write_pictures,
)

BF16: dict[str, Any] = {
    "tuning": {"kind": "full", "weights": "bf16"},
    "train__precision": "bf16",
}
INSIDE = {"optimizer__step_in_backward": True}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("low precision")
    written = settings(
        write_model(folder / "model"), write_pictures(folder / "pictures", 4), folder / "pictures"
    )
    written["tuning"] = {"kind": "full"}
    written["validation"] = {"folder": "off"}
    written["train"]["steps"] = 4
    written["save"] = {"every": 2}
    return written


def checkpoint(small: SmallRun) -> dict[str, object]:
    """The hashes of weights, averages and the optimizer's memory at the end."""
    folder = small.folder / "checkpoints" / f"step-{small.plan.steps:06d}"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {key: manifest[key] for key in ("sha256", "optimizer")}


def trained(small: SmallRun) -> dict[str, Tensor]:
    folder = small.folder / "checkpoints" / f"step-{small.plan.steps:06d}"
    return load_file(folder / "trained.safetensors")


def numbers(small: SmallRun, name: str) -> list[float]:
    return [float(str(event[name])) for event in read_events(small.folder) if name in event]


def codes(small: SmallRun) -> list[str]:
    found = [event["finding"] for event in read_events(small.folder) if "finding" in event]
    return [str(finding["code"]) for finding in found if isinstance(finding, dict)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**BF16, "train__ema": 0.9},
        {"train__gradient_accumulation": 2, "train__gradient_checkpointing": True},
        {"tuning": {"kind": "dora", "rank": 2, "targets": "all"}},
    ],
    ids=["fp32", "bf16", "accumulated", "dora"],
)
def test_step_inside_backward_makes_the_same_run(
    changes: dict[str, Any], values: dict[str, Any], tmp_path: Path
) -> None:
    apart = prepare(tmp_path / "apart", values, **changes)
    inside = prepare(tmp_path / "inside", values, **changes, **INSIDE)
    for small in (apart, inside):
        train(small)
    assert checkpoint(inside) == checkpoint(apart)
    assert numbers(inside, "loss") == numbers(apart, "loss")
    # Norms of tensors, added up in another order.
    assert numbers(inside, "gradient_norm") == pytest.approx(numbers(apart, "gradient_norm"), 1e-5)
    assert all(norm > 0 for norm in numbers(inside, "gradient_norm"))


@pytest.mark.parametrize(
    "changes",
    [
        {**BF16, "optimizer__rounding": "stochastic", "train__ema": 0.9},
        {**BF16, "optimizer__rounding": "kahan"},
        INSIDE,
    ],
    ids=["stochastic", "kahan", "inside"],
)
def test_interrupted_run_ends_as_an_uninterrupted_one(
    changes: dict[str, Any],
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = prepare(tmp_path / "whole", values, **changes)
    train(whole)
    halved = prepare(tmp_path / "halved", values, **changes)
    with monkeypatch.context() as patch:
        original = loop._loss

        def loss(session: Session, step: int, part: int) -> Tensor:
            if step == 3:
                raise KeyboardInterrupt
            return original(session, step, part)

        patch.setattr(loop, "_loss", loss)
        with pytest.raises(KeyboardInterrupt):
            train(halved)
    assert train(halved).resumed_from == 2
    assert checkpoint(halved) == checkpoint(whole)
    written = "model/unet/diffusion_pytorch_model.safetensors"
    assert (halved.folder / written).read_bytes() == (whole.folder / written).read_bytes()
    dtype = torch.bfloat16 if "train__precision" in changes else torch.float32
    assert {tensor.dtype for tensor in trained(whole).values()} == {dtype}


def test_another_seed_rounds_otherwise(values: dict[str, Any], tmp_path: Path) -> None:
    with session_of(prepare(tmp_path, values, **BF16, seed=8)) as session:
        assert {group["seed"] for group in session.optimizer.param_groups} == {8}


def test_steps_below_the_digits_are_lost_in_rounding_to_the_nearest_and_kept_otherwise(
    values: dict[str, Any], tmp_path: Path
) -> None:
    moved: dict[str, float] = {}
    told: dict[str, list[str]] = {}
    planned: dict[str, float] = {}
    for rounding in ("nearest", "stochastic", "kahan"):
        optimizer = {"kind": "adafactor", "lr": 1e-5, "scale_parameter": False}
        small = prepare(
            tmp_path / rounding, values, **BF16, optimizer=optimizer | {"rounding": rounding}
        )
        with session_of(small) as session:
            before = {item.name: item.parameter.clone() for item in session.tuned.trainables}
            loop.train(session, quiet_reporter())
        after = trained(small)
        changed = sum(int((after[name] != value).sum()) for name, value in before.items())
        moved[rounding] = changed / sum(value.numel() for value in before.values())
        told[rounding] = codes(small)
        planned[rounding] = {row.kind: row.lost for row in small.plan.sheet}["weight"]
    # The mean step is 1/100 to 1/10 of the distance between neighbours, and there are four.
    assert moved["stochastic"] > 2 * moved["nearest"]
    assert planned["nearest"] > 0.5
    assert planned["stochastic"] == planned["kahan"] == 0
    assert "SF501" in told["nearest"]
    assert told["stochastic"] == told["kahan"] == []


def test_model_of_bf16_weights_is_exported_as_trained_and_loads_and_is_drawn_from(
    values: dict[str, Any], tmp_path: Path
) -> None:
    preview = {"prompts": ["a red shape"], "steps": 2, "every": 4}
    parts = {"kind": "full", "weights": "bf16", "parts": ["unet", "text_encoder"]}
    held_out = {"folder": values["data"]["folders"][0]["path"], "every": 4, "draws": 1}
    changes = BF16 | {"tuning": parts, "preview": preview, "validation": held_out}
    small = prepare(tmp_path, values, **changes)
    summary = train(small)
    assert 0 < summary.validation_after < 10
    assert (small.folder / "samples" / "step-000004" / "00.png").is_file()
    weights = trained(small)
    for part in ("unet", "text_encoder"):
        (file,) = (summary.export / part).glob("*.safetensors")
        for name, tensor in load_file(file).items():
            assert tensor.dtype == torch.bfloat16
            assert torch.equal(tensor, weights[f"{part}.{name}"])
    network = UNet2DConditionModel.from_pretrained(summary.export, subfolder="unet")
    assert isinstance(network, UNet2DConditionModel)
    sheet = sample_run(small.folder, ["a blue shape"], seed=1, guidance=2.0, steps=2, out=None)
    assert sheet.is_file()
    numbers_trained = sum(tensor.numel() for tensor in weights.values())
    assert small.plan.bytes.trained == small.plan.bytes.gradients == 2 * numbers_trained


def test_average_of_bf16_weights_keeps_the_digits_that_these_have_not(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, **BF16, train__ema=0.9)
    with session_of(small) as session:
        loop.train(session, quiet_reporter())
        average = session.average
        assert isinstance(average, MovingAverage)
        before = [mean.clone() for mean in average.averages]
        weights = [item.parameter.clone() for item in session.tuned.trainables]
        with session.averaged():
            for item, mean in zip(session.tuned.trainables, before, strict=True):
                assert torch.equal(item.parameter, mean.bfloat16())
        assert all(map(torch.equal, average.averages, before))
        assert any(not torch.equal(mean, mean.bfloat16().float()) for mean in before)
        for item, weight in zip(session.tuned.trainables, weights, strict=True):
            assert torch.equal(item.parameter, weight)


def test_gradients_that_are_not_finite_inside_backward_move_nothing_and_end_the_run(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values, **INSIDE, train__steps=9)
    bad = (1, 3, 4, 5)
    original = loop._loss

    def loss(session: Session, step: int, part: int) -> Tensor:
        return original(session, step, part) * (math.nan if step in bad else 1.0)

    monkeypatch.setattr(loop, "_loss", loss)
    with session_of(small) as session:
        with pytest.raises(Refused) as refused:
            loop.train(session, quiet_reporter())
        count = len(session.tuned.trainables)
        assert all(bool(item.parameter.isfinite().all()) for item in session.tuned.trainables)
    (finding,) = refused.value.findings
    assert (finding.code, finding.values["step"]) == ("SF502", 6)
    events = [event for event in read_events(small.folder) if event["event"] == "refused"]
    assert [(event["step"], event["tensors"]) for event in events] == [
        (step, count) for step in (2, 4, 5, 6)
    ]


def test_one_gradient_that_is_not_finite_inside_backward_is_told_by_name(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, **INSIDE)
    with session_of(small) as session:
        item = session.tuned.trainables[3]
        before = item.parameter.detach().clone()
        item.parameter.register_hook(lambda gradient: gradient * math.nan)
        with pytest.raises(Refused) as refused:
            loop.train(session, quiet_reporter())
        assert torch.equal(item.parameter, before)
    assert refused.value.findings[0].values["example"] == item.name
    events = [event for event in read_events(small.folder) if event["event"] == "refused"]
    assert [event["tensors"] for event in events] == [1, 1, 1]


def test_rates_inside_backward_are_those_of_the_schedule(
    values: dict[str, Any], tmp_path: Path
) -> None:
    schedule = {"kind": "linear", "warmup_steps": 2}
    runs = [
        prepare(tmp_path / str(inside), values, schedule=schedule, **(INSIDE if inside else {}))
        for inside in (False, True)
    ]
    for small in runs:
        train(small)
    apart, inside = (numbers(small, "weight") for small in runs)
    assert inside == apart
    assert len(set(inside)) > 1


@pytest.mark.parametrize(("parts", "share"), [(1, 0.5), (2, 1.0)])
def test_plan_counts_the_gradients_that_are_there_at_once(
    parts: int, share: float, values: dict[str, Any], tmp_path: Path
) -> None:
    changes = {**BF16, "train__gradient_accumulation": parts}
    plan = prepare(tmp_path, values, **changes, **INSIDE, optimizer__rounding="kahan").plan
    plain = prepare(tmp_path, values, **changes).plan
    assert plan.bytes.trained == 2 * plan.trained_numbers
    assert plan.bytes.optimizer == plain.bytes.optimizer + 2 * plan.trained_numbers
    assert plan.bytes.gradients <= share * plain.bytes.gradients
    assert plain.bytes.gradients == 2 * plan.trained_numbers
