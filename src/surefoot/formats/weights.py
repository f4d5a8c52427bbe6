"""Tensors in safetensors files, written so that no crash can leave half a file behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from surefoot.formats.headers import HeaderError
from surefoot.formats.streamed import Slot, TensorFile, write_streamed


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
    slots = {name: Slot(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    return write_streamed(path, slots, tensors.items(), metadata)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file, onto the CPU, and the metadata of its header.

    Raises:
        WeightsError: There is no such file, it is cut off, or it is of another format.
    """
    if not path.is_file():
        raise WeightsError(f"{path} is not there; give the path of a .safetensors file.")
    try:
        file = TensorFile(path)
    except HeaderError as error:
        raise WeightsError(
            f"{path} is no whole safetensors file ({error}): it was cut off or is of another "
            "format; copy or download it again, or convert it to safetensors."
        ) from error
    return {name: file.read(name) for name in file.headers}, file.metadata
