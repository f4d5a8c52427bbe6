"""Switches that save memory or time do not change what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot.engine import loop
from tests.engine.small_runs import (
    SmallRun,
    prepare,
    quiet_reporter,
    session_of,
    settings,
    write_model,
    write_pictures,
)

STEPS = 3
SUMMED_OTHERWISE = 1e-5
"""Of the largest gradient: fp32 sums of the same numbers in another order."""
AFTER_STEPS = 1e-3
"""Of the way that all weights have gone: Adafactor divides by the root of the gradient's square,
which makes the last digits of small gradients larger."""


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("switches")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 8)
    written = settings(model, pictures, pictures)
    written["validation"] = {"folder": "off"}
    written["data"] |= {"flip": True}
    written["captions"] = {"dropout": 0.3, "shuffle": True}
    written["train"] |= {"steps": STEPS, "batch_size": 4}
    return written


TUNINGS = {
    "dora": {"kind": "dora", "rank": 2, "targets": "all", "parts": ["unet", "text_encoder"]},
    "full": {"kind": "full", "parts": ["unet"]},
}


class Trained:
    """A run from its first gradients to its last weights."""

    def __init__(self, small: SmallRun) -> None:
        self.losses: list[float] = []
        self.gradients: dict[str, Tensor] = {}
        with session_of(small) as session, pytest.MonkeyPatch.context() as patch:
            items = session.tuned.trainables
            original, scalars = loop.step_optimizer, session.events.scalars

            def step(*arguments: Any) -> None:
                if not self.gradients:
                    for item in items:
                        assert item.parameter.grad is not None, item.name
                        self.gradients[item.name] = item.parameter.grad.clone()
                original(*arguments)

            def told(event: str, done: int, **numbers: float) -> None:
                scalars(event, done, **numbers)
                if event == "step":
                    self.losses.append(numbers["loss"])

            patch.setattr(loop, "step_optimizer", step)
            patch.setattr(session.events, "scalars", told)
            self.before = {item.name: item.parameter.detach().clone() for item in items}
            loop.train(session, quiet_reporter())
            self.after = {item.name: item.parameter.detach().clone() for item in items}


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return sum(float((first[name] - second[name]).square().sum()) for name in first) ** 0.5


def assert_trained_alike(first: Trained, second: Trained) -> None:
    assert first.losses == pytest.approx(second.losses, rel=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in first.gradients.values())
    assert largest > 1e-3
    for name, gradient in first.gradients.items():
        torch.testing.assert_close(
            gradient, second.gradients[name], rtol=1e-3, atol=SUMMED_OTHERWISE * largest
        )
    way = distance(first.before, first.after)
    assert way > 0
    assert distance(first.after, second.after) < AFTER_STEPS * way


@pytest.mark.parametrize(("kind", "batch", "parts"), [("dora", 2, 2), ("full", 1, 4)])
def test_accumulated_gradients_are_those_of_the_big_batch(
    kind: str, batch: int, parts: int, values: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"tuning": TUNINGS[kind]}
    whole = Trained(prepare(tmp_path / "whole", values, **changes))
    cut = prepare(
        tmp_path / "cut",
        values,
        train__batch_size=batch,
        train__gradient_accumulation=parts,
        **changes,
    )
    assert_trained_alike(whole, Trained(cut))


@pytest.mark.parametrize("kind", TUNINGS)
def test_gradient_checkpointing_ends_with_the_same_weights_to_the_bit(
    kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"tuning": TUNINGS[kind]}
    plain = Trained(prepare(tmp_path / "plain", values, **changes))
    again = Trained(
        prepare(tmp_path / "again", values, train__gradient_checkpointing=True, **changes)
    )
    assert plain.losses == again.losses
    for name, weight in plain.after.items():
        assert torch.equal(weight, again.after[name]), name


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_offloaded_blocks_end_with_the_same_weights_to_the_bit(
    share: float, values: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"tuning": TUNINGS["dora"], "train__gradient_checkpointing": True}
    plain = Trained(prepare(tmp_path / "plain", values, **changes))
    moved = Trained(prepare(tmp_path / "moved", values, train__offload=share, **changes))
    assert plain.losses == moved.losses
    for name, weight in plain.after.items():
        assert torch.equal(weight, moved.after[name]), name
