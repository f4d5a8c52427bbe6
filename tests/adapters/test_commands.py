"""The verbs on the command line: what they print, refuse and write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from surefoot.adapters.model_weights import ModelWeights
from surefoot.formats.adapter_file import open_adapter
from tests.adapters.adapter_files import LAYERS, doras, lora, loras, write
from tests.adapters.test_extract import update
from tests.run_files import codes, surefoot


def test_inspect_tells_what_a_file_is_and_that_it_is_healthy(
    dora_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "d.svg"
    result = surefoot("inspect", dora_file, "--base", model_folder, "--plot", plot)
    assert result.exit_code == 0, result.output
    told = dict(line.split("  ", 1) for line in result.output.splitlines() if "  " in line)
    told = {name: text.strip() for name, text in told.items()}
    assert told["format"] == "diffusers"
    assert told["kind"] == "DoRA, output axis (5)"
    assert told["parts"] == "text_encoder (1), unet (4)"
    assert told["layers"] == "3 linear, 1 convolution 3x3, 1 convolution 1x1"
    assert (told["rank"], told["alpha / rank"], told["ss_steps"]) == ("3", "1", "500")
    assert told["verdict"] == "healthy"
    assert set(LAYERS) <= told.keys()
    assert plot.read_text(encoding="utf-8").count('class="healthy"') == len(LAYERS)


def test_inspect_as_json_has_every_figure_and_no_nan(model: ModelWeights, tmp_path: Path) -> None:
    layers = loras(model)
    layers[LAYERS[0]]["lora_up"][0] = torch.nan
    path = write(tmp_path / "a.safetensors", layers).path
    result = surefoot("inspect", path, "--json")
    assert result.exit_code == 1

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    document = json.loads(result.stdout, parse_constant=refuse)
    assert document["schema"] == 1
    assert document["adapter"]["verdict"] == "not_finite"
    assert [layer["path"] for layer in document["adapter"]["layers"]] == sorted(LAYERS)
    first = {layer["path"]: layer for layer in document["adapter"]["layers"]}[LAYERS[0]]
    assert (first["update_norm"], first["unusable"]) == (None, ["lora_up"])
    assert [finding["code"] for finding in document["findings"]] == ["SF601"]


def test_inspect_tells_a_dead_adapter_from_an_exploded_one(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    for factor, code, words in ((0.0, "SF602", "dead"), (1e3, "SF603", "exploded")):
        layers = loras(model)
        for leaves in layers.values():
            leaves["lora_up"] *= factor
        path = write(tmp_path / "a.safetensors", layers).path
        result = surefoot("inspect", path, "--base", model_folder)
        assert result.exit_code == 1
        assert codes(result) == [code]
        assert f" {words}" in result.output.split("verdict", 1)[1].splitlines()[0]


def test_base_that_the_metadata_names_is_taken_if_it_fits(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    layers = doras(model)
    path = tmp_path / "a.safetensors"
    write(path, layers, surefoot_base=str(model_folder))
    document = json.loads(surefoot("inspect", path, "--json").stdout)
    assert document["adapter"]["base"] == str(model_folder)
    assert {layer["magnitude"] for layer in document["adapter"]["layers"]} == {"trained"}
    write(path, layers, surefoot_base="builtin")
    result = surefoot("inspect", path)
    assert result.exit_code == 0
    assert codes(result) == ["SF607", "SF609"]
    write(path, layers, surefoot_base="/nowhere/at/all")
    assert codes(surefoot("inspect", path)) == ["SF607"]


def test_alpha_that_readers_will_not_find_is_told(model: ModelWeights, tmp_path: Path) -> None:
    start = write(tmp_path / "a.safetensors", loras(model), "kohya").path
    without = {name: leaf for name, leaf in load_file(start).items() if ".alpha" not in name}
    save_file(without, tmp_path / "b.safetensors")
    result = surefoot("inspect", tmp_path / "b.safetensors")
    assert (result.exit_code, codes(result)) == (0, ["SF616"])
    # As diffusers writes the adapter of PEFT: what alpha is stands in the header.
    folded = write(tmp_path / "c.safetensors", loras(model), "diffusers").path
    assert codes(surefoot("inspect", folded)) == []
    config = {f"{part}.{key}": value for part in ("unet", "text_encoder") for key, value in
              (("r", 3), ("lora_alpha", 12), ("target_modules", ["to_q"]))}  # fmt: skip
    header = {"lora_adapter_metadata": json.dumps(config)}
    save_file(load_file(folded), tmp_path / "d.safetensors", metadata=header)
    result = surefoot("inspect", tmp_path / "d.safetensors")
    assert (result.exit_code, codes(result)) == (0, ["SF610"])
    assert "the right strength is 4, not 1" in result.output


def test_magnitudes_that_never_moved_are_found(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    layers = doras(model)
    for layer, leaves in layers.items():
        weight = model.read(layer)
        dims = list(range(1, weight.ndim))
        leaves["magnitude"] = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
    path = write(tmp_path / "a.safetensors", layers, "kohya").path
    result = surefoot("inspect", path, "--base", model_folder)
    assert (result.exit_code, codes(result)) == (1, ["SF606"])


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        (kind, to)
        for kind in ("lora", "dora_output", "dora_input")
        for to in ("kohya", "comfyui", "comfyui-compat", "simpletuner")
        # ComfyUI's own names without the bending are refused for it, see below.
        if (kind, to) != ("dora_output", "comfyui")
    ],
)
def test_there_and_back_is_the_same_adapter(
    kind: str, to: str, model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    held = LAYERS[:4] if to == "simpletuner" else LAYERS  # it has no name for text encoders
    layers = loras(model, alpha=2) if kind == "lora" else doras(model, axis=kind[5:])
    layers = {layer: layers[layer] for layer in held}
    start = write(tmp_path / "a.safetensors", layers, "kohya").path
    there, back = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    base = ("--base", model_folder)
    result = surefoot("convert", start, "--to", to, "--out", there, *base)
    assert result.exit_code == 0, result.output
    assert f"kohya -> {to}" in result.output
    result = surefoot("convert", there, "--to", "kohya", "--out", back, *base)
    assert result.exit_code == 0, result.output
    before, after = load_file(start), load_file(back)
    assert before.keys() == after.keys()
    bent = kind == "dora_output" and to == "comfyui-compat"
    for name, tensor in before.items():
        # Bent and straightened again in float64, each time rounded to float32.
        torch.testing.assert_close(after[name], tensor, rtol=3e-7 if bent else 0, atol=0)


def test_bent_magnitudes_give_comfyui_the_right_weights(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    layers = doras(model)
    start = write(tmp_path / "a.safetensors", layers, "kohya").path
    out = tmp_path / "b.safetensors"
    args = ("--to", "comfyui-compat", "--out", out)
    refused = surefoot("convert", start, *args)
    assert (refused.exit_code, codes(refused)) == (2, ["SF079"])
    assert surefoot("convert", start, *args, "--base", model_folder).exit_code == 0
    file = open_adapter(out)
    for layer in LAYERS:
        weight = model.read(layer).double()
        bent = file.read_bent(layer)
        update_ = torch.from_numpy(update(bent)).reshape(weight.shape)
        dims = list(range(1, weight.ndim))
        norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
        # As comfy/weight_adapter/base.py has it: it divides by the norm of the weight alone.
        comfy = (weight + update_) * (bent["comfyui_magnitude"].double() / norm)
        moved = weight + torch.from_numpy(update(layers[layer])).reshape(weight.shape)
        right = layers[layer]["magnitude"].double() * moved
        right /= torch.linalg.vector_norm(moved, dim=dims, keepdim=True)
        torch.testing.assert_close(comfy, right, rtol=1e-6, atol=1e-7)


def test_names_for_comfyui_are_those_of_the_original_checkpoint(
    model: ModelWeights, model_folder: Path, model_file: Path, tmp_path: Path
) -> None:
    held = [layer for layer in LAYERS if layer.startswith("unet.")]
    start = write(tmp_path / "a.safetensors", loras(model, layers=held), "kohya").path
    out = tmp_path / "o.safetensors"
    result = surefoot("convert", start, "--to", "comfyui", "--out", out, "--base", model_folder)
    assert result.exit_code == 0, result.output
    factors = (
        name for name in load_file(out) if name.endswith((".lora_up.weight", ".lora_B.weight"))
    )
    modules = {name.rsplit(".", 2)[0] for name in factors}
    assert len(modules) == len(held)
    assert {f"model.{module}.weight" for module in modules} <= load_file(model_file).keys()


def test_unusual_layout_needs_the_model_where_names_depend_on_it(
    model: ModelWeights, tmp_path: Path
) -> None:
    shape, out = model.shape(LAYERS[2]), tmp_path / "o.safetensors"
    for layer in ("up_blocks.0.attentions.0", "down_blocks.1.resnets.2", "up_blocks.2.resnets.3"):
        leaves = {f"unet.{layer}.proj_in": lora(shape, 2, 0), LAYERS[2]: lora(shape, 2, 1)}
        start = write(tmp_path / "a.safetensors", leaves, "diffusers").path
        result = surefoot("convert", start, "--to", "comfyui", "--out", out)
        assert (result.exit_code, codes(result)) == (2, ["SF089"]), result.output
        assert surefoot("convert", start, "--to", "kohya", "--out", out, "--force").exit_code == 0
        out.unlink()


def test_convert_says_what_the_format_cannot_hold(
    model: ModelWeights, dora_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.safetensors"
    result = surefoot("convert", dora_file, "--to", "comfyui", "--out", out)
    assert (result.exit_code, codes(result)) == (2, ["SF080"])
    assert f"and {len(LAYERS) - 1} more reasons" in result.output
    assert not out.exists()


def test_convert_casts_factors_and_refuses_what_would_be_infinite(
    adapter: Path, model: ModelWeights, tmp_path: Path
) -> None:
    out = tmp_path / "o.safetensors"
    args = ("--to", "kohya", "--out", out)
    assert surefoot("convert", adapter, *args, "--dtype", "bf16").exit_code == 0
    dtypes = {
        tensor.dtype for name, tensor in load_file(out).items() if not name.endswith(".alpha")
    }
    assert dtypes == {torch.bfloat16}
    layers = {LAYERS[2]: lora(model.shape(LAYERS[2]), 2, 0)}
    layers[LAYERS[2]]["lora_up"] *= 1e7
    large = write(tmp_path / "large.safetensors", layers).path
    result = surefoot("convert", large, *args, "--dtype", "fp16", "--force")
    assert (result.exit_code, codes(result)) == (2, ["SF086"])
    assert dtypes == {
        tensor.dtype for name, tensor in load_file(out).items() if not name.endswith(".alpha")
    }


@pytest.mark.parametrize("to", ["kohya", "simpletuner", "onetrainer-original", "diffusers"])
def test_format_whose_readers_take_it_wrongly_is_told(
    to: str, model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    layers = doras(model, layers=LAYERS[:4])
    start = write(tmp_path / "a.safetensors", layers, "diffusers").path
    out = tmp_path / "o.safetensors"
    args = ("--to", to, "--out", out, "--base", model_folder)
    result = surefoot("convert", start, *args)
    wrongly = [] if to == "diffusers" else ["SF183"]
    assert (result.exit_code, codes(result)) == (0, wrongly)
    result = surefoot("resize", out, "--rank", "1", "--out", tmp_path / "s.safetensors")
    assert (result.exit_code, codes(result)) == (0, [*wrongly, "SF615"])


@pytest.mark.parametrize(("to", "found"), [("kohya", ["SF618"]), ("diffusers", [])])
def test_unequal_alphas_are_told_where_diffusers_misreads_them(
    to: str, found: list[str], model: ModelWeights, tmp_path: Path
) -> None:
    layers = loras(model)
    layers[LAYERS[2]]["alpha"] *= 2
    start = write(tmp_path / "a.safetensors", layers).path
    result = surefoot("convert", start, "--to", to, "--out", tmp_path / "o.safetensors")
    assert (result.exit_code, codes(result)) == (0, found)
    # Of two parts each has an alpha of its own.
    layers = loras(model)
    layers[LAYERS[4]]["alpha"] *= 2
    start = write(tmp_path / "a.safetensors", layers).path
    result = surefoot("convert", start, "--to", to, "--out", tmp_path / "o.safetensors", "--force")
    assert (result.exit_code, codes(result)) == (0, [])


@pytest.mark.parametrize("to", ["kohya", "diffusers", "comfyui-compat"])
def test_magnitudes_keep_their_precision(
    to: str, dora_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.safetensors"
    args = ("convert", dora_file, "--to", to, "--out", out, "--base", model_folder)
    assert surefoot(*args, "--dtype", "bf16").exit_code == 0
    file = open_adapter(out)
    for layer in file.layers:
        leaves = file.read_bent(layer)
        magnitude = "comfyui_magnitude" if to == "comfyui-compat" else "magnitude"
        assert leaves["lora_up"].dtype == leaves["lora_down"].dtype == torch.bfloat16
        assert leaves[magnitude].dtype == torch.float32


@pytest.mark.parametrize("ratio", [3e4, 0.3, 1e-9])
def test_scale_that_has_no_room_in_half_precision_is_written_in_float32(
    ratio: float, model: ModelWeights, tmp_path: Path
) -> None:
    leaves = lora(model.shape(LAYERS[2]), 2, 0, alpha=2 * ratio)
    leaves |= {name: leaves[name].half() * 60 for name in ("lora_up", "lora_down")}
    start = write(tmp_path / "a.safetensors", {LAYERS[2]: leaves}).path
    out = tmp_path / "o.safetensors"
    args = ("convert", start, "--to", "diffusers", "--out", out)
    assert surefoot(*args).exit_code == 0
    found = update(open_adapter(out).read(LAYERS[2]))
    # One rounding of each factor to float32.
    np.testing.assert_allclose(found, update(leaves), rtol=2e-6, atol=1e-6 * ratio)
    # Where half precision is asked for, what it cannot hold is told.
    result = surefoot(*args, "--dtype", "fp16", "--force")
    expected = {3e4: (2, ["SF086"]), 0.3: (0, []), 1e-9: (0, ["SF611"])}[ratio]
    assert (result.exit_code, codes(result)) == expected


def test_bent_magnitude_has_room_for_any_ratio_of_norms(
    model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    leaves = doras(model, layers=LAYERS[2:3])[LAYERS[2]]
    # ||W + d|| is a million times ||W||: divided by that, nothing of fp16 is left.
    leaves["lora_up"] *= 1e6
    leaves["magnitude"] = leaves["magnitude"].half()
    start = write(tmp_path / "a.safetensors", {LAYERS[2]: leaves}).path
    there, back = tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    base = ("--base", model_folder)
    for source, to, out in ((start, "comfyui-compat", there), (there, "kohya", back)):
        assert surefoot("convert", source, "--to", to, "--out", out, *base).exit_code == 0
    again = open_adapter(back).read(LAYERS[2])["magnitude"]
    torch.testing.assert_close(again, leaves["magnitude"].float(), rtol=3e-7, atol=0)


def test_merge_extract_and_resize_go_round(
    adapter: Path, model: ModelWeights, model_folder: Path, tmp_path: Path
) -> None:
    tuned, back, small = (tmp_path / name for name in ("tuned", "b.safetensors", "s.safetensors"))
    result = surefoot("merge", model_folder, f"{adapter}=0.5", "--out", tuned)
    assert result.exit_code == 0, result.output
    assert "layers changed: 5" in result.output
    result = surefoot("extract", model_folder, tuned, "--rank", "3", "--out", back)
    assert result.exit_code == 0, result.output
    assert "kept of all updates together: 100" in result.output
    made, found = loras(model, alpha=2), open_adapter(back)
    for layer in LAYERS:
        np.testing.assert_allclose(update(found.read(layer)), 0.5 * update(made[layer]), atol=2e-7)
    result = surefoot("resize", back, "--rank", "1", "--out", small)
    assert result.exit_code == 0, result.output
    assert "rank: 1" in result.output
    assert open_adapter(small).read(LAYERS[0])["lora_down"].shape[0] == 1


def test_path_with_an_equals_sign_is_a_path(
    adapter: Path, model_folder: Path, tmp_path: Path
) -> None:
    odd = adapter.rename(tmp_path / "lr=1e.safetensors")
    for number, given in enumerate((odd, f"{odd}=1e-1")):
        result = surefoot("merge", model_folder, given, "--out", tmp_path / f"t{number}")
        assert result.exit_code == 0, result.output


def test_verbs_speak_chinese(dora_file: Path, model_folder: Path, tmp_path: Path) -> None:
    healthy = surefoot("--lang", "zh", "inspect", dora_file, "--base", model_folder)
    assert healthy.exit_code == 0
    for words in ("输出轴 (5)", "结论", "正常", "稳定秩"):
        assert words in healthy.output
    out = ("--out", tmp_path / "o.safetensors")
    refused = surefoot("--lang", "zh", "resize", tmp_path / "none.safetensors", *out)
    assert (refused.exit_code, codes(refused)) == (2, ["SF070", "SF078"][::-1])
    assert "不是可以读取的适配器" in refused.output
    smaller = surefoot("--lang", "zh", "resize", dora_file, "--rank", "1", *out)
    assert "全部更新合计保留" in smaller.output
