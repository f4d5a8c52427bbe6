"""Adapters come back from files as they were, and bad files are told in whole sentences."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from surefoot.config.adapter_format import AdapterFormat
from surefoot.formats.adapter_file import AdapterFile, open_adapter, write_adapter
from surefoot.formats.leaf_names import split
from surefoot.formats.weights import WeightsError
from tests.formats.small_adapters import (
    DOWN,
    FLAT,
    KINDS,
    METADATA,
    TO_Q,
    UP,
    Adapter,
    AdapterKind,
    adapter,
    saved,
    weights,
)

FORMATS: tuple[AdapterFormat, ...] = (
    *("kohya", "comfyui", "diffusers", "onetrainer-original", "simpletuner"),
)
CAN_HOLD: dict[AdapterFormat, frozenset[str]] = {
    "kohya": frozenset(KINDS),
    "simpletuner": frozenset(KINDS),
    "onetrainer-original": frozenset(KINDS),
    "comfyui": frozenset(KINDS) - {"dora output"},
    "diffusers": frozenset({"lora", "dora output"}),
}
UNET_ONLY = ("onetrainer-original", "simpletuner")


def parts(adapter_format: AdapterFormat) -> dict[str, Tensor]:
    one = adapter_format in UNET_ONLY
    return {path: weight for path, weight in weights().items() if not one or path[0] == "u"}


def read_all(file: AdapterFile) -> Adapter:
    return {layer: file.read(layer) for layer in file.layers}


def assert_equal(first: Adapter, second: Adapter) -> None:
    assert first.keys() == second.keys()
    for path, leaves in first.items():
        assert leaves.keys() == second[path].keys(), path
        for leaf, tensor in leaves.items():
            assert torch.equal(tensor, second[path][leaf]), (path, leaf)
            assert tensor.dtype == second[path][leaf].dtype


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter_format", FORMATS)
def test_adapter_comes_back_from_every_format_that_can_hold_it(
    adapter_format: AdapterFormat, kind: AdapterKind, tmp_path: Path
) -> None:
    written = adapter(kind, parts(adapter_format), ranks=(2, 4))
    path = tmp_path / "adapter.safetensors"
    if kind not in CAN_HOLD[adapter_format]:
        with pytest.raises(WeightsError, match=adapter_format.partition("-")[0]):
            write_adapter(path, written.items(), adapter_format, METADATA)
        assert not list(tmp_path.iterdir())
        return
    write_adapter(path, written.items(), adapter_format, METADATA)
    file = open_adapter(path)
    assert (file.format, file.family) == (adapter_format, "sd15")
    assert len(file.layers) == len(written) > 50
    if adapter_format == "diffusers":  # alpha is in the up factor, with the same effect
        for leaves in written.values():
            rank = leaves["lora_down"].shape[0]
            leaves["lora_up"] = leaves["lora_up"] * (float(leaves["alpha"]) / rank)
            leaves["alpha"] = torch.tensor(rank, dtype=torch.float64)
    assert_equal(read_all(file), written)
    again = tmp_path / "again.safetensors"
    write_adapter(again, read_all(file).items(), adapter_format, file.metadata)
    assert again.read_bytes() == path.read_bytes()


def test_alpha_that_float32_does_not_hold_comes_back_exactly(tmp_path: Path) -> None:
    written = adapter("lora", parts("kohya"), ranks=(3,))
    for leaves in written.values():
        leaves["alpha"] = torch.tensor(4 * math.sqrt(3), dtype=torch.float64)
    write_adapter(tmp_path / "a.safetensors", written.items(), "kohya", {})
    assert_equal(read_all(open_adapter(tmp_path / "a.safetensors")), written)


TO_OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
PROCESSOR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"
Q_PROJ = "text_encoder.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("down", "path"),
    [
        (f"unet.{PROCESSOR}.to_out_lora.down.weight", f"unet.{TO_OUT}"),
        (f"{PROCESSOR}.to_q_lora.down.weight", f"unet.{TO_Q}"),
        (f"unet.{TO_Q}.lora.down.weight", f"unet.{TO_Q}"),
        (f"unet.{TO_Q}.lora_A.default.weight", f"unet.{TO_Q}"),
        (f"base_model.model.{TO_Q}.lora_A.weight", f"unet.{TO_Q}"),
        (f"unet.base_model.model.{TO_Q}.lora_A.weight", f"unet.{TO_Q}"),
        (f"lora_unet_{FLAT}.lora_down.weight", f"unet.{TO_Q}"),
        (f"lycoris_{FLAT}.lora_down.weight", f"unet.{TO_Q}"),
        (
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
            f"unet.{TO_Q}",
        ),
        (
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
            f"unet.{TO_Q}",
        ),
        ("input_blocks.1.1.transformer_blocks.0.attn1.to_q.lora_A.weight", f"unet.{TO_Q}"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", Q_PROJ),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight", Q_PROJ),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
            Q_PROJ,
        ),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", Q_PROJ),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", Q_PROJ),
        (
            "text_encoders.clip_h.transformer.text_model.encoder.layers.0.self_attn.q_proj"
            ".lora_A.weight",
            Q_PROJ,
        ),
        (
            "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
            "transformer.transformer_blocks.0.attn.to_q",
        ),
        (
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
            "lora_unet.double_blocks_0_img_attn_qkv",
        ),
        (
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight",
            "diffusion_model.double_blocks.0.img_attn.qkv",
        ),
    ],
)
def test_names_of_many_programs_are_known(down: str, path: str, tmp_path: Path) -> None:
    up = down.replace("lora_A", "lora_B").replace("lora_down", "lora_up").replace(".down.", ".up.")
    file = open_adapter(saved(tmp_path, {down: DOWN, up: UP}))
    assert file.layers == (path,)
    leaves = file.read(path)
    assert torch.equal(leaves["lora_down"], DOWN)
    assert torch.equal(leaves["lora_up"], UP)
    assert float(leaves["alpha"]) == 2


@pytest.mark.parametrize(
    ("name", "shape", "canonical"),
    [
        ("lora_magnitude_vector", (8,), (8, 1)),
        ("lora_magnitude_vector.weight", (8,), (8, 1)),
        ("lora_magnitude_vector.default.weight", (8,), (8, 1)),
        ("magnitude", (8,), (8, 1)),
        ("dora_scale", (8, 1), (8, 1)),
        ("dora_scale", (8,), (8, 1)),
        ("dora_scale", (1, 6), (1, 6)),
    ],
)
def test_every_magnitude_gets_the_shape_that_tells_its_axis(
    name: str, shape: tuple[int, ...], canonical: tuple[int, ...], tmp_path: Path
) -> None:
    tensors = {f"unet.{TO_Q}.lora_A.weight": DOWN, f"unet.{TO_Q}.lora_B.weight": UP}
    file = open_adapter(saved(tmp_path, tensors | {f"unet.{TO_Q}.{name}": torch.ones(shape)}))
    assert file.read(f"unet.{TO_Q}")["magnitude"].shape == canonical


def test_magnitude_of_a_convolution_from_peft_is_of_the_outputs(tmp_path: Path) -> None:
    tensors = {
        "unet.conv_in.lora_A.weight": torch.ones(2, 4, 3, 3),
        "unet.conv_in.lora_B.weight": torch.ones(4, 2, 1, 1),
        "unet.conv_in.lora_magnitude_vector": torch.ones(1, 4, 1, 1),
    }
    file = open_adapter(saved(tmp_path, tensors))
    assert file.read("unet.conv_in")["magnitude"].shape == (4, 1, 1, 1)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as error:
        open_adapter(path)
    return str(error.value)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    tensors = {
        "unet.a.lora_A.weight": DOWN,
        "unet.b.lora_A.weight": DOWN,
        "unet.b.lora_B.weight": torch.ones(8, 3),
        "unet.c.lora_B.weight": UP,
        "unet.c.hada_w1_a": UP,
        "unet.d.alpha": torch.tensor(1.0),
        "unet.e.lora_A.weight": DOWN,
        "unet.e.lora_down.weight": DOWN,
        "unet.e.lora_B.weight": UP,
        "lora_unet_conv_in.lora_down.weight": DOWN,
        "lora_unet_conv_in.lora_up.weight": UP,
        "words.word": torch.ones(3),
    }
    path = saved(tmp_path, tensors)
    first, *faults = refusal(path).splitlines()
    assert first == f"{path}:"
    assert sorted(faults) == sorted(
        f"  {fault}"
        for fault in (
            "unet.e.lora_A.weight and unet.e.lora_down.weight are the same tensor.",
            "words.word is no known name of a tensor of an adapter.",
            "Names of several formats are mixed: lora_unet_conv_in.lora_down.weight (kohya), "
            "unet.a.lora_A.weight (diffusers).",
            "The adapter of unet.a lacks lora_up.",
            "The shapes of the adapter of unet.b do not fit together: lora_down [2, 6], "
            "lora_up [8, 3].",
            "The adapter of unet.c mixes methods: it has hada_w1_a, lora_up.",
            "The adapter of unet.d has no factors, only alpha.",
        )
    )


def test_faults_beyond_twenty_are_counted(tmp_path: Path) -> None:
    tensors = {f"unet.{number}.lora_A.weight": DOWN for number in range(25)}
    lines = refusal(saved(tmp_path, tensors)).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "and 5 more"


def test_broken_files_are_told_apart(tmp_path: Path) -> None:
    whole = saved(tmp_path, {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": UP})
    content = whole.read_bytes()
    for broken in (content[:-4], content[:20], b"", b"junk" * 100):
        (tmp_path / "broken.safetensors").write_bytes(broken)
        assert "copy or download it again" in refusal(tmp_path / "broken.safetensors")
    assert "is not there" in refusal(tmp_path / "missing.safetensors")
    assert "is a folder; give the path" in refusal(tmp_path)
    torch.save({"unet.a.lora_A.weight": DOWN}, tmp_path / "adapter.pt")
    assert "weights_only=True" in refusal(tmp_path / "adapter.pt")
    model = saved(tmp_path, {"conv_in.weight": torch.ones(2, 2), "conv_in.bias": torch.ones(2)})
    assert "a whole model" in refusal(model)
    assert "holds no tensors" in refusal(saved(tmp_path, {}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_when_read(bad: float, tmp_path: Path) -> None:
    up = UP.clone()
    up[3, 1] = bad
    file = open_adapter(saved(tmp_path, {"unet.a.lora_A.weight": DOWN, "unet.a.lora_B.weight": up}))
    with pytest.raises(WeightsError, match=r"lora_up of unet\.a has weights that are NaN"):
        file.read("unet.a")
    assert file.read("unet.a", finite=False)["lora_up"].shape == (8, 2)


def test_nothing_is_written_that_is_no_whole_adapter(tmp_path: Path) -> None:
    layers = [("unet.a", {"lora_down": DOWN}), ("unet.b", {"lora_down": DOWN, "lora_up": UP})]
    with pytest.raises(WeightsError) as error:
        write_adapter(tmp_path / "x.safetensors", layers, "kohya", {})
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "The adapter of unet.a lacks lora_up.",
        "The adapter of unet.a lacks alpha.",
        "The adapter of unet.b lacks alpha.",
    ]
    with pytest.raises(WeightsError, match="no layers to write"):
        write_adapter(tmp_path / "x.safetensors", [], "kohya", {})
    assert not list(tmp_path.iterdir())


def test_original_names_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    # conv_in, the samplers and the middle block of SD 1.x, by its original checkpoint.
    names = {
        "unet.conv_in": "input_blocks.0.0",
        "unet.down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "unet.down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
        "unet.down_blocks.3.resnets.1.conv1": "input_blocks.11.0.in_layers.2",
        "unet.mid_block.attentions.0.proj_in": "middle_block.1.proj_in",
        "unet.mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
        "unet.up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "unet.up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "unet.up_blocks.3.attentions.2.proj_out": "output_blocks.11.1.proj_out",
        "unet.time_embedding.linear_2": "time_embed.2",
        "unet.conv_out": "out.2",
    }
    alpha = torch.tensor(2.0, dtype=torch.float64)
    layers = {path: {"lora_down": DOWN, "lora_up": UP, "alpha": alpha} for path in names}
    write_adapter(tmp_path / "x.safetensors", layers.items(), "comfyui", {})
    assert load_file(tmp_path / "x.safetensors").keys() == {
        f"diffusion_model.{name}.{leaf}"
        for name in names.values()
        for leaf in ("lora_A.weight", "lora_B.weight", "alpha")
    }
    assert set(open_adapter(tmp_path / "x.safetensors").layers) == names.keys()


def written_names(folder: Path, layers: Adapter, adapter_format: AdapterFormat) -> set[str]:
    path = folder / "x.safetensors"
    write_adapter(path, layers.items(), adapter_format, {})
    assert set(open_adapter(path).layers) == layers.keys()
    return {parsed[0] for key in load_file(path) if (parsed := split(key))}


def layer_of(inputs: int, outputs: int = 8) -> dict[str, Tensor]:
    return {
        "lora_down": torch.ones(2, inputs),
        "lora_up": torch.ones(outputs, 2),
        "alpha": torch.tensor(1.0, dtype=torch.float64),
    }


def test_files_of_sdxl_have_the_names_that_kohya_gives_them(tmp_path: Path) -> None:
    layers = {
        "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k": layer_of(2048),
        "unet.up_blocks.0.upsamplers.0.conv": layer_of(6),
        "unet.up_blocks.1.upsamplers.0.conv": layer_of(6),
        "unet.add_embedding.linear_1": layer_of(6),
        "text_encoder.encoder.layers.0.self_attn.q_proj": layer_of(768, 768),
        "text_encoder_2.encoder.layers.0.mlp.fc1": layer_of(1280, 5120),
    }
    assert written_names(tmp_path, layers, "kohya") == {
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k",
        "lora_unet_output_blocks_2_2_conv",
        "lora_unet_output_blocks_5_2_conv",
        "lora_unet_label_emb_0_0",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    }
    assert open_adapter(tmp_path / "x.safetensors").family == "sdxl"
    assert "text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1" in written_names(
        tmp_path, layers, "comfyui"
    )


@pytest.mark.parametrize(("width", "name"), [(768, "clip_l"), (1024, "clip_h")])
def test_text_encoder_of_each_version_has_its_own_name_in_comfyui(
    width: int, name: str, tmp_path: Path
) -> None:
    layers = {"text_encoder.encoder.layers.0.mlp.fc1": layer_of(width, 4 * width)}
    (written,) = written_names(tmp_path, layers, "comfyui")
    assert written == f"text_encoders.{name}.transformer.text_model.encoder.layers.0.mlp.fc1"


def test_names_of_other_families_are_kept_and_not_made_up(tmp_path: Path) -> None:
    layers = {"diffusion_model.double_blocks.0.img_attn.qkv": layer_of(6)}
    assert written_names(tmp_path, layers, "comfyui") == set(layers)
    with pytest.raises(WeightsError, match=r"kohya has no name for diffusion_model\.double"):
        write_adapter(tmp_path / "y.safetensors", layers.items(), "kohya", {})
    flat = {"lora_unet.double_blocks_0_img_attn_qkv": layer_of(6)}
    assert written_names(tmp_path, flat, "kohya") == {"lora_unet_double_blocks_0_img_attn_qkv"}
