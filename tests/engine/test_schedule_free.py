"""A schedule-free optimizer trains at y and shows x: to validation, previews and the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot.engine import run as run_module
from surefoot.engine.checkpoint import Checkpoints
from surefoot.engine.events import Events
from surefoot.engine.loop import train as train_session
from surefoot.engine.schedule_free import ScheduleFreeAverage
from surefoot.engine.session import Session
from surefoot.formats.adapter_file import open_adapter
from surefoot.survey import Survey
from tests.engine.small_runs import (
    prepare,
    quiet_reporter,
    session_of,
    settings,
    train,
    write_model,
    write_pictures,
)

OPTIMIZERS = {
    "schedule_free_adamw": {"kind": "schedule_free_adamw", "lr": 1e-2},
    "prodigy_plus": {"kind": "prodigy_plus", "d0": 1e-2},
    "by name": {"kind": "pytorch_optimizer", "name": "ScheduleFreeRAdam", "lr": 1e-2},
}
BETA1 = 0.9
# x is computed from y and z with one rounding, here with another.
ROUNDING = 1e-6


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    model = write_model(tmp_path / "model")
    pictures = write_pictures(tmp_path / "pictures", 5)
    return settings(model, pictures, write_pictures(tmp_path / "held out", 2, first=20))


def trained(session: Session) -> dict[str, Tensor]:
    return {item.name: item.parameter.detach().clone() for item in session.tuned.trainables}


def average_by_hand(session: Session) -> dict[str, Tensor]:
    """x from y = (1 - beta1) z + beta1 x."""
    return {
        item.name: (item.parameter - (1 - BETA1) * session.optimizer.state[item.parameter]["z"])
        .detach()
        .div(BETA1)
        for item in session.tuned.trainables
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_x_is_shown_and_y_comes_back_to_the_bit(
    optimizer: str, values: dict[str, Any], tmp_path: Path
) -> None:
    with session_of(prepare(tmp_path, values, optimizer=OPTIMIZERS[optimizer])) as session:
        train_session(session, quiet_reporter())
        before, expected = trained(session), average_by_hand(session)
        with session.averaged():
            shown = trained(session)
        after = trained(session)
        stored = session.state(6).averages
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor)
        assert torch.equal(stored[name], shown[name])
        assert not torch.equal(shown[name], tensor)
        torch.testing.assert_close(shown[name], expected[name], rtol=1e-4, atol=ROUNDING)


def test_export_holds_x(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: dict[str, Tensor] = {}
    original = run_module.export

    def export(session: Session, found: Survey) -> Path:
        with session.averaged():
            adapters = session.tuned.adapters()
            expected.update({name: tensor.detach().clone() for name, tensor in adapters.items()})
        return original(session, found)

    monkeypatch.setattr(run_module, "export", export)
    summary = train(prepare(tmp_path, values, optimizer=OPTIMIZERS["schedule_free_adamw"]))
    file = open_adapter(summary.export)
    exported = {
        f"{layer}.{leaf}": tensor
        for layer in file.layers
        for leaf, tensor in file.read(layer).items()
    }
    assert exported.keys() == expected.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("optimizer", ["schedule_free_adamw", "prodigy_plus"])
def test_run_does_not_depend_on_how_often_it_is_looked_at_or_interrupted(
    optimizer: str, values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checkpoint(folder: Path) -> dict[str, Any]:
        state = Checkpoints(folder / "checkpoints", plan.fingerprint, 2).read_last([])
        assert state is not None
        assert state.step == 6
        return {**state.tensors, **{f"x of {name}": x for name, x in state.averages.items()}}

    whole = prepare(tmp_path / "whole", values, optimizer=OPTIMIZERS[optimizer])
    plan = whole.plan
    train(whole)
    changes = {"optimizer": OPTIMIZERS[optimizer], "validation__every": 1}
    halved = prepare(tmp_path / "halved", values, **changes)
    original = Events.scalars

    def scalars(self: Events, event: str, done: int, **numbers: float) -> None:
        original(self, event, done, **numbers)
        if event == "step" and done == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Events, "scalars", scalars)
        with pytest.raises(KeyboardInterrupt):
            train(halved)
    assert train(prepare(tmp_path / "halved", values, **changes)).resumed_from == 4
    expected, found = checkpoint(whole.folder), checkpoint(halved.folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_optimizer_without_an_average_is_none() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(TypeError, match="AdamW"):
        ScheduleFreeAverage(torch.optim.AdamW([parameter]), [parameter])


def test_without_a_schedule_section_it_is_constant(values: dict[str, Any], tmp_path: Path) -> None:
    def kind(**changes: object) -> str:
        return prepare(tmp_path, values, **changes).plan.config.schedule.kind

    free = OPTIMIZERS["schedule_free_adamw"]
    assert kind(optimizer=free) == "constant"
    assert kind(optimizer=free, schedule={"warmup_steps": 2}) == "constant"
    assert kind(optimizer=free, schedule={"kind": "linear"}) == "linear"
    assert kind(optimizer={"kind": "lion"}) == "cosine"
