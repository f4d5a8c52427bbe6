"""Numbers of every width are read, and what is no number is refused in a sentence."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from surefoot.formats.adapter_file import LAYOUT_KEY, open_adapter
from surefoot.formats.weights import WeightsError
from tests.formats.small_adapters import DOWN, TO_Q, UP, saved

NAME = f"unet.{TO_Q}"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_adapter_in_eight_bits_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    down, up = DOWN.to(dtype), UP.to(dtype)
    tensors = {f"{NAME}.lora_A.weight": down, f"{NAME}.lora_B.weight": up}
    read = open_adapter(saved(tmp_path, tensors)).read(NAME)
    assert read["lora_down"].dtype == dtype
    assert torch.equal(read["lora_up"].float(), UP)
    broken = up.float()
    broken[0, 0] = torch.nan
    tensors[f"{NAME}.lora_B.weight"] = broken.to(dtype)
    with pytest.raises(WeightsError, match="NaN or infinite"):
        open_adapter(saved(tmp_path, tensors)).read(NAME)


def raw(path: Path, tensors: dict[str, tuple[str, list[int], int]]) -> Path:
    """A safetensors file of zeros; name to dtype, shape and bytes."""
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape, size) in tensors.items():
        offsets = [end, end + size]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def test_packed_and_quantised_weights_are_refused_all_at_once(tmp_path: Path) -> None:
    path = raw(
        tmp_path / "packed.safetensors",
        {
            f"{NAME}.lora_A.weight": ("F4", [2, 6], 6),
            f"{NAME}.lora_B.weight": ("I8", [8, 2], 16),
            f"{NAME}.alpha": ("I64", [], 8),
        },
    )
    with pytest.raises(WeightsError) as error:
        open_adapter(path)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        f"{NAME}.lora_A.weight is stored as F4, which is not read; store it as F32, F16 or BF16.",
        f"{NAME}.lora_B.weight is stored as I8, which is not read; store it as F32, F16 or BF16.",
    ]


@pytest.mark.parametrize("layers", ["-1", "0", "Infinity", '"x"', "[]", "null"])
def test_layout_that_cannot_be_is_that_of_the_released_model(layers: str, tmp_path: Path) -> None:
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    tensors = {f"{name}.lora_A.weight": DOWN, f"{name}.lora_B.weight": UP}
    path = saved(tmp_path, tensors, {LAYOUT_KEY: f'{{"layers": {layers}}}'})
    assert open_adapter(path).layers == (NAME,)


def test_header_that_the_library_refuses_is_told_in_words_of_this_program(tmp_path: Path) -> None:
    path = raw(tmp_path / "odd.safetensors", {f"{NAME}.lora_A.weight": ("F9", [2, 6], 48)})
    with pytest.raises(WeightsError, match="its header is not readable; copy or download"):
        open_adapter(path)
