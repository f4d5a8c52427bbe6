"""An adapter of a lower rank is the nearest one, and keeps its scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from surefoot.adapters.cutting import Cutting
from surefoot.adapters.model_weights import ModelWeights
from surefoot.adapters.output import write_resized
from surefoot.adapters.resize import resize_findings
from surefoot.formats.adapter_file import AdapterFile, open_adapter
from tests.adapters.adapter_files import LAYERS, doras, loras, write
from tests.adapters.test_extract import update

# Factors near 0.1 are stored in float32.
ROUNDING = 1e-7


def resized(file: AdapterFile, out: Path, rank: int, energy: float = 1.0) -> AdapterFile:
    write_resized(file, out, to="kohya", cutting=Cutting(rank, energy))
    return open_adapter(out)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 24.0])
@pytest.mark.parametrize("rank", [1, 2, 5, 6, 40])
def test_update_is_the_nearest_of_its_rank_and_the_scale_stays(
    rank: int, alpha: float, model: ModelWeights, tmp_path: Path
) -> None:
    layers = loras(model, rank=6, alpha=alpha)
    small = resized(write(tmp_path / "a.safetensors", layers), tmp_path / "b.safetensors", rank)
    for layer in LAYERS:
        before, after = layers[layer], small.read(layer)
        left, values, right = np.linalg.svd(update(before), full_matrices=False)
        nearest = (left[:, :rank] * values[:rank]) @ right[:rank]
        np.testing.assert_allclose(update(after), nearest, atol=ROUNDING * max(1, alpha))
        new_rank = min(rank, 6)
        assert after["lora_down"].shape == (new_rank, *before["lora_down"].shape[1:])
        assert float(after["alpha"]) / new_rank == pytest.approx(float(before["alpha"]) / 6)


def test_magnitudes_are_kept_and_told(model: ModelWeights, tmp_path: Path) -> None:
    layers = doras(model, rank=4)
    file = write(
        tmp_path / "a.safetensors", layers, note="kept", sshs_model_hash="0", surefoot_rank="4"
    )
    done = write_resized(file, tmp_path / "b.safetensors", to="kohya", cutting=Cutting(2, 1.0))
    assert [finding.code for finding in done.findings] == ["SF183", "SF615"]
    small = open_adapter(tmp_path / "b.safetensors")
    assert small.metadata["note"] == "kept"
    assert not {"sshs_model_hash", "surefoot_rank"} & small.metadata.keys()
    for layer in LAYERS:
        assert torch.equal(small.read(layer)["magnitude"], layers[layer]["magnitude"])


def test_core_of_tucker_is_multiplied_into_the_down_factor(
    model: ModelWeights, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"lora_down": (3, 4, 1, 1), "lora_mid": (3, 3, 3, 3), "lora_up": (8, 3, 1, 1)}
    leaves: dict[str, Tensor] = {
        name: torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    leaves["alpha"] = torch.tensor(6.0, dtype=torch.float64)
    file = write(tmp_path / "a.safetensors", {"unet.conv_in": leaves})
    after = resized(file, tmp_path / "b.safetensors", 3).read("unet.conv_in")
    assert "lora_mid" not in after
    up, middle, down = (leaves[name].double() for name in ("lora_up", "lora_mid", "lora_down"))
    whole = torch.einsum("oa,abkl,bi->oikl", up.flatten(1), middle, down.flatten(1)) * 2
    found = update(after).reshape(8, 4, 3, 3)
    np.testing.assert_allclose(found, whole.numpy(), atol=1e-5)


def test_factors_beyond_half_precision_are_written_in_float32(
    model: ModelWeights, tmp_path: Path
) -> None:
    leaves = loras(model, layers=LAYERS[2:3])[LAYERS[2]]
    halves = {
        name: (6e5 * leaves[name]).half().clamp(-6e4, 6e4) for name in leaves.keys() - {"alpha"}
    }
    # All of one sign: the largest singular value is far beyond the square of 65504.
    halves = {name: half.abs() for name, half in halves.items()}
    layers = {LAYERS[2]: {**leaves, **halves}}
    small = resized(write(tmp_path / "a.safetensors", layers), tmp_path / "b.safetensors", 1)
    left, values, right = np.linalg.svd(update(layers[LAYERS[2]]), full_matrices=False)
    nearest = values[0] * np.outer(left[:, 0], right[0])
    np.testing.assert_allclose(update(small.read(LAYERS[2])), nearest, rtol=1e-3)


def test_kinds_without_such_a_rank_and_numbers_that_are_none_are_refused(
    model: ModelWeights, tmp_path: Path
) -> None:
    alpha = torch.tensor(2.0, dtype=torch.float64)
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    loha = {name: torch.ones(8, 2) if name.endswith("a") else torch.ones(2, 8) for name in names}
    lokr = {"lokr_w1": torch.ones(2, 2), "lokr_w2": torch.ones(4, 4), "alpha": alpha}
    broken = loras(model, layers=LAYERS[:1])
    broken[LAYERS[0]]["lora_up"][0] = torch.nan
    layers = {LAYERS[2]: {**loha, "alpha": alpha}, LAYERS[3]: lokr, **broken}
    findings = resize_findings(write(tmp_path / "a.safetensors", layers))
    assert [(finding.code, finding.values.get("kind", "")) for finding in findings] == [
        ("SF081", ""),
        ("SF084", "LoHa"),
        ("SF084", "LoKr"),
    ]
    assert findings[0].values["name"] == f"{LAYERS[0]}.lora_up"
