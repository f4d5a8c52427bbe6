"""The difference of two models comes back as the adapter that made it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from surefoot.adapters.cutting import Cutting, KeptLayer, Written, overall
from surefoot.adapters.extract import targets_of
from surefoot.adapters.merge import Weighted, merge
from surefoot.adapters.model_weights import ModelWeights, open_model
from surefoot.adapters.output import write_extracted
from surefoot.finding import Refused
from surefoot.formats.adapter_file import AdapterFile, open_adapter
from tests.adapters.adapter_files import LAYERS, loras, write

# The merged weights were rounded to float32: 6e-8 of numbers near 1.
ROUNDING = 2e-7


def ignore(_done: int) -> None:
    pass


def update(leaves: dict[str, Tensor]) -> np.ndarray:
    up, down = (leaves[name].double().flatten(1).numpy() for name in ("lora_up", "lora_down"))
    return float(leaves["alpha"]) / down.shape[0] * (up @ down)


@pytest.fixture
def tuned(model: ModelWeights, tmp_path: Path) -> ModelWeights:
    file = write(tmp_path / "made.safetensors", loras(model, alpha=2))
    merge(model, [Weighted(file, 1.0)], tmp_path / "tuned", dtype=None, tell=ignore)
    return open_model(str(tmp_path / "tuned"))


def extracted(
    model: ModelWeights, tuned: ModelWeights, out: Path, cutting: Cutting, *targets: str
) -> tuple[AdapterFile, Written]:
    layers = targets_of(model, tuned, targets or ("all",))
    done = write_extracted(model, tuned, layers, out, to="kohya", cutting=cutting, tell=ignore)
    return open_adapter(out), done


def test_adapter_comes_back_whole_at_its_own_rank(
    model: ModelWeights, tuned: ModelWeights, tmp_path: Path
) -> None:
    file, done = extracted(model, tuned, tmp_path / "x.safetensors", Cutting(3, 1.0))
    assert sorted(file.layers) == sorted(LAYERS)
    assert done.findings == ()
    made = loras(model, alpha=2)
    for layer in LAYERS:
        leaves = file.read(layer)
        assert leaves["lora_down"].shape == made[layer]["lora_down"].shape
        assert leaves["lora_up"].shape == made[layer]["lora_up"].shape
        np.testing.assert_allclose(update(leaves), update(made[layer]), atol=ROUNDING)
    assert overall(done.kept) == pytest.approx(1, abs=1e-9)


def test_lower_rank_is_the_nearest_and_its_share_is_told(
    model: ModelWeights, tuned: ModelWeights, tmp_path: Path
) -> None:
    file, done = extracted(model, tuned, tmp_path / "x.safetensors", Cutting(1, 1.0))
    made, kept = loras(model, alpha=2), {layer.path: layer for layer in done.kept}
    total = lost = 0.0
    for layer in LAYERS:
        whole = update(made[layer])
        left, values, right = np.linalg.svd(whole, full_matrices=False)
        nearest = values[0] * np.outer(left[:, 0], right[0])
        np.testing.assert_allclose(update(file.read(layer)), nearest, atol=ROUNDING)
        squares = values**2
        assert kept[layer].kept == pytest.approx(squares[0] / squares.sum(), rel=1e-5)
        assert kept[layer].squared_norm == pytest.approx(squares.sum(), rel=1e-5)
        total, lost = total + squares.sum(), lost + squares[1:].sum()
    assert overall(done.kept) == pytest.approx(1 - lost / total, rel=1e-5)


def test_rank_of_each_layer_follows_the_share_to_keep(
    model: ModelWeights, tuned: ModelWeights, tmp_path: Path
) -> None:
    _file, done = extracted(model, tuned, tmp_path / "x.safetensors", Cutting(0, 0.8))
    made = loras(model, alpha=2)
    for layer in done.kept:
        squares = np.linalg.svd(update(made[layer.path]), compute_uv=False) ** 2
        shares = squares.cumsum() / squares.sum()
        assert layer.rank == int(np.argmax(shares >= 0.8)) + 1
        assert layer.kept >= 0.8
    assert len({layer.rank for layer in done.kept}) > 1
    _file, capped = extracted(model, tuned, tmp_path / "y.safetensors", Cutting(1, 0.8))
    assert {layer.rank for layer in capped.kept} == {1}


def test_original_file_and_folder_can_be_compared(
    model_file: Path, tuned: ModelWeights, tmp_path: Path
) -> None:
    original = open_model(str(model_file))
    file, _done = extracted(original, tuned, tmp_path / "x.safetensors", Cutting(3, 1.0))
    assert sorted(file.layers) == sorted(LAYERS)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("linear",), LAYERS[2:]),
        (("attention",), (LAYERS[2], LAYERS[4])),
        (("attn1.to_q", "conv_in"), (LAYERS[0], LAYERS[2])),
    ],
)
def test_targets_choose_the_layers_and_the_rest_is_told(
    targets: tuple[str, ...],
    expected: tuple[str, ...],
    model: ModelWeights,
    tuned: ModelWeights,
    tmp_path: Path,
) -> None:
    file, done = extracted(model, tuned, tmp_path / "x.safetensors", Cutting(3, 1.0), *targets)
    assert sorted(file.layers) == sorted(expected)
    (finding,) = done.findings
    assert (finding.code, finding.values["count"]) == ("SF612", len(LAYERS) - len(expected))


def changed(folder: Path, to: Path, tensor: str, value: Tensor | None) -> ModelWeights:
    """A copy of a model with one tensor of its UNet replaced, or taken out."""
    shutil.copytree(folder, to)
    (file,) = (to / "unet").glob("*.safetensors")
    tensors = load_file(file)
    del tensors[tensor]
    save_file(tensors if value is None else {**tensors, tensor: value}, file)
    return open_model(str(to))


def test_what_no_adapter_holds_is_told(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    bias = model.tensors["unet.conv_in.bias"].file.read("conv_in.bias")
    other = changed(model_folder, tmp_path / "other", "conv_in.bias", bias + 1)
    with pytest.raises(Refused) as refused:
        extracted(model, other, tmp_path / "x.safetensors", Cutting(3, 1.0))
    assert [finding.code for finding in refused.value.findings] == ["SF082"]
    assert not (tmp_path / "x.safetensors").exists()


def test_a_weight_that_is_not_finite_is_refused_and_nothing_written(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    weight = model.read("unet.conv_in").clone()
    weight[0, 0, 0, 0] = float("nan")
    other = changed(model_folder, tmp_path / "other", "conv_in.weight", weight)
    with pytest.raises(Refused) as refused:
        extracted(model, other, tmp_path / "x.safetensors", Cutting(3, 1.0))
    (finding,) = refused.value.findings
    assert (finding.code, finding.values["name"]) == ("SF081", "unet.conv_in.weight")
    assert not (tmp_path / "x.safetensors").exists()


# The last has as many numbers as the layer, laid out otherwise.
@pytest.mark.parametrize("value", [None, torch.zeros(8, 3, 3, 3), torch.zeros(4, 8, 3, 3)])
def test_models_of_other_shapes_are_refused_with_every_pattern_that_matches_nothing(
    value: Tensor | None, model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    other = changed(model_folder, tmp_path / "other", "conv_in.weight", value)
    with pytest.raises(Refused) as refused:
        targets_of(model, other, ["conv_in", "conv_inn", "*.norm1"])
    first, second, unlike = refused.value.findings
    assert [first.values["pattern"], second.values["pattern"]] == ["conv_inn", "*.norm1"]
    assert (unlike.code, unlike.values["example"]) == ("SF085", "unet.conv_in")


def test_nothing_to_keep_is_kept_whole() -> None:
    assert overall([KeptLayer("unet.a", 1, 1.0, 0.0)]) == 1
