"""Tensors in safetensors files, written so that no crash can leave half a file behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import (
    load_file,  # pyright: ignore[reportUnknownVariableType]
    save_file,  # pyright: ignore[reportUnknownVariableType]
)
from torch import Tensor

from surefoot.formats.files import replacing


class WeightsError(ValueError):
    """A file or a set of tensors is not what it should be. The message says which and why."""


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> str:
    """Write tensors to a file, whole or not at all.

    The same content gives the same bytes. Tensors may share memory, be strided or lie on any
    device; the caller's are not changed.

    Args:
        path: Where to; its folder must exist, a file there is replaced.
        tensors: By name; each is stored in its own dtype.
        metadata: Stored in the header.

    Returns:
        SHA-256 of the file, as 64 hexadecimal digits.

    Raises:
        OSError: The disk is full, the folder is missing or not writable. A file that was at
            `path` is still there then.
    """
    with replacing(path) as temporary:
        try:
            save_file(_storable(tensors), temporary, metadata=dict(metadata))
        except SafetensorError as error:  # a full disk comes as text: "... (os error 28)"
            raise OSError(f"{path} could not be written: {error}") from error
        with temporary.open("r+b") as file:
            _sort_metadata(file)
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file, onto the CPU, and the metadata of its header.

    Raises:
        WeightsError: There is no such file, it is cut off, or it is of another format.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not there; give the path of a .safetensors file.")
    try:
        tensors = load_file(path, device="cpu")
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is no whole safetensors file ({error}): it was cut off or is of another "
            "format; copy or download it again, or convert it to safetensors."
        ) from error
    with path.open("rb") as file:
        header, _ = _read_header(file)
    return tensors, dict(header.get("__metadata__", {}))


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, each contiguous and alone in its memory, as the format wants them."""
    storable: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage()
        whole = storage.nbytes() == value.numel() * value.element_size()
        if not whole or storage.data_ptr() in storages:
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        storable[name] = value
    return storable


def _sort_metadata(file: BinaryIO) -> None:
    """Put the header's metadata into the order of its keys.

    safetensors writes it in the order of a hash table, another one each time, which would give
    equal weights unequal hashes.
    """
    header, length = _read_header(file)
    if "__metadata__" not in header:
        return
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= length, "the same content in another order"
    file.seek(8)
    file.write(text.ljust(length))


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The header of a file opened at its start, and the bytes that it takes after the first 8."""
    length = int.from_bytes(file.read(8), "little")
    return json.loads(file.read(length)), length
