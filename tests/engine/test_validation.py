"""The loss on held-out pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot.engine import validation
from surefoot.engine.loop import train
from surefoot.engine.session import Session
from tests.engine.small_runs import (
    prepare,
    quiet_reporter,
    session_of,
    settings,
    write_model,
    write_pictures,
)

PICTURES, DRAWS = 5, 2


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("validation")
    model = write_model(folder / "model")
    held_out = write_pictures(folder / "held out", PICTURES, first=20)
    written = settings(model, write_pictures(folder / "pictures", 3), held_out)
    written["validation"] = {"folder": str(held_out), "draws": DRAWS, "every": 1}
    return written


def loss_of(session: Session) -> float:
    assert session.validation is not None
    return session.validation.loss(session.device)


@pytest.mark.parametrize("batch", [2, 50])
def test_loss_is_that_of_the_network_on_the_noise_it_was_given(
    batch: int, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_NOISE_BLOCK", batch)
    noises: list[Tensor] = []
    answers: list[Tensor] = []
    timesteps: list[int] = []
    original = validation.draw_noise

    def draw_noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
        noises.append(original(shape, generator))
        return noises[-1]

    monkeypatch.setattr(validation, "draw_noise", draw_noise)
    with session_of(prepare(tmp_path, values, captions__dropout=1.0)) as session:
        denoise = session.family.denoise

        def look(noisy: Tensor, timestep: Tensor, states: Tensor) -> Tensor:
            answers.append(denoise(noisy, timestep, states))
            timesteps.extend(timestep.tolist())
            return answers[-1]

        monkeypatch.setattr(session.family, "denoise", look)
        loss = loss_of(session)
    squares = (torch.cat(answers).double() - torch.cat(noises).double()).square()
    assert len(squares) == PICTURES * DRAWS
    assert loss == pytest.approx(float(squares.mean()), rel=1e-6)
    # Spread over the schedule, and not twice the same.
    assert len(set(timesteps)) == PICTURES * DRAWS
    assert all(0 <= timestep < 1000 for timestep in timesteps)
    assert min(timesteps[:PICTURES]) < 200
    assert max(timesteps[PICTURES:]) > 700


def test_loss_is_the_same_each_time_whatever_was_drawn_between(
    values: dict[str, Any], tmp_path: Path
) -> None:
    with session_of(prepare(tmp_path, values)) as session:
        first = loss_of(session)
        torch.manual_seed(99)
        torch.randn(10)
        assert loss_of(session) == first
        with torch.no_grad():
            session.tuned.trainables[0].parameter.add_(1)
            lora_up = next(x for x in session.tuned.trainables if x.kind == "lora_up")
            lora_up.parameter.add_(1)
        assert loss_of(session) != first


def test_validation_changes_nothing_of_the_training(values: dict[str, Any], tmp_path: Path) -> None:
    ends = []
    for name, every in (("often", 1), ("once", 6)):
        small = prepare(tmp_path / name, values, validation__every=every)
        with session_of(small) as session:
            train(session, quiet_reporter())
            ends.append([item.parameter.detach() for item in session.tuned.trainables])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))
