"""The factor on an update is read from wherever a program keeps it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from surefoot.formats.adapter_file import open_adapter, write_adapter
from surefoot.formats.weights import WeightsError
from tests.formats.small_adapters import DOWN, FLAT, TO_Q, UP, saved


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"unet.lora_alpha": 8, "unet.r": 2}, 8),
        ({"unet.lora_alpha": 8, "unet.r": 2, "unet.use_rslora": True}, 8 * math.sqrt(2)),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 5}}, 5),
        ({"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_k": 5}}, 8),
        ({"text_encoder.lora_alpha": 8, "text_encoder.r": 4}, 2),
        ({"lora_alpha": 6, "r": 4}, 6),
    ],
)
def test_alpha_of_diffusers_is_read_from_the_header(
    settings: dict[str, Any], alpha: float, tmp_path: Path
) -> None:
    tensors = {f"unet.{TO_Q}.lora_A.weight": DOWN, f"unet.{TO_Q}.lora_B.weight": UP}
    file = open_adapter(saved(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(settings)}))
    assert float(file.read(f"unet.{TO_Q}")["alpha"]) == pytest.approx(alpha)


def test_alpha_of_peft_is_read_from_the_file_beside(tmp_path: Path) -> None:
    names = (f"base_model.model.{TO_Q}.lora_A.weight", f"base_model.model.{TO_Q}.lora_B.weight")
    path = saved(tmp_path, dict(zip(names, (DOWN, UP), strict=True)))
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 7, "r": 2}')
    file = open_adapter(path)
    assert file.format == "peft"
    assert float(file.read(f"unet.{TO_Q}")["alpha"]) == 7


def test_settings_of_another_file_in_the_folder_do_not_change_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 7, "r": 2}')
    foreign = {f"unet.{TO_Q}.lora_A.weight": DOWN, f"unet.{TO_Q}.lora_B.weight": UP}
    assert float(open_adapter(saved(tmp_path, foreign)).read(f"unet.{TO_Q}")["alpha"]) == 2
    # By PEFT's own file name, but written here, with alpha / rank in the up factor.
    own = tmp_path / "adapter_model.safetensors"
    leaves = {"lora_down": DOWN, "lora_up": UP, "alpha": torch.tensor(7.0, dtype=torch.float64)}
    write_adapter(own, [(f"unet.{TO_Q}", leaves)], "diffusers", {})
    read = open_adapter(own).read(f"unet.{TO_Q}")
    assert torch.equal(read["lora_up"], UP * 3.5)
    assert float(read["alpha"]) == 2


def test_alpha_zero_of_kohya_is_the_rank(tmp_path: Path) -> None:
    tensors = {
        f"lora_unet_{FLAT}.lora_down.weight": DOWN,
        f"lora_unet_{FLAT}.lora_up.weight": UP,
        f"lora_unet_{FLAT}.alpha": torch.tensor(0.0),
    }
    assert float(open_adapter(saved(tmp_path, tensors)).read(f"unet.{TO_Q}")["alpha"]) == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("{", "is not readable as JSON"),
        ("[" * 100_000, "is not readable as JSON"),
        ("[1]", "holds no settings of PEFT"),
        ('{"lora_alpha": []}', "holds no settings of PEFT"),
        ('{"lora_alpha": "many"}', "holds no settings of PEFT"),
        ('{"lora_alpha": NaN}', "holds no settings of PEFT"),
        ('{"alpha_pattern": {"(": 1}}', "holds no settings of PEFT"),
        ('{"alpha_pattern": {"to_q": Infinity}}', "holds no settings of PEFT"),
        ('{"alpha_pattern": ["to_q"]}', "holds no settings of PEFT"),
    ],
)
def test_settings_say_what_is_wrong_with_them(settings: str, sentence: str, tmp_path: Path) -> None:
    tensors = {f"unet.{TO_Q}.lora_A.weight": DOWN, f"unet.{TO_Q}.lora_B.weight": UP}
    path = saved(tmp_path, tensors, {"lora_adapter_metadata": settings})
    with pytest.raises(WeightsError, match=f"lora_adapter_metadata {sentence}"):
        open_adapter(path)
