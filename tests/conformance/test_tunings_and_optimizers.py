"""Every tuning with every optimizer: what should move moves, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surefoot.engine.events import read_events
from surefoot.engine.loop import train
from surefoot.engine.session import Session
from surefoot.engine.wiring import Movement, WiringError, check_wiring
from tests.engine.small_runs import (
    SmallRun,
    prepare,
    quiet_reporter,
    session_of,
    settings,
    write_model,
    write_pictures,
)

TUNINGS: dict[str, dict[str, object]] = {
    "full": {"kind": "full"},
    "lora": {"kind": "lora", "rank": 2, "alpha": 3.0, "targets": "all"},
    "dora": {"kind": "dora", "rank": 2, "alpha": 3.0, "targets": "all"},
}
OPTIMIZERS: dict[str, dict[str, object]] = {
    "scale true": {"kind": "adafactor", "scale_parameter": True, "lr": 1e-2},
    "scale false": {"kind": "adafactor", "scale_parameter": False, "lr": 1e-3},
    "scale weight": {"kind": "adafactor", "scale_parameter": "weight", "lr": 1e-2},
    "adamw": {"kind": "adamw", "lr": 1e-3},
}
# Those of libraries, each on the tuning with the most kinds of tensors.
LIBRARIES: dict[str, dict[str, object]] = {
    "adamw_8bit": {"kind": "adamw_8bit", "lr": 1e-3, "min_8bit_size": 64},
    "lion": {"kind": "lion", "lr": 1e-3},
    "came": {"kind": "came", "lr": 1e-4},
    "stable_adamw": {"kind": "stable_adamw", "lr": 1e-3},
    "adan": {"kind": "adan", "lr": 1e-3},
    "muon": {"kind": "muon", "lr": 1e-3},
    "soap": {"kind": "soap", "lr": 1e-3},
    # From 1e-6 three steps might not reach the last bit of the largest weights.
    "prodigy": {"kind": "prodigy", "d0": 1e-4},
    "d_adaptation": {"kind": "d_adaptation", "d0": 1e-4},
    "schedule_free_adamw": {"kind": "schedule_free_adamw", "lr": 1e-3},
    "prodigy_plus": {"kind": "prodigy_plus", "d0": 1e-4},
    "by name": {
        "kind": "pytorch_optimizer",
        "name": "AdaBelief",
        "lr": 1e-3,
        "arguments": {"betas": [0.9, 0.95], "rectify": False},
    },
    "by name, of matrices": {"kind": "pytorch_optimizer", "name": "NorMuon", "lr": 1e-3},
}
PARTS = [["unet"], ["unet", "text_encoder"]]
MOVED_BY = 3


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("conformance")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 4)
    written = settings(model, pictures, pictures)
    written["validation"] = {"folder": "off"}
    written["train"]["steps"] = MOVED_BY
    written["save"]["every"] = MOVED_BY
    return written


def parameters(session: Session) -> dict[str, nn.Parameter]:
    return {
        f"{part}.{name}": parameter
        for part, network in session.family.parts.items()
        for name, parameter in network.named_parameters()
    }


def assert_wired(session: Session) -> None:
    """Three lists of the same tensors: the model's, the tuning's, the optimizer's."""
    wanting = {id(item) for item in parameters(session).values() if item.requires_grad}
    trained = [id(item.parameter) for item in session.tuned.trainables]
    held = [id(item) for group in session.optimizer.param_groups for item in group["params"]]
    assert len(set(held)) == len(held)
    assert len(set(trained)) == len(trained)
    assert set(held) == set(trained) == wanting
    assert wanting
    check_wiring(session.tuned, session.optimizer)


def copies(session: Session) -> dict[str, Tensor]:
    trained = {id(item.parameter): item.name for item in session.tuned.trainables}
    return {
        trained.get(id(parameter), f"frozen {name}"): parameter.detach().clone()
        for name, parameter in parameters(session).items()
    }


@pytest.mark.parametrize("parts", PARTS, ids="+".join)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_trained_tensors_are_held_and_move_and_no_others_do(
    tuning: str, optimizer: str, parts: list[str], values: dict[str, Any], tmp_path: Path
) -> None:
    tuned = TUNINGS[tuning] | {"parts": parts}
    assert_trained_and_nothing_else(
        prepare(tmp_path, values, tuning=tuned, optimizer=OPTIMIZERS[optimizer]), parts
    )


@pytest.mark.parametrize("tuning", ["full", "dora"])
@pytest.mark.parametrize("optimizer", LIBRARIES)
def test_optimizers_of_libraries_hold_and_move_the_trained_tensors_and_no_others(
    tuning: str, optimizer: str, values: dict[str, Any], tmp_path: Path
) -> None:
    parts = ["unet", "text_encoder"] if tuning == "full" else ["unet"]
    tuned = TUNINGS[tuning] | {"parts": parts}
    assert_trained_and_nothing_else(
        prepare(tmp_path, values, tuning=tuned, optimizer=LIBRARIES[optimizer]), parts
    )


def assert_trained_and_nothing_else(small: SmallRun, parts: list[str]) -> None:
    with session_of(small) as session:
        assert_wired(session)
        before = copies(session)
        vae = {name: tensor.clone() for name, tensor in session.family.vae_weights().items()}
        movement = Movement(session.tuned.trainables, session.optimizer)
        train(session, quiet_reporter())
        assert_wired(session)
        assert movement.unmoved() == []
        after = copies(session)
    unmoved = {name for name in before if torch.equal(before[name], after[name])}
    assert unmoved == {name for name in before if name.startswith("frozen ")}
    vae_after = session.family.vae_weights()
    assert all(torch.equal(tensor, vae_after[name]) for name, tensor in vae.items())
    assert {name.split(".")[0] for name in after.keys() - unmoved} == set(parts)
    assert not [event for event in read_events(small.folder) if event["event"] == "finding"]
    assert_wired_after_resuming(small, after, session)


def assert_wired_after_resuming(small: SmallRun, after: dict[str, Tensor], old: Session) -> None:
    state = old.checkpoints.read_last([])
    with session_of(small, state) as session:
        assert_wired(session)
        resumed = copies(session)
        assert resumed.keys() == after.keys()
        assert all(torch.equal(tensor, resumed[name]) for name, tensor in after.items())
        old_by_name = {item.name: item.parameter for item in old.tuned.trainables}
        for item in session.tuned.trainables:
            memory = session.optimizer.state[item.parameter]
            expected = old.optimizer.state[old_by_name[item.name]]
            assert memory.keys() == expected.keys()
            assert all(same(memory[key], expected[key]) for key in memory)


def same(left: object, right: object) -> bool:
    """Tensors to the bit, and lists of them; SOAP keeps such."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and torch.equal(left, right)
    if isinstance(left, list):
        assert isinstance(right, list)
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def test_tensor_replaced_after_the_optimizer_was_built_is_caught(
    values: dict[str, Any], tmp_path: Path
) -> None:
    # OneTrainer's DoRA once made its magnitude anew after the optimizer had taken the old one.
    small = prepare(tmp_path, values, tuning=TUNINGS["dora"])
    with session_of(small) as session:
        layer = session.tuned.layers[0]
        item = next(x for x in session.tuned.trainables if x.name == f"{layer.path}.magnitude")
        replaced = nn.Parameter(item.parameter.detach().clone())
        object.__setattr__(item, "parameter", replaced)
        with pytest.raises(WiringError, match=item.name):
            check_wiring(session.tuned, session.optimizer)


@pytest.mark.parametrize("fault", ["left out", "stranger", "frozen"])
def test_each_fault_of_wiring_is_caught(fault: str, values: dict[str, Any], tmp_path: Path) -> None:
    with session_of(prepare(tmp_path, values)) as session:
        group = session.optimizer.param_groups[0]
        if fault == "left out":
            group["params"].pop()
        elif fault == "stranger":
            group["params"].append(nn.Parameter(torch.zeros(2)))
        else:
            session.tuned.trainables[0].parameter.requires_grad_(False)
        with pytest.raises(WiringError):
            check_wiring(session.tuned, session.optimizer)


def test_tensor_that_does_not_move_is_told_of(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values)
    with session_of(small) as session:
        # Not a lora_up: without it its lora_down would have no gradient either.
        still = next(item for item in session.tuned.trainables if item.kind == "lora_down")
        step = session.optimizer.step

        def step_without_it() -> None:
            still.parameter.grad = None
            step()

        monkeypatch.setattr(session.optimizer, "step", step_without_it)
        train(session, quiet_reporter())
    (event,) = [event for event in read_events(small.folder) if event["event"] == "finding"]
    finding = event["finding"]
    assert isinstance(finding, dict)
    assert finding["code"] == "SF501"
    assert (finding["values"]["count"], finding["values"]["example"]) == (1, still.name)
