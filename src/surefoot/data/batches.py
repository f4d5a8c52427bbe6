"""Which examples a micro-batch holds, and the random numbers of a step, as pure functions."""

from __future__ import annotations

import bisect
import hashlib
import json
import operator
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from surefoot.data.views import Source

_KEPT_EPOCHS = 4  # a batch that crosses the border of an epoch needs both sides of it


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


@final
class Batches:
    """An endless stream of shuffled epochs, cut into micro-batches of one bucket each.

    A batch is found by its number alone, so a resumed run asks for its next step and replays
    nothing, and any number of processes can share a step. All batches are whole: where the items
    of a bucket are no multiple of the batch size, its last batch of an epoch takes the first items
    of that bucket's next epoch, which then begins behind them. So every item is seen exactly as
    often as asked, each counts as much as any other, and nothing is left over. A batch that is
    smaller instead would give its items a larger share of the step.
    """

    def __init__(self, sources: Sequence[Source], batch_size: int, seed: int) -> None:
        """Items are numbered through all sources.

        Args:
            sources: Those without items or samples are allowed beside others.
            batch_size: Items in a micro-batch.
            seed: The run's seed.

        Raises:
            ValueError: There is no item in an epoch, `batch_size` is below 1, or a source takes
                none of its items, which would drop it.
        """
        for source in sources:
            if source.buckets and source.per_epoch < 1:
                raise ValueError("every source must take at least one item in an epoch")
        used = [source for source in sources if source.buckets]
        self.epoch = sum(source.per_epoch for source in used)
        if self.epoch < 1 or batch_size < 1:
            raise ValueError(
                f"an epoch and batch_size must be at least 1, not {self.epoch} and {batch_size}"
            )
        self._batch_size = batch_size
        self._seed = seed
        self._bucket_of = np.array([bucket for item in used for bucket in item.buckets], np.int64)
        self._buckets = int(self._bucket_of.max()) + 1
        first = 0
        self._decks: list[_Deck] = []
        for number, source in enumerate(used):
            end = first + len(source.buckets)
            self._decks.append(_Deck(seed, number, first, self._bucket_of[first:end], source))
            first = end
        self._kept: dict[int, list[np.ndarray]] = {}

    def at(self, step: int, part: int, parts: int) -> np.ndarray:
        """Give the items of one micro-batch.

        Args:
            step: optimizer step, from 0.
            part: which of the step's micro-batches (over ranks and accumulation), from 0.
            parts: micro-batches in a step, the same in every step.

        Returns:
            Items (batch_size,), all of one bucket, int64; a new array.

        Raises:
            ValueError: `step` is negative or `part` is not within 0..parts-1.
        """
        if step < 0 or not 0 <= part < parts:
            raise ValueError(f"there is no part {part} of {parts} in step {step}")
        number = step * parts + part
        epoch = self._epoch_of(number)
        bucket, batch = self._bucket_and_batch(epoch, number - self.number_of(epoch))
        skipped = batch * self._batch_size - int(self._items_before(epoch)[bucket])
        pieces: list[np.ndarray] = []
        missing = self._batch_size
        while missing:
            piece = self._arranged(epoch)[bucket][skipped : skipped + missing]
            pieces.append(piece)
            missing -= len(piece)
            skipped, epoch = 0, epoch + 1
        return np.concatenate(pieces)

    def number_of(self, epochs: int) -> int:
        """How many micro-batches begin in so many epochs."""
        return int(self._batches_of_buckets(epochs).sum())

    def _items_before(self, epoch: int) -> np.ndarray:
        """Items of each bucket in all earlier epochs, (buckets,)."""
        counts = np.zeros(self._buckets, np.int64)
        for deck in self._decks:
            counts += deck.drawn_before(epoch, self._buckets)
        return counts

    def _batches_of_buckets(self, epoch: int) -> np.ndarray:
        """Batches of each bucket that begin in earlier epochs, (buckets,)."""
        return -(-self._items_before(epoch) // self._batch_size)

    def _epoch_of(self, number: int) -> int:
        """The epoch in which a batch begins, by bisection: rounding adds a batch per bucket."""
        first = max(0, (number - self._buckets) * self._batch_size // self.epoch)
        last = number * self._batch_size // self.epoch + 1
        epochs = range(first, last + 1)
        return first + bisect.bisect_right(epochs, number, key=self.number_of) - 1

    def _bucket_and_batch(self, epoch: int, place: int) -> tuple[int, int]:
        """Which bucket the batch at a place of an epoch is of, and its number within the bucket."""
        before = self._batches_of_buckets(epoch)
        counts = self._batches_of_buckets(epoch + 1) - before
        turns = np.repeat(np.arange(self._buckets), counts)
        turns = turns[_shuffled(len(turns), self._seed, "buckets", epoch)]
        bucket = int(turns[place])
        return bucket, int(before[bucket] + np.count_nonzero(turns[:place] == bucket))

    def _arranged(self, epoch: int) -> list[np.ndarray]:
        """The items of an epoch in their order, by bucket."""
        found = self._kept.get(epoch)
        if found is None:
            items = np.concatenate([deck.drawn_in(epoch) for deck in self._decks])
            items = items[_shuffled(len(items), self._seed, "order", epoch)]
            buckets = self._bucket_of[items]
            found = [items[buckets == bucket] for bucket in range(self._buckets)]
            self._kept[epoch] = found
            for old in list(self._kept)[:-_KEPT_EPOCHS]:
                self._kept.pop(old, None)
        return found


@final
class _Deck:
    """A source as one endless row of draws, of which each epoch takes the next `per_epoch`.

    In every pass over the source each item is drawn once. Which bucket a place of a pass belongs
    to is the same in all passes, so that the draws of a bucket can be counted without going
    through them.
    """

    def __init__(
        self, seed: int, number: int, first: int, buckets: np.ndarray, source: Source
    ) -> None:
        """`first` is the number of its first item among all."""
        self._seed, self._number, self._first = seed, number, first
        self._buckets, self._per_epoch = buckets, source.per_epoch
        self._pattern = buckets[_shuffled(len(buckets), seed, "pattern", number)]

    def drawn_before(self, epoch: int, buckets: int) -> np.ndarray:
        passes, places = divmod(epoch * self._per_epoch, len(self._buckets))
        whole = np.bincount(self._buckets, minlength=buckets)
        return passes * whole + np.bincount(self._pattern[:places], minlength=buckets)

    def drawn_in(self, epoch: int) -> np.ndarray:
        count = len(self._buckets)
        times, rest = divmod(self._per_epoch, count)
        if rest == 0:
            return self._first + np.tile(np.arange(count, dtype=np.int64), times)
        start = epoch * self._per_epoch
        end = start + self._per_epoch
        passes = range(start // count, -(-end // count))
        row = np.concatenate([self._pass(number) for number in passes])
        return self._first + row[start - passes[0] * count : end - passes[0] * count]

    def _pass(self, number: int) -> np.ndarray:
        """All items once, in an order of buckets that is the same in each pass."""
        order = _shuffled(len(self._buckets), self._seed, "pass", self._number, number)
        by_bucket = order[np.argsort(self._buckets[order], kind="stable")]
        row = np.empty_like(order)
        row[np.argsort(self._pattern, kind="stable")] = by_bucket
        return row


def _shuffled(count: int, seed: int, *stream: int | str) -> np.ndarray:
    """A permutation (count,), int64."""
    # Sorting raw 64-bit draws rather than Generator.permutation: numpy promises to keep the raw
    # stream over its versions, but not what its methods make of it (NEP 19).
    raw = _bit_generator(seed, *stream).random_raw(count)
    return np.argsort(raw, kind="stable").astype(np.int64, copy=False)
