"""Which examples a micro-batch holds, and the random numbers of a step, as pure functions."""

from __future__ import annotations

import hashlib
import json
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEPT_PERMUTATIONS = 2  # a batch that crosses an epoch border needs both sides of it


def stream_seed(seed: int, *stream: int | str) -> int:
    """Hash a seed and the name of a stream to 256 bits; every random draw of a run starts here.

    The same arguments give the same number on every machine and in every version; 1 and "1" are
    different names, and so are ("ab",) and ("a", "b").
    """
    parts = [part if isinstance(part, str) else operator.index(part) for part in (seed, *stream)]
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode("ascii")).digest(), "big")


def step_generator(seed: int, *stream: int | str) -> np.random.Generator:
    """Give the numpy generator of a stream, at its beginning: a pure function of its arguments.

    Example:
        >>> first = step_generator(7, "dropout", 12).random()
        >>> first == step_generator(7, "dropout", 12).random()
        True
    """
    return np.random.Generator(_bit_generator(seed, *stream))


def _bit_generator(seed: int, *stream: int | str) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence(stream_seed(seed, *stream)))


def repeat_indices(counts_and_repeats: Sequence[tuple[int, int]]) -> np.ndarray:
    """Map stream positions to example indices for data sets that follow one another.

    Args:
        counts_and_repeats: for each data set, its number of examples and how often each of them
            is seen in an epoch.

    Returns:
        Example indices (sum of count * repeats,), int64.

    Raises:
        ValueError: a count is negative, or a repeat is below 1 (which would drop the data set).

    Example:
        >>> repeat_indices([(2, 3), (1, 1)]).tolist()
        [0, 1, 0, 1, 0, 1, 2]
    """
    pieces = [np.zeros(0, dtype=np.int64)]
    first = 0
    for count, repeats in counts_and_repeats:
        if count < 0 or repeats < 1:
            raise ValueError(f"count >= 0 and repeats >= 1 are needed, not {count} and {repeats}")
        pieces.append(np.tile(np.arange(first, first + count, dtype=np.int64), repeats))
        first += count
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Batches:
    """An endless stream of shuffled epochs, cut into micro-batches that are found by number.

    Nothing is kept between calls but a cache, so a resumed run asks for its next step and replays
    nothing. Every example is seen once in each epoch: an epoch whose length is no multiple of the
    batch size ends inside a batch, and the next one begins there.

    Attributes:
        count: positions in an epoch (examples, after repeats).
        batch_size: positions in a micro-batch.
        seed: the run's seed.
    """

    count: int
    batch_size: int
    seed: int
    _permutations: dict[int, np.ndarray] = field(
        default_factory=dict[int, np.ndarray], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Refuse an empty stream.

        Raises:
            ValueError: `count` or `batch_size` is below 1.
        """
        if self.count < 1 or self.batch_size < 1:
            raise ValueError(
                f"count and batch_size must be at least 1, not {self.count} and {self.batch_size}"
            )

    def at(self, step: int, part: int, parts: int) -> np.ndarray:
        """Give the positions of one micro-batch.

        Args:
            step: optimizer step, from 0.
            part: which of the step's micro-batches (over ranks and accumulation), from 0.
            parts: micro-batches in a step, the same in every step.

        Returns:
            Positions (batch_size,) within 0..count-1, int64; a new array.

        Raises:
            ValueError: `step` is negative or `part` is not within 0..parts-1.
        """
        if step < 0 or not 0 <= part < parts:
            raise ValueError(f"there is no part {part} of {parts} in step {step}")
        position = (step * parts + part) * self.batch_size
        end = position + self.batch_size
        pieces: list[np.ndarray] = []
        while position < end:
            epoch, start = divmod(position, self.count)
            piece = self._permutation(epoch)[start : start + end - position]
            pieces.append(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def _permutation(self, epoch: int) -> np.ndarray:
        found = self._permutations.get(epoch)
        if found is None:
            # Sorting raw 64-bit draws rather than Generator.permutation: numpy promises to keep
            # the raw stream over its versions, but not what its methods make of it (NEP 19).
            raw = _bit_generator(self.seed, "order", epoch).random_raw(self.count)
            found = np.argsort(raw, kind="stable").astype(np.int64, copy=False)
            self._permutations[epoch] = found
            for old in list(self._permutations)[:-_KEPT_PERMUTATIONS]:
                self._permutations.pop(old, None)
        return found
