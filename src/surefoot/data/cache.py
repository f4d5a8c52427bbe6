"""Keep encoded pictures on disk, one safetensors file each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, final

import torch

from surefoot.formats.weights import WeightsError, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from surefoot.data.buckets import Size
    from surefoot.data.variations import Variation

# Part of every key: raise it when the way a picture is read, scaled or encoded changes.
CACHE_FORMAT = 2


@final
@dataclass(frozen=True)
class LatentCache:
    """Latents by the content they were made from, so that a changed picture is a new item.

    Two processes may write the same item: each writes a file of its own and renames it into
    place, and both hold the same numbers.

    Attributes:
        folder: where the items lie; made when the first one is stored.
        model_key: hash of the VAE's weights and of its scaling facts.
        on_damaged: called with the path of an item that cannot be trusted; `load` then answers
            as if it were not there, and the next `store` replaces it.
    """

    folder: Path
    model_key: str
    on_damaged: Callable[[Path], None]

    def key(self, image_bytes_sha256: str, size: Size, flipped: bool, variation: Variation) -> str:
        """Name an item by all that decides its numbers.

        These are the picture, its size, mirroring, crop and colours, the model, the code.
        """
        picture = [image_bytes_sha256, size.width, size.height, flipped, *astuple(variation)]
        facts = [CACHE_FORMAT, self.model_key, *picture]
        return hashlib.sha256(json.dumps(facts).encode("ascii")).hexdigest()

    def path(self, key: str) -> Path:
        """Where an item lies; 256 folders, so that none grows too long to list."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def load(self, key: str) -> dict[str, torch.Tensor] | None:
        """Read an item; `None` if there is none, or if it is damaged (see `on_damaged`).

        Raises:
            OSError: the item is there and the system refuses to read it.
        """
        path = self.path(key)
        if not path.exists():
            return None
        try:
            tensors, metadata = read_safetensors(path)
        except WeightsError:
            self.on_damaged(path)
            return None
        # The checksum finds flipped bits, which safetensors does not; the key, a renamed file.
        if metadata.get("key") != key or metadata.get("checksum") != _checksum(tensors):
            self.on_damaged(path)
            return None
        return tensors

    def store(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write an item atomically, over an older or damaged one.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_safetensors(path, kept, {"key": key, "checksum": _checksum(kept)})


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash names, dtypes, shapes and bytes; the order of the names does not matter."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode("ascii"))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
