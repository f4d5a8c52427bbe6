"""Adapters of every family keep the names that its readers know."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from surefoot.adapters.convert import convert
from surefoot.adapters.cutting import Cutting
from surefoot.adapters.output import write_resized
from surefoot.formats.adapter_file import open_adapter, write_adapter
from surefoot.formats.weights import WeightsError
from tests.formats.small_adapters import DOWN, UP, saved

CLIP = "text_model_encoder_layers_0_self_attn_q_proj"
CLIP_PATH = "encoder.layers.0.self_attn.q_proj"


def tensors_of(*names: str) -> dict[str, Tensor]:
    leaves = {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": torch.tensor(1.0)}
    return {f"{name}.{leaf}": tensor for name in names for leaf, tensor in leaves.items()}


@pytest.mark.parametrize(
    "names",
    [
        (f"lora_te1_{CLIP}",),
        ("lora_unet_double_blocks_0_img_attn_qkv", f"lora_te1_{CLIP}"),
        (
            *("lora_unet_joint_blocks_0_x_block_attn_qkv", f"lora_te1_{CLIP}", f"lora_te2_{CLIP}"),
            "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
        ),
        (f"lora_te_{CLIP}", "lora_unet_down_blocks_0_resnets_0_conv1"),
        (f"lora_te1_{CLIP}", "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"),
    ],
)
def test_names_stay_where_the_format_stays(names: tuple[str, ...], tmp_path: Path) -> None:
    path = saved(tmp_path, tensors_of(*names))
    file = open_adapter(path)
    out = tmp_path / "again.safetensors"
    layers = [(layer, file.read(layer)) for layer in file.layers]
    write_adapter(out, layers, "kohya", file.metadata, file.names("kohya"))
    resized, converted = tmp_path / "resized.safetensors", tmp_path / "converted.safetensors"
    write_resized(file, resized, to="kohya", cutting=Cutting(1, 1.0))
    convert(file, None, converted, to="kohya", dtype=torch.bfloat16)
    for written in (out, resized, converted):
        assert load_file(written).keys() == load_file(path).keys()


@pytest.mark.parametrize(
    ("key", "told", "family", "prefix"),
    [
        ("ss_base_model_version", "sdxl_base_v1-0", "sdxl", "lora_te1"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora", "sdxl", "lora_te1"),
        ("ss_base_model_version", "sd_v1", "sd15", "lora_te"),
        ("modelspec.architecture", "stable-diffusion-v2-768-v/lora", "sd15", "lora_te"),
        ("ss_base_model_version", "flux1", "unknown", "lora_te1"),
        ("modelspec.architecture", "stable-diffusion-3-medium/lora", "unknown", "lora_te1"),
        ("ss_seed", "1", "sd15", "lora_te"),
    ],
)
def test_header_tells_the_family_of_a_lone_text_encoder(
    key: str, told: str, family: str, prefix: str, tmp_path: Path
) -> None:
    names = (f"text_encoder.text_model.{CLIP_PATH}.lora_{side}.weight" for side in "AB")
    path = saved(tmp_path, dict(zip(names, (DOWN, UP), strict=True)), {key: told})
    file = open_adapter(path)
    assert file.family == family
    out = tmp_path / "kohya.safetensors"
    layers = [(layer, file.read(layer)) for layer in file.layers]
    write_adapter(out, layers, "kohya", file.metadata, file.names("kohya"))
    assert {name.partition(".")[0] for name in load_file(out)} == {f"{prefix}_{CLIP}"}


def test_unet_of_sdxl_has_its_names_whatever_layers_are_adapted(tmp_path: Path) -> None:
    path = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    leaves = {"lora_down": DOWN, "lora_up": UP, "alpha": torch.tensor(1.0, dtype=torch.float64)}
    out = tmp_path / "kohya.safetensors"
    for told, name in (
        ("sdxl_base_v1-0", "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"),
        ("sd_v1", "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"),
    ):
        write_adapter(out, [(path, leaves)], "kohya", {"ss_base_model_version": told})
        assert {key.partition(".")[0] for key in load_file(out)} == {name}


def test_t5_is_the_third_text_encoder_of_kohya(tmp_path: Path) -> None:
    leaves = {"lora_down": DOWN, "lora_up": UP, "alpha": torch.tensor(1.0, dtype=torch.float64)}
    path = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
    write_adapter(tmp_path / "x.safetensors", [(path, leaves)], "kohya", {})
    (name,) = {key.partition(".")[0] for key in load_file(tmp_path / "x.safetensors")}
    assert name == "lora_te3_encoder_block_0_layer_0_SelfAttention_q"


def test_transformer_without_a_name_in_the_format_is_refused(tmp_path: Path) -> None:
    leaves = {"lora_down": DOWN, "lora_up": UP, "alpha": torch.tensor(1.0, dtype=torch.float64)}
    layers = [("transformer.transformer_blocks.0.attn.to_q", leaves)]
    with pytest.raises(WeightsError, match="kohya has no name for transformer"):
        write_adapter(tmp_path / "x.safetensors", layers, "kohya", {})
