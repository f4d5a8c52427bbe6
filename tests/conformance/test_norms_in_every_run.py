"""In whole runs no forward pass of a DoRA meets norms of factors that are no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot.tuning.dora import DoraLayer
from tests.engine.small_runs import prepare, settings, train, write_model, write_pictures

RUNS: dict[str, dict[str, object]] = {
    "adafactor": {"optimizer": {"kind": "adafactor", "lr": 0.05}},
    "within backward": {"optimizer": {"kind": "adafactor", "lr": 0.05, "step_in_backward": True}},
    "adamw": {"optimizer": {"kind": "adamw", "lr": 0.02}},
    "bitsandbytes": {"optimizer": {"kind": "adamw_8bit", "lr": 0.02, "min_8bit_size": 64}},
    "schedule-free": {"optimizer": {"kind": "schedule_free_adamw", "lr": 0.02}},
    "writes to .data": {"optimizer": {"kind": "lion", "lr": 0.02}},
    "moving average": {"optimizer": {"kind": "adamw", "lr": 0.02}, "train__ema": 0.9},
    "accumulated and checkpointed": {
        "optimizer": {"kind": "adamw", "lr": 0.02},
        "train__gradient_accumulation": 2,
        "train__gradient_checkpointing": True,
    },
}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("norms")
    pictures = write_pictures(folder / "pictures", 4)
    written = settings(write_model(folder / "model"), pictures, pictures)
    written["train"]["steps"] = 3
    written["validation"]["every"] = 1
    written["save"]["every"] = 3
    return written


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[None]]:
    """Of each forward pass how far its norms are off; and of each computation, that it was."""
    errors: list[float] = []
    computed: list[None] = []
    given, compute = DoraLayer.norms, DoraLayer._computed_norms

    def check(layer: DoraLayer) -> Tensor:
        norms = given(layer)
        with torch.no_grad():
            weight = layer.frozen_weight().double() + layer.delta().double()
            true = weight.transpose(0, layer._kept_dimension).flatten(1).norm(dim=1)
            errors.append(float((norms / true - 1).abs().max()))
        return norms

    def count(layer: DoraLayer) -> Tensor:
        computed.append(None)
        return compute(layer)

    monkeypatch.setattr(DoraLayer, "norms", check)
    monkeypatch.setattr(DoraLayer, "_computed_norms", count)
    return errors, computed


@pytest.mark.parametrize("case", RUNS)
def test_norms_are_those_of_the_factors_at_every_forward_pass(
    case: str,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuning = {"kind": "dora", "rank": 2, "targets": "attention"}
    errors, computed = watched(monkeypatch)
    train(prepare(tmp_path, values, tuning=tuning, **RUNS[case]))
    # Rounding of float32; a step at these rates changes a norm by a hundred times as much.
    assert max(errors) < 1e-5
    assert 0 < len(computed) < len(errors)


def stale(norms: Callable[[DoraLayer], Tensor]) -> Callable[[DoraLayer], Tensor]:
    kept: dict[int, Tensor] = {}
    return lambda layer: kept.setdefault(id(layer), norms(layer))


def test_norms_that_stood_still_would_be_noticed(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DoraLayer, "norms", stale(DoraLayer.norms))
    tuning = {"kind": "dora", "rank": 2, "targets": "attention"}
    errors, _ = watched(monkeypatch)
    train(prepare(tmp_path, values, tuning=tuning, **RUNS["adamw"]))
    assert max(errors) > 1e-4
