"""Pictures as latents, encoded once and served by index."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor

from surefoot.config.data import DataConfig
from surefoot.data.buckets import Framing, frame
from surefoot.data.cache import LatentCache
from surefoot.data.pictures import read_picture
from surefoot.data.variations import Variation, variation
from surefoot.data.views import View

_KEPT_BYTES = 2**30  # latents held in memory; beyond that each is read from the disk again
_READ_AHEAD = 4  # pictures decoded while another is encoded

_Read = tuple[Tensor, Tensor] | Tensor  # moments, or pixels that are yet to be encoded


class Encoder(Protocol):
    """Pixels `(B, 3, H, W)` in [-1, 1] to mean and standard deviation of the latents."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes a batch."""
        ...


@dataclass(frozen=True)
class Look:
    """Which view is shown, and which of its looks."""

    index: int
    flipped: bool = False
    variant: int = 0


@final
class EncodedPictures:
    """The latents of views: pictures at their sizes, in all their looks."""

    def __init__(
        self,
        views: Sequence[View],
        data: DataConfig,
        encode: Encoder,
        cache: LatentCache | None,
    ) -> None:
        """With a cache each look is encoded once in its life, without one once a run.

        Without one and with random crops or colours each is encoded when it is shown.
        """
        self.views = tuple(views)
        self._data = data
        self._encode = encode
        self._cache = cache
        self._digests: dict[Path, str] = {}
        self._kept: dict[Look, tuple[Tensor, Tensor]] = {}
        self._kept_bytes = 0

    def prepare(self, on_done: Callable[[], None]) -> None:
        """Encodes every look that comes again, calling `on_done` after each view."""
        flips = (False, True) if self._data.flip else (False,)
        variants = range(self._data.kept_variants)
        looks = [
            [Look(index, *kind) for kind in itertools.product(flips, variants)]
            for index in range(len(self.views))
        ]
        with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="pictures") as pool:
            read = _ahead(pool, self._read, itertools.chain(*looks))
            for of_view in looks:
                for look, found in zip(of_view, read, strict=False):
                    self._keep(look, self._encoded(look, found))
                on_done()

    def draw(self, looks: Sequence[Look], generators: Sequence[torch.Generator]) -> Tensor:
        """One sample of the latents `(B, C, h, w)` for each look, by a generator of its own.

        All looks are of one size.
        """
        samples: list[Tensor] = []
        for look, generator in zip(looks, generators, strict=True):
            mean, std = self.moments(look)
            samples.append(mean + std * torch.randn(mean.shape, generator=generator))
        return torch.stack(samples)

    def means(self, indices: Sequence[int]) -> Tensor:
        """The latents' means `(B, C, h, w)`, which are the same whenever they are asked for."""
        return torch.stack([self.moments(Look(index))[0] for index in indices])

    def moments(self, look: Look) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(C, h, w)` of one look's latents."""
        kept = self._kept.get(look)
        if kept is not None:
            return kept
        moments = self._encoded(look, self._read(look))
        if self._data.kept_variants:
            self._keep(look, moments)
        return moments

    def framing(self, look: Look) -> Framing:
        """How the picture was scaled, cropped and mirrored for a look."""
        view, chosen = self.views[look.index], self._variation(look)
        example = view.example
        framing = frame(example.width, example.height, view.size, chosen.across, chosen.down)
        return framing.mirrored() if look.flipped else framing

    def _keep(self, look: Look, moments: tuple[Tensor, Tensor]) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in moments)
        if self._kept_bytes + size <= _KEPT_BYTES and look not in self._kept:
            self._kept[look] = moments
            self._kept_bytes += size

    def _read(self, look: Look) -> _Read:
        """The moments of a look from the cache, or else its pixels `(1, 3, H, W)` in [-1, 1]."""
        if self._cache is not None:
            found = self._cache.load(self._key(self._cache, look))
            if found is not None:
                return found["mean"], found["std"]
        view = self.views[look.index]
        size, chosen = view.size, self._variation(look)
        pixels = read_picture(view.example.path, size.width, size.height, chosen)
        pixels = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        return pixels.flip(-1) if look.flipped else pixels

    def _encoded(self, look: Look, found: _Read) -> tuple[Tensor, Tensor]:
        if isinstance(found, tuple):
            return found
        mean, std = (moment[0].float().cpu() for moment in self._encode(found))
        if self._cache is not None:
            self._cache.store(self._key(self._cache, look), {"mean": mean, "std": std})
        return mean, std

    def _key(self, cache: LatentCache, look: Look) -> str:
        view = self.views[look.index]
        content = self._digest(view.example.path)
        return cache.key(content, view.size, look.flipped, self._variation(look))

    def _variation(self, look: Look) -> Variation:
        content = ""
        if self._data.is_varied:
            content = self._digest(self.views[look.index].example.path)
        return variation(self._data, content, look.variant)

    def _digest(self, path: Path) -> str:
        """SHA-256 of a file, as it was when the run first read it."""
        found = self._digests.get(path)
        if found is None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            self._digests[path] = found
        return found


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Look], _Read], looks: Iterable[Look]
) -> Iterator[_Read]:
    """What `pool.map` gives, but with no more than a few results waiting in memory."""
    waiting: deque[Future[_Read]] = deque()
    for look in looks:
        waiting.append(pool.submit(work, look))
        if len(waiting) > _READ_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
