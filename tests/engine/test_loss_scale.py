"""Runs in float16: the factor on the loss, against torch's own scaler and plain fp32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surefoot.engine import loop
from surefoot.engine.events import read_events
from surefoot.engine.loss_scale import LossScale
from surefoot.engine.session import Session
from surefoot.finding import Refused
from tests.engine.small_runs import (
    prepare,
    quiet_reporter,
    session_of,
    settings,
    train,
    train_until,
    write_model,
    write_pictures,
)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("float16")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 4)
    written = settings(model, pictures, pictures)
    written["validation"] = {"folder": "off"}
    written["train"] |= {"steps": 4, "precision": "fp16"}
    return written


def test_factor_moves_by_powers_of_two_as_torchs_scaler_does() -> None:
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=2000)
    ours = LossScale()
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], 0.0)
    for number in range(4010):
        bad = number in (0, 1, 5, 3000)
        weight.grad = torch.full((1,), math.inf if bad else 1.0) * theirs.get_scale()
        theirs.scale(torch.zeros(1))
        theirs.step(optimizer)
        theirs.update()
        if bad:
            assert ours.overflowed()
        else:
            ours.fitted()
        assert ours.factor == theirs.get_scale(), number


def test_division_takes_the_factor_off_to_the_bit() -> None:
    weight = nn.Parameter(torch.zeros(1000))
    gradient = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e-9
    scale = LossScale()
    weight.grad = gradient * scale.factor
    scale.divide([weight, nn.Parameter(torch.zeros(1))])
    assert torch.equal(weight.grad, gradient)


def test_factor_of_one_is_not_to_blame() -> None:
    scale = LossScale(factor=2.0, held=7)
    assert scale.overflowed()
    assert (scale.factor, scale.held) == (1.0, 0)
    assert not scale.overflowed()


def test_run_in_float16_learns_as_in_fp32_and_resumes_to_the_bit(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(tmp_path / "whole", values)
    expected = train(whole)
    halved = prepare(tmp_path / "halved", values)
    train_until(halved, 3, monkeypatch)
    found = train(halved)
    assert found.resumed_from == 2
    assert found.export.read_bytes() == expected.export.read_bytes()
    precise = prepare(tmp_path / "precise", values, train__precision="fp32")
    assert train(precise).export.read_bytes() != expected.export.read_bytes()
    losses = [
        [event["loss"] for event in read_events(run.folder) if event["event"] == "step"]
        for run in (whole, precise)
    ]
    # Eleven bits of a number, many layers deep.
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)


def test_overflow_halves_the_factor_and_leaves_the_weights(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values)
    original, seen = loop._loss, []

    def loss(session: Session, step: int, part: int) -> Tensor:
        seen.append(session.tuned.trainables[1].parameter.detach().clone())
        return original(session, step, part) * (math.inf if step == 1 else 1.0)

    monkeypatch.setattr(loop, "_loss", loss)
    with session_of(small) as session:
        loop.train(session, quiet_reporter())
        assert session.scale is not None
        assert (session.scale.factor, session.scale.held) == (2.0**15, 2)
        state = session.checkpoints.read_last([])
    assert state is not None
    assert state.loss_scale == {"factor": 2.0**15, "held": 2.0}
    with session_of(small, state) as again:
        assert again.scale is not None
        assert (again.scale.factor, again.scale.held) == (2.0**15, 2)
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[2], seen[3])
    kinds = [event["event"] for event in read_events(small.folder)]
    assert "loss_scale" in kinds
    assert "refused" not in kinds


def test_gradients_that_are_never_finite_end_the_run(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values, train__steps=8, save__every=8)
    original = loop._loss
    monkeypatch.setattr(loop, "_loss", lambda *asked: original(*asked) * math.nan)
    with session_of(small) as session:
        assert session.scale is not None
        session.scale.factor = 2.0
        with pytest.raises(Refused) as refused:
            loop.train(session, quiet_reporter())
    # One halving, and three refusals in a row.
    assert refused.value.findings[0].values["step"] == 4
