"""safetensors files, read and written one tensor at a time: a large one need not fit in memory.

The layout is that of the format's own writer, byte for byte: the header names the tensors by
falling size of their numbers and then by name, and their bytes follow in that order.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from surefoot.formats.files import replacing
from surefoot.formats.headers import HeaderError, TensorHeader, read_header
from surefoot.language import N_

# The names of the format, in the order in which its writer sorts them (safetensors 0.8, enum
# Dtype in src/tensor.rs): the largest first, so that every tensor begins at a multiple of its size.
_NAMES: dict[torch.dtype, str] = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PLACES = {dtype: place for place, dtype in enumerate(_NAMES)}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ALIGNMENT = 8  # bytes; the header is filled up with spaces to a multiple


@dataclass(frozen=True)
class Slot:
    """Room for one tensor of a file that is about to be written."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@final
class TensorFile:
    """A safetensors file whose tensors are read when they are asked for.

    Attributes:
        path: Where it is.
        headers: Its tensors by name.
        metadata: What its header says besides.
    """

    def __init__(self, path: Path) -> None:
        """Opens it.

        Raises:
            HeaderError: It is cut short or something else.
            OSError: It cannot be opened.
        """
        self.path = path
        self.headers: dict[str, TensorHeader] = read_header(path)
        # The library has no types.
        try:
            self._file: Any = safe_open(path, "pt", "cpu")
        except SafetensorError as error:
            raise HeaderError(N_("its header is not readable")) from error
        self.metadata: dict[str, str] = self._file.metadata() or {}

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in its own dtype."""
        return self._file.get_tensor(name)

    def slot(self, name: str) -> Slot:
        """The room that one tensor takes."""
        header = self.headers[name]
        return Slot(dtype_of(header.dtype), header.shape)


def dtype_of(name: str) -> torch.dtype:
    """The dtype that a safetensors header calls by this name.

    Raises:
        KeyError: torch has no such dtype.
    """
    return _DTYPES[name]


def write_streamed(
    path: Path,
    slots: Mapping[str, Slot],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str],
) -> str:
    """Write a file whole or not at all, holding one tensor at a time.

    Args:
        path: Where to; its folder must exist, a file there is replaced.
        slots: What the file is to hold.
        tensors: Each slot's tensor, once, in any order, on any device; best a generator.
        metadata: Stored in the header, sorted by key.

    Returns:
        SHA-256 of the file, as 64 hexadecimal digits.

    Raises:
        ValueError: The tensors are not those that the slots promise.
        OSError: The disk has too little room, which is found out before anything is written; the
            folder is missing or not writable. A file that was at `path` is still there then.
    """
    header, offsets = _header(slots, metadata)
    size = len(header) + sum(slot.size for slot in slots.values())
    if size > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    with replacing(path) as temporary, temporary.open("r+b") as file:
        file.write(header)
        _write_tensors(file, slots, offsets, tensors)
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def kohya_hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[str, str]:
    """The hashes by which additions to AUTOMATIC1111's web UI know an adapter.

    Both are of a file that has these tensors and this metadata.

    Returns:
        SHA-256 of all that follows the header; the first eight digits of that of the 64 KiB at the
        first mebibyte, which are of nothing at all in a smaller file.
    """
    slots = {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    header, offsets = _header(slots, metadata)
    whole, piece = hashlib.sha256(), hashlib.sha256()
    first, last = 0x100000, 0x110000
    piece.update(header[first:last])
    for name in sorted(offsets, key=offsets.__getitem__):
        content = _content(tensors[name])
        whole.update(content)
        piece.update(content[max(0, first - offsets[name]) : max(0, last - offsets[name])])
    return whole.hexdigest(), piece.hexdigest()[:8]


def _content(tensor: Tensor) -> memoryview:
    # bfloat16 is unknown to numpy, its bytes are not.
    whole = tensor.detach().cpu().contiguous()
    # Not `reshape`: a dimension of one number may keep any stride, which no bytes are read by.
    flat = whole.as_strided((whole.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _header(slots: Mapping[str, Slot], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The bytes in front of the tensors, and where in the file each tensor begins."""
    entries: dict[str, object] = {}
    if metadata:
        entries["__metadata__"] = dict(sorted(metadata.items()))
    begins: dict[str, int] = {}
    end = 0
    for name in sorted(slots, key=lambda name: (_PLACES[slots[name].dtype], name)):
        slot = slots[name]
        begins[name], end = end, end + slot.size
        entries[name] = {
            "dtype": _NAMES[slot.dtype],
            "shape": slot.shape,
            "data_offsets": (begins[name], end),
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(math.ceil(len(text) / _ALIGNMENT) * _ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + begin for name, begin in begins.items()}


def _write_tensors(
    file: BinaryIO,
    slots: Mapping[str, Slot],
    offsets: Mapping[str, int],
    tensors: Iterable[tuple[str, Tensor]],
) -> None:
    missing = set(slots)
    for name, tensor in tensors:
        if name not in missing:
            raise ValueError(f"{name} has no slot, or comes twice")
        if Slot(tensor.dtype, tuple(tensor.shape)) != slots[name]:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, not {slots[name]}")
        missing.remove(name)
        file.seek(offsets[name])
        file.write(_content(tensor))
    if missing:
        raise ValueError(f"no tensor came for {', '.join(sorted(missing))}")
