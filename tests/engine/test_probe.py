"""The probe: real steps in a copy, against what the sheet predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from surefoot.engine import probe as probing
from surefoot.engine.probe import probe
from surefoot.engine.wiring import Movement
from tests.engine.small_runs import prepare, settings, write_model, write_pictures


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("probe")
    pictures = write_pictures(folder / "pictures", 4)
    return settings(write_model(folder / "model"), pictures, pictures)


def test_steps_are_of_the_size_that_the_sheet_predicts_and_the_run_folder_is_not_made(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(tmp_path, values)
    found = probe(small.plan, small.found, 4)
    assert len(found.losses) == 4
    assert {item.kind for item in found.kinds} == {"lora_up", "lora_down"}
    for item in found.kinds:
        # The prediction is for a gradient that does not change its sign.
        assert item.predicted / 3 < item.measured < 3 * item.predicted
    assert found.findings == ()
    assert found.run_seconds == pytest.approx(found.seconds_per_step * small.plan.steps)
    assert found.pictures_per_second == pytest.approx(2 / found.seconds_per_step)
    assert (found.tensors > 0, found.without_gradient) == (True, ())
    for item in found.kinds:
        assert item.dtype == "fp32"
        assert item.changed > 0.9
    assert not small.folder.exists()


def test_a_tensor_that_no_gradient_reaches_is_named(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ""
    whole = probing.assemble

    def cut(*arguments: Any) -> Any:
        nonlocal name
        session = whole(*arguments)
        item = next(item for item in session.tuned.trainables if item.kind == "lora_down")
        layer = next(layer for layer in session.tuned.layers if item.name.startswith(layer.path))
        layer.enabled = False
        name = item.name
        return session

    monkeypatch.setattr(probing, "assemble", cut)
    small = prepare(tmp_path, values)
    found = probe(small.plan, small.found, 3)
    assert len(found.without_gradient) == 2
    assert name in found.without_gradient
    assert [item.code for item in found.findings] == ["SF532"]


@pytest.mark.parametrize(("rounding", "codes"), [("nearest", {"SF533"}), ("stochastic", set())])
def test_numbers_in_bf16_that_a_step_does_not_change_are_counted(
    rounding: str, codes: set[str], tmp_path: Path, values: dict[str, Any]
) -> None:
    optimizer = {"kind": "adafactor", "lr": 1e-4, "rounding": rounding}
    small = prepare(
        tmp_path, values, tuning={"kind": "full", "weights": "bf16"}, optimizer=optimizer,
        train__precision="bf16",
    )  # fmt: skip
    found = probe(small.plan, small.found, 3)
    weight = next(item for item in found.kinds if item.kind == "weight")
    assert weight.dtype == "bf16"
    assert weight.changed < 0.2  # steps of 1e-4 of a weight that is held to 4e-3 of itself
    about_rounding = {item.code for item in found.findings if item.code == "SF533"}
    assert about_rounding == codes


def test_tensors_that_do_not_move_are_found(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Movement, "unmoved", lambda _self: ["unet.conv_in.lora_up"])
    small = prepare(tmp_path, values)
    assert [item.code for item in probe(small.plan, small.found, 2).findings] == ["SF501"]


def test_steps_far_from_the_prediction_are_found(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_hundredth(session: probing.Session) -> None:
        before = [item.parameter.detach().clone() for item in session.tuned.trainables]
        session.optimizer.step()
        with torch.no_grad():
            for item, kept in zip(session.tuned.trainables, before, strict=True):
                item.parameter.copy_(kept + (item.parameter - kept) / 100)

    monkeypatch.setattr(probing, "step_optimizer", a_hundredth)
    small = prepare(tmp_path, values)
    assert {item.code for item in probe(small.plan, small.found, 3).findings} == {"SF531"}
