"""What OneTrainer and LyCORIS put into their files besides is understood or told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from surefoot.adapters.convert import convert
from surefoot.adapters.cutting import Cutting
from surefoot.adapters.inspection import inspect_adapter
from surefoot.adapters.output import write_resized
from surefoot.formats.adapter_file import open_adapter
from surefoot.formats.weights import WeightsError
from surefoot.tuning.delta import weight_delta
from tests.formats.small_adapters import DOWN, FLAT, TO_Q, UP, saved

CLIP = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"


def factors(*names: str) -> dict[str, Tensor]:
    leaves = {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": torch.tensor(1.0)}
    return {f"{name}.{leaf}": tensor for name in names for leaf, tensor in leaves.items()}


def test_transformer_and_text_encoder_of_onetrainer_are_one_format(tmp_path: Path) -> None:
    tensors = factors(CLIP, "lora_transformer_transformer_blocks_0_attn_to_q")
    file = open_adapter(saved(tmp_path, tensors))
    assert file.format == "onetrainer-legacy"
    assert set(file.layers) == {
        "text_encoder.encoder.layers.0.self_attn.q_proj",
        "lora_transformer.transformer_blocks_0_attn_to_q",
    }


def test_unets_of_two_programs_are_no_one_format(tmp_path: Path) -> None:
    tensors = factors(CLIP, "lora_transformer_a_b", f"lora_unet_{FLAT}")
    with pytest.raises(WeightsError, match=r"mixed: lora_unet.*\(kohya\)|mixed: .*lora_unet"):
        open_adapter(saved(tmp_path, tensors))


def test_trained_words_are_left_out_and_told(tmp_path: Path) -> None:
    words = {f"bundle_emb.word.{name}": torch.ones(3, 8) for name in ("clip_l", "clip_g")}
    file = open_adapter(saved(tmp_path, factors(f"lora_unet_{FLAT}") | words))
    assert file.layers == (f"unet.{TO_Q}",)
    out = tmp_path / "out.safetensors"
    for findings in (
        inspect_adapter(file, None).findings,
        convert(file, None, out, to="diffusers", dtype=None).findings,
        write_resized(file, out, to="kohya", cutting=Cutting(1, 1.0)).findings,
    ):
        (told,) = (finding for finding in findings if finding.code == "SF619")
        assert told.values["count"] == 1
        assert told.values["example"] == "word"


W1 = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
LYCORIS: dict[str, dict[str, Tensor]] = {
    "lora": {"lora_down.weight": DOWN, "lora_up.weight": UP},
    "loha": {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP, "hada_w2_b": DOWN},
    "lokr": {"lokr_w1": W1, "lokr_w2_a": torch.ones(4, 2), "lokr_w2_b": torch.ones(2, 3)},
    "whole": {"lokr_w1": W1, "lokr_w2": torch.ones(4, 3)},
    "halves": {"lokr_w1_a": W1, "lokr_w1_b": W1, "lokr_w2": torch.ones(4, 3)},
}


@pytest.mark.parametrize("scalar", [0.0, -0.5, 3.0])
@pytest.mark.parametrize("kind", LYCORIS)
def test_scalar_of_lycoris_multiplies_the_update(kind: str, scalar: float, tmp_path: Path) -> None:
    tensors = {f"lycoris_{FLAT}.{name}": tensor.half() for name, tensor in LYCORIS[kind].items()}
    layer = f"unet.{TO_Q}"
    plain = weight_delta(open_adapter(saved(tmp_path, tensors)).read(layer), (8, 6))
    tensors[f"lycoris_{FLAT}.scalar"] = torch.tensor(scalar)
    file = open_adapter(saved(tmp_path, tensors))
    assert torch.allclose(weight_delta(file.read(layer), (8, 6)), scalar * plain)
    assert "scalar" not in file.shapes(layer)


def test_scalar_of_many_numbers_is_refused(tmp_path: Path) -> None:
    tensors = factors(f"lora_unet_{FLAT}") | {f"lora_unet_{FLAT}.scalar": torch.ones(2)}
    with pytest.raises(WeightsError, match="scalar is no tensor of an adapter"):
        open_adapter(saved(tmp_path, tensors))
