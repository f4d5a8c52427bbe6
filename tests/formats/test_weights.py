"""Writing and reading safetensors files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from surefoot.formats import files
from surefoot.formats.weights import WeightsError, read_safetensors, write_safetensors

METADATA = {"title": 'Läufer "rot"\n', "step": "120", "a": "", "zh": "微调", "path": "C:\\x\t\x01"}


def test_what_is_written_is_read_back_in_every_dtype(tmp_path: Path) -> None:
    values = torch.tensor([[-2.0, 0.5], [0.0, 3.0]])
    tensors = {
        str(dtype): values.to(dtype)
        for dtype in (
            torch.float64,
            torch.float32,
            torch.bfloat16,
            torch.float16,
            torch.float8_e4m3fn,
            torch.int64,
            torch.bool,
        )
    } | {"scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3)}
    write_safetensors(tmp_path / "x.safetensors", tensors, METADATA)
    read, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == METADATA
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert torch.equal(read[name].double(), tensor.double())


def test_views_strides_shared_memory_and_gradients_survive(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": whole,
        "tied": whole,
        "transposed": whole.T,
        "row": whole[1],
        "column": whole[:, 1],
        "parameter": torch.nn.Parameter(whole),
        "empty": whole[:0],
        "empty too": whole[:0],
    }
    before = whole.clone()
    write_safetensors(tmp_path / "x.safetensors", tensors, {})
    read = load_file(tmp_path / "x.safetensors")
    assert {name: value.tolist() for name, value in read.items()} == {
        name: value.tolist() for name, value in tensors.items()
    }
    assert torch.equal(whole, before)
    assert (tmp_path / "x.safetensors").stat().st_size < 48 * 7 + 1024


def test_the_hash_is_that_of_the_file_and_depends_on_the_content_alone(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.bfloat16)}
    # Ten times: the library draws a new order of the metadata at each.
    paths = [tmp_path / f"{number}.safetensors" for number in range(10)]
    hashes = {write_safetensors(path, tensors, METADATA) for path in paths}
    assert hashes == {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert len(hashes) == 1
    reordered = dict(reversed(METADATA.items()))
    assert write_safetensors(tmp_path / "r.safetensors", tensors, reordered) in hashes
    other = write_safetensors(tmp_path / "o.safetensors", tensors, {**METADATA, "step": "121"})
    assert other not in hashes


def test_the_header_has_the_sorted_metadata_first_and_stays_aligned(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": torch.ones(2)}, METADATA)
    content = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert list(header["__metadata__"]) == sorted(METADATA)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.ones(2)}, {})
    old = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(path, {"a": torch.zeros(2000)}, {})
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    order: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"  # noqa: PTH112
        order.append(f"{kind}, renamed: {path.exists()}")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    write_safetensors(path, {"a": torch.ones(2)}, {})
    assert order == ["file, renamed: False", "folder, renamed: True"]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_safetensors(tmp_path / "none" / "x.safetensors", {"a": torch.ones(2)}, {})


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_file_cut_off_anywhere_is_told_so(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.ones(64)}, {"step": "1"})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"x\.safetensors is no whole safetensors file"):
        read_safetensors(path)


def test_foreign_and_missing_files_are_told_so_and_a_pickle_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(trap),)

    pickled = tmp_path / "x.ckpt"
    pickled.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError, match="another format"):
        read_safetensors(pickled)
    assert not trap.exists()
    with pytest.raises(WeightsError, match="is not there"):
        read_safetensors(tmp_path / "none.safetensors")
