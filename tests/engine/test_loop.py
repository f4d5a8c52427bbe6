"""The loop: what it refuses, and what its settings change."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from surefoot.data.encoded import Look
from surefoot.engine import loop
from surefoot.engine.events import read_events
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


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("loop")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 4)
    written = settings(model, pictures, pictures)
    written["validation"] = {"folder": "off"}
    written["train"]["steps"] = 5
    return written


def weights(session: Session) -> dict[str, Tensor]:
    return {item.name: item.parameter.detach().clone() for item in session.tuned.trainables}


def averages_of(session: Session) -> list[Tensor]:
    assert session.average is not None
    return [mean.clone() for mean in session.average.averages]


def events_of(small: SmallRun, name: str) -> list[dict[str, Any]]:
    return [event for event in read_events(small.folder) if event["event"] == name]


class WeightsAfterEachStep:
    """Looks on at the end of each step; makes the losses of some steps NaN or infinite."""

    def __init__(self, patch: pytest.MonkeyPatch, session: Session, bad: dict[int, float]) -> None:
        self.weights = [weights(session)]
        self.averages = [self._copy(session)]
        original_loss, original_rate = loop._loss, session.events.scalars

        def loss(session: Session, step: int, part: int) -> Tensor:
            return original_loss(session, step, part) * bad.get(step + 1, 1.0)

        def scalars(event: str, step: int, **numbers: float) -> None:
            original_rate(event, step, **numbers)
            if event == "step":
                self.weights.append(weights(session))
                self.averages.append(self._copy(session))

        patch.setattr(loop, "_loss", loss)
        patch.setattr(session.events, "scalars", scalars)

    @staticmethod
    def _copy(session: Session) -> list[Tensor]:
        return averages_of(session) if session.average else []

    def moved(self) -> list[int]:
        pairs = zip(self.weights, self.weights[1:], strict=False)
        return [
            step
            for step, (old, new) in enumerate(pairs, start=1)
            if any(not torch.equal(old[name], new[name]) for name in old)
        ]


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("clip", ["off", 1.0])
def test_gradient_that_is_not_finite_is_kept_from_the_weights(
    clip: object, number: float, values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, train__ema=0.9, train__clip_grad_norm=clip)
    with session_of(small) as session, pytest.MonkeyPatch.context() as patch:
        watch = WeightsAfterEachStep(patch, session, {2: number, 4: number})
        loop.train(session, quiet_reporter())
        assert not any(mean.isnan().any() for mean in averages_of(session))
    assert watch.moved() == [1, 3, 5]
    assert [event["step"] for event in events_of(small, "refused")] == [2, 4]
    assert [event["step"] for event in events_of(small, "step")] == [1, 2, 3, 4, 5]
    assert not math.isfinite(float(events_of(small, "step")[1]["loss"]))
    expected = [tensor.double() for tensor in watch.weights[0].values()]
    for updates, current in enumerate(watch.weights[1:]):
        decay = min(0.9, (1 + updates) / (10 + updates))
        expected = [
            decay * mean + (1 - decay) * tensor.double()
            for mean, tensor in zip(expected, current.values(), strict=True)
        ]
    for found, mean in zip(watch.averages[-1], expected, strict=True):
        torch.testing.assert_close(found.double(), mean, rtol=1e-5, atol=1e-7)


def test_refused_step_names_how_many_tensors_were_bad(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, train__clip_grad_norm=1.0)
    with session_of(small) as session:
        bad = session.tuned.trainables[3]
        bad.parameter.register_hook(lambda gradient: gradient * math.nan)
        with pytest.raises(Refused) as refused:
            loop.train(session, quiet_reporter())
        # Whoever clips by a norm that is NaN spreads it over all.
        assert [event["tensors"] for event in events_of(small, "refused")] == [1, 1, 1]
        assert refused.value.findings[0].values["example"] == bad.name


def test_three_bad_gradients_in_a_row_end_the_run_with_the_weights_untouched(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, train__ema=0.9, train__steps=9)
    bad: dict[int, float] = dict.fromkeys((2, 3, 5, 6, 7, 8), math.nan)
    with session_of(small) as session, pytest.MonkeyPatch.context() as patch:
        watch = WeightsAfterEachStep(patch, session, bad)
        with pytest.raises(Refused) as refused:
            loop.train(session, quiet_reporter())
        end, averages = weights(session), averages_of(session)
    assert watch.moved() == [1, 4]
    assert all(torch.equal(end[name], value) for name, value in watch.weights[4].items())
    assert all(torch.equal(*pair) for pair in zip(averages, watch.averages[6], strict=True))
    (finding,) = refused.value.findings
    assert (finding.code, finding.values["count"], finding.values["step"]) == ("SF502", 3, 7)
    assert not finding.unusable
    assert [event["step"] for event in events_of(small, "refused")] == [2, 3, 5, 6, 7]
    # The checkpoints before it are whole, and nothing bad is in them.
    state = session.checkpoints.read_last([])
    assert state is not None
    assert state.step == 6
    assert all(torch.equal(state.tensors[name], end[name]) for name in end)


def test_refused_run_ends_in_its_events(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path, values)
    with pytest.MonkeyPatch.context() as patch:
        original = loop._loss
        patch.setattr(loop, "_loss", lambda *asked: original(*asked) * math.nan)
        with pytest.raises(Refused):
            train(small)
    assert read_events(small.folder)[-1]["reason"] == "Refused"
    for line in (small.folder / "events.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert train(small).steps == 5


def test_bf16_run_trains_fp32_weights_and_resumes_to_the_bit(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The captions that are validated are trained on too: they are encoded once for both.
    changes = {
        "train__precision": "bf16",
        "train__steps": 4,
        "validation": {"folder": values["data"]["folders"][0]["path"], "every": 4, "draws": 1},
    }
    whole = prepare(tmp_path / "whole", values, **changes)
    expected = train(whole)
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
    found = train(halved)
    assert found.resumed_from == 2
    assert found.export.read_bytes() == expected.export.read_bytes()
    assert found.validation_after == expected.validation_after
    state = open_state(halved)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    precise = prepare(tmp_path / "precise", values, **changes | {"train__precision": "fp32"})
    assert train(precise).export.read_bytes() != expected.export.read_bytes()
    halved_loss, precise_loss = (events_of(run, "step")[0]["loss"] for run in (halved, precise))
    assert halved_loss == pytest.approx(precise_loss, rel=1e-2)
    assert halved_loss != precise_loss


def open_state(small: SmallRun) -> dict[str, Tensor]:
    folder = small.folder / "checkpoints" / f"step-{small.plan.steps:06d}"
    return load_file(folder / "trained.safetensors")


@pytest.mark.parametrize("kind", ["full", "dora"])
def test_gradient_checkpointing_trains_the_same(
    kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    tuning = {"kind": kind, "parts": ["unet", "text_encoder"]}
    results = []
    for name, checkpointing in (("plain", False), ("recomputed", True)):
        small = prepare(
            tmp_path / name,
            values,
            tuning=tuning,
            train__steps=1,
            train__gradient_checkpointing=checkpointing,
        )
        gradients: dict[str, Tensor] = {}
        with session_of(small) as session, pytest.MonkeyPatch.context() as patch:

            def keep(session: Session = session, kept: dict[str, Tensor] = gradients) -> None:
                for item in session.tuned.trainables:
                    assert item.parameter.grad is not None, item.name
                    kept[item.name] = item.parameter.grad.clone()

            patch.setattr(session.optimizer, "step", keep)
            loop.train(session, quiet_reporter())
        results.append((events_of(small, "step")[0]["loss"], gradients))
    (loss, expected), (again, found) = results
    assert again == loss
    assert any(name.startswith("text_encoder.") for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-8)


def test_clipping_limits_the_norm_of_all_gradients_together(
    values: dict[str, Any], tmp_path: Path
) -> None:
    limit = 1e-3
    small = prepare(tmp_path, values, train__clip_grad_norm=limit, train__steps=2)
    norms: list[float] = []
    with session_of(small) as session, pytest.MonkeyPatch.context() as patch:
        parameters = [item.parameter for item in session.tuned.trainables]

        def look() -> None:
            gradients = [item.grad for item in parameters if item.grad is not None]
            assert len(gradients) == len(parameters)
            squares = [gradient.double().square().sum() for gradient in gradients]
            norms.append(math.sqrt(float(sum(squares))))

        patch.setattr(session.optimizer, "step", look)
        loop.train(session, quiet_reporter())
    assert norms == pytest.approx([limit] * 2, rel=1e-3)
    # What is told is the norm before clipping.
    assert all(event["gradient_norm"] > 10 * limit for event in events_of(small, "step"))


def test_no_update_grows_beyond_the_norm_that_was_asked(
    values: dict[str, Any], tmp_path: Path
) -> None:
    most = 1e-6
    small = prepare(tmp_path, values, tuning__max_norm=most, train__steps=3)
    with session_of(small) as session:
        loop.train(session, quiet_reporter())
        norms = [float(layer.delta().norm()) for layer in session.tuned.layers]
    assert max(norms) == pytest.approx(most, rel=1e-4)
    # The rate of the last step is so small that not every update grows.
    reduced = [event["layers"] for event in events_of(small, "max_norm")]
    assert reduced[:2] == [len(norms)] * 2


def test_learning_rate_warms_up_and_falls_along_half_a_cosine(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(
        tmp_path,
        values,
        train__steps=6,
        schedule={"kind": "cosine", "warmup_steps": 2},
        optimizer={"kind": "adamw", "lr": 0.01},
    )
    train(small)
    expected = [1 / 3, 2 / 3, *(0.5 + 0.5 * np.cos(np.pi * np.arange(4) / 4))]
    rates = [event["lora_down"] for event in events_of(small, "rate")]
    np.testing.assert_allclose(rates, 0.01 * np.array(expected))


def test_pictures_are_mirrored_where_asked_and_each_epoch_sees_all(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, data__flip=True, train__steps=12)
    seen: list[tuple[list[int], list[bool]]] = []
    with session_of(small) as session, pytest.MonkeyPatch.context() as patch:
        original = session.pictures.draw

        def draw(looks: list[Look], draws: list[torch.Generator]) -> Tensor:
            seen.append(([look.index for look in looks], [look.flipped for look in looks]))
            return original(looks, draws)

        patch.setattr(session.pictures, "draw", draw)
        loop.train(session, quiet_reporter())
        plain, mirrored = (session.pictures.moments(Look(0, flipped)) for flipped in (False, True))
        assert not torch.equal(plain[0], mirrored[0])
    epochs = [sorted(seen[step][0] + seen[step + 1][0]) for step in range(0, 12, 2)]
    assert epochs == [[0, 1, 2, 3]] * 6
    flips = [flip for _, step in seen for flip in step]
    assert 5 <= sum(flips) <= 19  # of 24; outside with a probability of 0.2 %
