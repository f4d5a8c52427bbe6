"""Large files are written tensor by tensor, and are those of the format's own writer."""

from __future__ import annotations

import errno
import gc
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from surefoot.formats.headers import HeaderError
from surefoot.formats.streamed import Slot, TensorFile, dtype_of, write_streamed

EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.bool)
OTHERS = (
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.uint64, torch.uint32, torch.uint16),
)


def slots_of(tensors: dict[str, Tensor]) -> dict[str, Slot]:
    return {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def many_tensors() -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for number, dtype in enumerate((*EIGHT_BITS, *OTHERS)):
        tensors[f"b{number % 3}.{dtype}"] = torch.arange(6.0).reshape(2, 3).to(dtype)
        tensors[f"a.{dtype}"] = torch.ones(1).to(dtype)
    return tensors | {
        'é"\\\n猫': torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "exponents": torch.tensor([127, 128], dtype=torch.uint8).view(torch.float8_e8m0fnu),
    }


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {}])
def test_bytes_are_those_of_safetensors_own_writer(
    metadata: dict[str, str], tmp_path: Path
) -> None:
    tensors = many_tensors()
    save_file(tensors, tmp_path / "own.safetensors", metadata=metadata or None)
    path = tmp_path / "streamed.safetensors"
    write_streamed(path, slots_of(tensors), reversed(tensors.items()), metadata)
    assert path.read_bytes() == (tmp_path / "own.safetensors").read_bytes()


def test_every_dtype_is_found_by_its_name_in_a_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for dtype in (*EIGHT_BITS, *OTHERS):
        write_streamed(path, {"x": Slot(dtype, ())}, [("x", torch.ones(()).to(dtype))], {})
        name = path.read_bytes().split(b'"dtype":"')[1].split(b'"')[0].decode()
        assert dtype_of(name) == dtype
        assert load_file(path)["x"].dtype == dtype


def test_one_tensor_is_held_at_a_time(tmp_path: Path) -> None:
    count, alive, most = 20, 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def layers() -> Iterator[tuple[str, Tensor]]:
        nonlocal alive, most
        for number in range(count):
            tensor = torch.full((64, 64), float(number))
            weakref.finalize(tensor, gone)
            alive += 1
            most = max(most, alive)
            yield f"{number:02d}", tensor

    slots = {f"{number:02d}": Slot(torch.float32, (64, 64)) for number in range(count)}
    write_streamed(tmp_path / "x.safetensors", slots, layers(), {})
    gc.collect()
    # The one that is being written, and the one that the loop has not let go of yet.
    assert most <= 2
    assert alive == 0
    assert load_file(tmp_path / "x.safetensors")["19"][5, 7] == 19


def test_file_is_read_tensor_by_tensor(tmp_path: Path) -> None:
    tensors = many_tensors()
    path = tmp_path / "x.safetensors"
    write_streamed(path, slots_of(tensors), tensors.items(), {"b": "2", "a": "1"})
    file = TensorFile(path)
    assert file.metadata == {"a": "1", "b": "2"}
    assert file.headers.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert file.slot(name) == Slot(tensor.dtype, tuple(tensor.shape))
        assert torch.equal(
            file.read(name).reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
        )


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([("a", torch.ones(2))], "no tensor came for b"),
        ([("a", torch.ones(2)), ("a", torch.ones(2))], "a has no slot, or comes twice"),
        ([("a", torch.ones(2)), ("c", torch.ones(2))], "c has no slot"),
        ([("a", torch.ones(3))], "a is torch.float32"),
        ([("a", torch.ones(2).half())], "a is torch.float16"),
    ],
)
def test_tensors_other_than_promised_leave_no_file(
    tensors: list[tuple[str, Tensor]], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    slots = {name: Slot(torch.float32, (2,)) for name in ("a", "b")}
    with pytest.raises(ValueError, match=said):
        write_streamed(path, slots, tensors, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_with_too_little_room_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> Iterator[tuple[str, Tensor]]:
        pytest.fail("a tensor was asked for")
        yield "x", torch.ones(1)

    usage = shutil.disk_usage(tmp_path)._replace(free=4_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    slots = {"x": Slot(torch.float32, (1_000,))}
    with pytest.raises(OSError, match="No space left") as raised:
        write_streamed(tmp_path / "x.safetensors", slots, never(), {})
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_file_that_the_format_forbids_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = f'{{"a":{entry % (0, 4)},"b":{entry % (2, 6)}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(6))
    with pytest.raises(HeaderError):
        TensorFile(path)
