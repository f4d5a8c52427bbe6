"""Headers against safetensors' own writer, and files that are not what they seem."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from surefoot.formats.headers import HeaderError, TensorHeader, read_header, sampled_rms

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(4))


def rms(tensor: torch.Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


def written(folder: Path, **tensors: torch.Tensor) -> Path:
    path = folder / "weights.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "note": "häh"})
    return path


def forged(folder: Path, header: object, data: bytes = b"\0" * 16) -> Path:
    """A file with any header, of the right length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "forged.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_headers_say_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {
        "a.weight": normal(3, 4),
        "b": torch.tensor(2.5),
        "c": torch.arange(5),
        "d": normal(2, 3, 1, 1).half(),
        "none": torch.empty(0, 3),
    }
    headers = read_header(written(tmp_path, **tensors))
    names = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}
    assert {name: (header.dtype, header.shape) for name, header in headers.items()} == {
        name: (names[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()
    }
    assert {name: header.numbers for name, header in headers.items()} == {
        name: tensor.numel() for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_of_small_tensors_is_exact(dtype: str, tmp_path: Path) -> None:
    tensors = {
        "matrix": (3e-3 * normal(40, 7)).to(DTYPES[dtype]),
        "one": torch.tensor(-0.5, dtype=DTYPES[dtype]),
        "odd": torch.tensor([1.0, 0.0, 3.0], dtype=DTYPES[dtype]),
    }
    path = written(tmp_path, **tensors)
    headers = read_header(path)
    for name, tensor in tensors.items():
        assert headers[name].dtype == dtype
        assert sampled_rms(path, headers[name]) == pytest.approx(rms(tensor), rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_of_large_tensors_is_within_one_percent(dtype: str, tmp_path: Path) -> None:
    # Rows of unlike size, as in real weights.
    tensor = (normal(1200, 640) * torch.linspace(0.01, 0.03, 1200)[:, None]).to(DTYPES[dtype])
    path = written(tmp_path, first=normal(5), weight=tensor)
    assert sampled_rms(path, read_header(path)["weight"]) == pytest.approx(rms(tensor), rel=0.01)


def test_rms_sample_reaches_from_the_first_number_to_the_last(tmp_path: Path) -> None:
    ends = torch.zeros(100_000)
    ends[0] = ends[-1] = 1000.0
    path = written(tmp_path, ends=ends)
    header = read_header(path)["ends"]
    assert sampled_rms(path, header, largest=64) == pytest.approx(1000 * math.sqrt(2 / 64))
    assert sampled_rms(path, header, largest=100_000) == pytest.approx(rms(ends))


def test_rms_of_what_is_no_weight_is_not_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, ids=torch.arange(4), empty=torch.empty(0))
    headers = read_header(path)
    assert math.isnan(sampled_rms(path, headers["ids"]))
    assert math.isnan(sampled_rms(path, headers["empty"]))


def test_file_without_tensors_is_a_file_without_tensors(tmp_path: Path) -> None:
    assert read_header(forged(tmp_path, {"__metadata__": {"a": "b"}}, b"")) == {}


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, a=normal(2, 2), b=normal(3))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(HeaderError):
            read_header(path)
    path.write_bytes(whole)
    assert set(read_header(path)) == {"a", "b"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"PK\x03\x04" + b"\0" * 4096,  # a zip, as torch.save writes
        b"<!DOCTYPE html><html>not found</html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        b"\xff" * 64,
    ],
    ids=["empty", "zeros", "pickle", "html", "lfs pointer", "ones"],
)
def test_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(HeaderError):
        read_header(path)


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}}


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"\xff\xfe\xfa",
        b"[" * 50_000,
        [],
        [1, 2],
        3,
        {"a": 3},
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [2, 2]}},
        entry(data_offsets=[0]),
        entry(data_offsets=[16, 0]),
        entry(data_offsets=[-16, 0]),
        entry(data_offsets=[0, 16.0]),
        entry(data_offsets="ab"),
        entry(data_offsets=[0, 12]),
        entry(data_offsets=[0, 17]),
        entry(shape=None),
        entry(shape=[2, "2"]),
        entry(shape=[-2, -2]),
        entry(shape=[2**40, 2**40]),
        entry(shape=[True, 4]),
        entry(dtype="F16"),
    ],
)
def test_header_that_makes_no_sense_is_refused(header: object, tmp_path: Path) -> None:
    assert set(read_header(forged(tmp_path, entry()))) == {"a"}
    with pytest.raises(HeaderError):
        read_header(forged(tmp_path, header))


def test_file_with_bytes_that_no_tensor_claims_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeaderError):
        read_header(forged(tmp_path, entry(), b"\0" * 17))


@pytest.mark.parametrize("call", [read_header, lambda path: read_header(path / "x")])
def test_file_that_cannot_be_opened_is_the_system_error(
    call: Callable[[Path], dict[str, TensorHeader]], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"directory|No such file"):
        call(tmp_path)
