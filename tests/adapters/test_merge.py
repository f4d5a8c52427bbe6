"""A merged model is what diffusers makes of it, in the layout of the model given."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from safetensors.torch import load_file, save_file
from torch import Tensor

from surefoot.adapters.merge import Weighted, merge
from surefoot.adapters.model_weights import ModelWeights, open_model
from surefoot.finding import Refused
from surefoot.formats.streamed import TensorFile
from tests.adapters.adapter_files import LAYERS, doras, loras, write

# Sums of a few dozen products of float32; weights are near 0.1.
ROUNDING = 1e-6


def ignore(_done: int) -> None:
    pass


def merged(
    model: ModelWeights,
    out: Path,
    *adapters: tuple[Mapping[str, Mapping[str, Tensor]], float],
    dtype: torch.dtype | None = None,
) -> ModelWeights:
    opened = [
        Weighted(write(out.parent / f"a{number}.safetensors", layers), weight)
        for number, (layers, weight) in enumerate(adapters)
    ]
    merge(model, opened, out, dtype=dtype, tell=ignore)
    return open_model(str(out))


def expected(weight: Tensor, leaves: Mapping[str, Tensor], strength: float) -> np.ndarray:
    """By the formulas of LoRA and DoRA, in numpy float64."""
    start = weight.double().numpy()
    up, down = (leaves[name].double().flatten(1).numpy() for name in ("lora_up", "lora_down"))
    update = float(leaves["alpha"]) / down.shape[0] * (up @ down).reshape(start.shape)
    if "magnitude" not in leaves:
        return start + strength * update
    magnitude = leaves["magnitude"].double().numpy()
    axes = tuple(
        axis for axis in range(start.ndim) if axis != magnitude.shape.index(max(magnitude.shape))
    )
    norm = np.sqrt(((start + update) ** 2).sum(axis=axes, keepdims=True))
    return start + strength * (magnitude * (start + update) / norm - start)


@pytest.mark.parametrize("strength", [1.0, 0.6, -0.5])
@pytest.mark.parametrize("kind", ["lora", "dora_output", "dora_input"])
def test_layers_are_those_of_the_formula_and_all_others_are_kept(
    kind: str, strength: float, model: ModelWeights, tmp_path: Path
) -> None:
    layers = loras(model, alpha=2) if kind == "lora" else doras(model, axis=kind[5:])
    result = merged(model, tmp_path / "out", (layers, strength))
    assert result.tensors.keys() == model.tensors.keys()
    for name, place in model.tensors.items():
        before = place.file.read(place.name)
        after = result.tensors[name].file.read(place.name)
        assert after.dtype == before.dtype
        layer = name.removesuffix(".weight")
        if layer in layers and name.endswith(".weight"):
            wanted = expected(before, layers[layer], strength)
            np.testing.assert_allclose(after.numpy(), wanted, atol=ROUNDING)
            assert not torch.equal(after, before)
        else:
            assert torch.equal(after, before), name


# Of a DoRA diffusers scales the update of the direction, not the change of the weight.
@pytest.mark.parametrize(("kind", "weight"), [("lora", 1.0), ("lora", 0.5), ("dora", 1.0)])
def test_merged_model_is_the_one_that_diffusers_fuses(
    kind: str, weight: float, model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    layers = loras(model, alpha=2) if kind == "lora" else doras(model)
    file = write(tmp_path / "a.safetensors", layers, "diffusers")
    merge(model, [Weighted(file, weight)], tmp_path / "out", dtype=None, tell=ignore)
    pipeline = StableDiffusionPipeline.from_pretrained(model_folder, safety_checker=None)
    pipeline.load_lora_weights(str(file.path))
    pipeline.fuse_lora(lora_scale=weight)
    pipeline.unload_lora_weights()
    ours = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    changed = 0
    for part in ("unet", "text_encoder"):
        theirs = getattr(pipeline, part).state_dict()
        for name, tensor in getattr(ours, part).state_dict().items():
            torch.testing.assert_close(tensor, theirs[name], atol=ROUNDING, rtol=0)
            start = model.tensors[f"{part}.{name}"]
            changed += not torch.equal(tensor, start.file.read(start.name))
    assert changed == len(LAYERS)


def test_single_file_gets_the_same_weights_and_keeps_its_names(
    model: ModelWeights, model_file: Path, tmp_path: Path
) -> None:
    layers = doras(model)
    folder = merged(model, tmp_path / "out", (layers, 1.0))
    original = open_model(str(model_file))
    assert original.layout == "single_file"
    single = merged(original, tmp_path / "out.safetensors", (layers, 1.0))
    before, after = load_file(model_file), load_file(tmp_path / "out.safetensors")
    assert after.keys() == before.keys()
    assert {name: tensor.dtype for name, tensor in after.items()} == {
        name: tensor.dtype for name, tensor in before.items()
    }
    assert sum(not torch.equal(after[name], before[name]) for name in before) == len(LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(single.read(layer), folder.read(layer), atol=0, rtol=0)
    assert json.loads(single.files[0].metadata["surefoot_merged"]) == [["a0.safetensors", 1.0]]


def test_linear_adapter_fits_a_convolution_of_1x1_and_the_other_way_round(
    model: ModelWeights, tmp_path: Path
) -> None:
    (_, layer, linear, _, _) = LAYERS
    as_convolution = doras(model, layers=[layer])[layer]
    as_linear = {
        name: leaf.flatten(1) if leaf.ndim else leaf for name, leaf in as_convolution.items()
    }
    for number, leaves in enumerate((as_convolution, as_linear)):
        result = merged(model, tmp_path / f"out{number}", ({layer: leaves}, 1.0))
        wanted = expected(model.read(layer), as_convolution, 1.0)
        np.testing.assert_allclose(result.read(layer).numpy(), wanted, atol=ROUNDING)
    leaves = doras(model, layers=[linear])[linear]
    grown = {name: leaf[..., None, None] if leaf.ndim else leaf for name, leaf in leaves.items()}
    result = merged(model, tmp_path / "out2", ({linear: grown}, 1.0))
    wanted = expected(model.read(linear), leaves, 1.0)
    np.testing.assert_allclose(result.read(linear).numpy(), wanted, atol=ROUNDING)


def test_several_adapters_add_up_in_any_order_if_they_are_loras(
    model: ModelWeights, tmp_path: Path
) -> None:
    first, second = loras(model), loras(model, rank=2, layers=reversed(LAYERS))
    forwards = merged(model, tmp_path / "out0", (first, 0.7), (second, -0.3))
    backwards = merged(model, tmp_path / "out1", (second, -0.3), (first, 0.7))
    for layer in LAYERS:
        weight = model.read(layer)
        start = weight.double().numpy()
        sums = expected(weight, first[layer], 0.7) + expected(weight, second[layer], -0.3) - start
        np.testing.assert_allclose(forwards.read(layer).numpy(), sums, atol=ROUNDING)
        torch.testing.assert_close(
            forwards.read(layer), backwards.read(layer), atol=ROUNDING, rtol=0
        )


def test_dora_scales_what_those_before_it_have_left(model: ModelWeights, tmp_path: Path) -> None:
    first, second = loras(model), doras(model, rank=2)
    result = merged(model, tmp_path / "out", (first, 1.0), (second, 1.0))
    for layer in LAYERS:
        after_first = torch.from_numpy(expected(model.read(layer), first[layer], 1.0))
        wanted = expected(after_first, second[layer], 1.0)
        np.testing.assert_allclose(result.read(layer).numpy(), wanted, atol=ROUNDING)
    opened = [
        Weighted(write(tmp_path / "l.safetensors", first), 1.0),
        Weighted(write(tmp_path / "d.safetensors", second), 1.0),
    ]
    findings = merge(model, opened, tmp_path / "again", dtype=None, tell=ignore).findings
    assert [finding.code for finding in findings] == ["SF614"]


def test_dtype_is_that_of_every_number(model: ModelWeights, tmp_path: Path) -> None:
    layers = loras(model)
    result = merged(model, tmp_path / "out", (layers, 1.0), dtype=torch.bfloat16)
    for name, place in result.tensors.items():
        tensor = place.file.read(place.name)
        assert tensor.dtype == torch.bfloat16, name
        start = model.tensors[name]
        layer = name.removesuffix(".weight")
        if layer not in layers:
            assert torch.equal(tensor, start.file.read(start.name).bfloat16())


def test_other_weights_of_a_changed_part_are_left_out_and_everything_else_is_copied(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/old.bin", "v1.ckpt"):
        (folder / name).write_bytes(b"old")
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"kept")
    (folder / "README.md").write_text("mine", encoding="utf-8")
    file = write(tmp_path / "a.safetensors", loras(model, layers=LAYERS[:2]))
    result = merge(
        open_model(str(folder)), [Weighted(file, 1.0)], tmp_path / "out", dtype=None, tell=ignore
    )
    (finding,) = result.findings
    assert finding.code == "SF613"
    assert finding.values["names"] == (
        "unet/diffusion_pytorch_model.fp16.safetensors, unet/old.bin, v1.ckpt"
    )
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    written = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert names - written == set(str(finding.values["names"]).split(", "))
    assert written <= names
    untouched = "text_encoder/model.safetensors"
    assert (tmp_path / "out" / untouched).read_bytes() == (folder / untouched).read_bytes()
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8") == "mine"


def test_adapter_of_another_model_is_refused_with_names_and_shapes(
    model: ModelWeights, tmp_path: Path
) -> None:
    layers = loras(model)
    layers["unet.mid_block.attentions.7.proj_in"] = layers.pop(LAYERS[1])
    layers[LAYERS[2]] = {**layers[LAYERS[0]]}
    file = write(tmp_path / "a.safetensors", layers, "diffusers")
    with pytest.raises(Refused) as refused:
        merge(model, [Weighted(file, 1.0)], tmp_path / "out", dtype=None, tell=ignore)
    missing, unlike = refused.value.findings
    assert (missing.code, missing.values["count"], missing.values["total"]) == ("SF076", 1, 5)
    assert missing.values["names"] == "unet.mid_block.attentions.7.proj_in"
    assert (unlike.code, unlike.values["layer"]) == ("SF077", LAYERS[2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


def test_magnitude_of_other_columns_is_refused(model: ModelWeights, tmp_path: Path) -> None:
    # Half as many columns: a length for every second input, which no axis has.
    layers = doras(model, axis="input", layers=LAYERS[:1])
    layers[LAYERS[0]]["magnitude"] = layers[LAYERS[0]]["magnitude"][:, ::2]
    file = write(tmp_path / "a.safetensors", layers)
    with pytest.raises(Refused) as refused:
        merge(model, [Weighted(file, 1.0)], tmp_path / "out", dtype=None, tell=ignore)
    assert [finding.code for finding in refused.value.findings] == ["SF077"]


def test_weights_too_large_for_the_dtype_leave_nothing_behind(
    model: ModelWeights, tmp_path: Path
) -> None:
    layers = loras(model, layers=LAYERS[:1])
    layers[LAYERS[0]]["lora_up"] *= 1e8
    file = write(tmp_path / "a.safetensors", layers)
    with pytest.raises(Refused) as refused:
        merge(model, [Weighted(file, 1.0)], tmp_path / "o", dtype=torch.float16, tell=ignore)
    (finding,) = refused.value.findings
    assert (finding.code, finding.values["dtype"]) == ("SF086", "float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_sum_that_is_not_finite_leaves_nothing_behind(
    dtype: torch.dtype | None, model: ModelWeights, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.safetensors", loras(model, layers=LAYERS[:1]))
    with pytest.raises(Refused) as refused:
        merge(model, [Weighted(file, 1e300)], tmp_path / "o", dtype=dtype, tell=ignore)
    (finding,) = refused.value.findings
    assert (finding.code, finding.values["name"]) == ("SF096", "conv_in.weight")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


def test_full_disk_is_told_before_anything_is_written(
    model: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.safetensors", loras(model))
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(OSError, match="No space left"):
        merge(model, [Weighted(file, 1.0)], tmp_path / "out", dtype=None, tell=ignore)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]


def test_one_layer_is_in_memory_at_a_time(
    model: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.safetensors", loras(model))
    read, alive, most, total = TensorFile.read, 0, 0, 0

    def forget(size: int) -> None:
        nonlocal alive
        alive -= size

    def counted(self: TensorFile, name: str) -> Tensor:
        nonlocal alive, most, total
        tensor = read(self, name)
        weakref.finalize(tensor, forget, tensor.nbytes)
        alive, total = alive + tensor.nbytes, total + tensor.nbytes
        most = max(most, alive)
        return tensor

    monkeypatch.setattr(TensorFile, "read", counted)
    merge(model, [Weighted(file, 1.0)], tmp_path / "out", dtype=None, tell=ignore)
    largest = max(
        header.end - header.start for file in model.files for header in file.headers.values()
    )
    # The largest one, the one before it, and the factors of a layer.
    assert largest <= most < 2.5 * largest
    assert total > 3 * most


def test_model_in_pieces_is_merged_piece_by_piece(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (file,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()
    names, stem = sorted(tensors), "diffusion_pytorch_model"
    pieces = {f"{stem}-00001-of-00002.safetensors": names[::2]}
    pieces[f"{stem}-00002-of-00002.safetensors"] = names[1::2]
    for piece, inside in pieces.items():
        save_file({name: tensors[name] for name in inside}, folder / "unet" / piece)
    index = {"weight_map": {name: piece for piece, inside in pieces.items() for name in inside}}
    (folder / "unet" / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
    layers = loras(model)
    whole = merged(model, tmp_path / "whole", (layers, 1.0))
    cut = merged(open_model(str(folder)), tmp_path / "cut", (layers, 1.0))
    assert len(cut.files) == len(whole.files) + 1
    for name, place in whole.tensors.items():
        other = cut.tensors[name]
        assert torch.equal(place.file.read(place.name), other.file.read(other.name))
