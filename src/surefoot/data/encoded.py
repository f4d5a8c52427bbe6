"""Pictures as latents, encoded once and served by index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol, final

import torch
from torch import Tensor

from surefoot.data.cache import LatentCache
from surefoot.data.pictures import read_picture
from surefoot.data.scan import Example

_KEPT_BYTES = 2**30  # latents held in memory; beyond that each is read from the disk again


class Encoder(Protocol):
    """Pixels `(B, 3, H, W)` in [-1, 1] to mean and standard deviation of the latents."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes a batch."""
        ...


@final
class EncodedPictures:
    """The latents of a list of examples at one resolution, mirrored ones too where asked."""

    def __init__(
        self,
        examples: Sequence[Example],
        resolution: int,
        encode: Encoder,
        cache: LatentCache | None,
    ) -> None:
        """With a cache each picture is encoded once in its life, without one once a run."""
        self.examples = tuple(examples)
        self._resolution = resolution
        self._encode = encode
        self._cache = cache
        self._kept: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}
        self._kept_bytes = 0

    def prepare(self, mirrored: bool, on_done: Callable[[], None]) -> None:
        """Encodes everything now, calling `on_done` after each picture."""
        for index in range(len(self.examples)):
            for flipped in (False, True) if mirrored else (False,):
                self.moments(index, flipped)
            on_done()

    def draw(
        self,
        indices: Sequence[int],
        flips: Sequence[bool],
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """One sample of the latents `(B, C, h, w)` for each index, by a generator of its own."""
        samples: list[Tensor] = []
        for index, flip, generator in zip(indices, flips, generators, strict=True):
            mean, std = self.moments(index, flip)
            samples.append(mean + std * torch.randn(mean.shape, generator=generator))
        return torch.stack(samples)

    def means(self, indices: Sequence[int]) -> Tensor:
        """The latents' means `(B, C, h, w)`, which are the same whenever they are asked for."""
        return torch.stack([self.moments(index, False)[0] for index in indices])

    def moments(self, index: int, flipped: bool) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(C, h, w)` of one picture's latents."""
        kept = self._kept.get((index, flipped))
        if kept is not None:
            return kept
        moments = self._load_or_encode(index, flipped)
        size = sum(tensor.numel() * tensor.element_size() for tensor in moments)
        if self._kept_bytes + size <= _KEPT_BYTES:
            self._kept[index, flipped] = moments
            self._kept_bytes += size
        return moments

    def _load_or_encode(self, index: int, flipped: bool) -> tuple[Tensor, Tensor]:
        if self._cache is None:
            return self._encode_one(index, flipped)
        with self.examples[index].path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = self._cache.key(digest, self._resolution, self._resolution, flipped)
        found = self._cache.load(key)
        if found is None:
            mean, std = self._encode_one(index, flipped)
            self._cache.store(key, {"mean": mean, "std": std})
            return mean, std
        return found["mean"], found["std"]

    def _encode_one(self, index: int, flipped: bool) -> tuple[Tensor, Tensor]:
        path = self.examples[index].path
        pixels = torch.from_numpy(read_picture(path, self._resolution, self._resolution))
        pixels = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1
        if flipped:
            pixels = pixels.flip(-1)
        mean, std = self._encode(pixels)
        return mean[0].float().cpu(), std[0].float().cpu()
