"""What the plan says of each layer is what the layer gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from surefoot.tuning.dora import DoraLayer
from tests.engine.small_runs import prepare, session_of, settings, write_model, write_pictures


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    model = write_model(tmp_path / "model")
    pictures = write_pictures(tmp_path / "pictures", 5)
    return settings(model, pictures, write_pictures(tmp_path / "held out", 2, first=20))


def test_each_layer_gets_the_rank_alpha_dropout_and_axis_of_the_plan(
    values: dict[str, Any], tmp_path: Path
) -> None:
    tuning = {
        "kind": "dora",
        "rank": 2,
        "rank_pattern": {"attn2.*": 3},
        "alpha_pattern": {"to_k": 0.5},
        "dropout": 0.25,
        "norm_axis": "input",
    }
    small = prepare(tmp_path, values, tuning=tuning)
    with session_of(small) as session:
        layers = {layer.path.removeprefix("unet."): layer for layer in session.tuned.layers}
        assert layers.keys() == small.plan.targets["unet"].keys()
        for path, layer in layers.items():
            assert isinstance(layer, DoraLayer)
            assert layer.rank == (3 if "attn2" in path else 2)
            assert layer.alpha == (0.5 if path.endswith("to_k") else layer.rank)
            assert layer.lora_down.shape[0] == layer.rank
            assert layer.dropout == 0.25
            assert layer.axis == "input"


def test_rows_of_zeros_are_told_when_a_dora_starts(values: dict[str, Any], tmp_path: Path) -> None:
    path = next((tmp_path / "model" / "unet").glob("*.safetensors"))
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("attn2.to_k.weight"))
    weights[name][:3] = 0
    save_file(weights, path)
    dora = values["tuning"] | {"kind": "dora"}
    with session_of(prepare(tmp_path, values, tuning=dora)) as session:
        (finding,) = session.findings
    assert (finding.code, finding.level) == ("SF512", "warning")
    assert finding.values["rows"] == 3
    assert finding.values["path"] == f"unet.{name.removesuffix('.weight')}"
    with session_of(prepare(tmp_path / "lora", values)) as session:
        assert session.findings == ()
