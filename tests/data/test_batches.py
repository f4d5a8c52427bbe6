"""Batches by number: pure, complete in every epoch, and the same everywhere."""

from __future__ import annotations

import hashlib
import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.data.batches import Batches, step_generator, stream_seed
from surefoot.data.views import Source

counts = st.integers(1, 40)
sizes = st.integers(1, 60)
seeds = st.integers(-(2**70), 2**70)
names = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3)

# Written down once: a run that is resumed elsewhere or years later must find the same order.
ORDER_OF_SEED_7 = [0, 6, 7, 5, 9, 3, 8, 1, 2, 4]
ORDER_OF_SEED_7_EPOCH_1E9 = [5, 2, 7, 3, 8, 9, 0, 6, 4, 1]


def plain(count: int, size: int, seed: int) -> Batches:
    """One folder, one bucket."""
    return Batches([Source((0,) * count, count)], size, seed)


def stream(batches: Batches, length: int, parts: int = 1) -> np.ndarray:
    needed = -(-length // len(batches.at(0, 0, 1)))
    pieces = [batches.at(*divmod(number, parts), parts) for number in range(needed)]
    return np.concatenate(pieces)[:length]


@settings(max_examples=100, deadline=None)
@given(counts, sizes, seeds, st.integers(1, 4), st.data())
def test_a_step_always_gives_the_same_batch_whatever_was_asked_before(
    count: int, size: int, seed: int, parts: int, data: st.DataObject
) -> None:
    used = plain(count, size, seed)
    for step in data.draw(st.lists(st.integers(0, 200), max_size=5)):
        used.at(step, 0, parts)
    step, part = data.draw(st.integers(0, 200)), data.draw(st.integers(0, parts - 1))
    fresh = plain(count, size, seed).at(step, part, parts)
    assert fresh.shape == (size,)
    np.testing.assert_array_equal(used.at(step, part, parts), fresh)


@settings(max_examples=100, deadline=None)
@given(counts, sizes, seeds, st.integers(1, 4), st.integers(1, 4))
def test_every_epoch_holds_every_example_once(
    count: int, size: int, seed: int, parts: int, epochs: int
) -> None:
    seen = stream(plain(count, size, seed), count * epochs, parts)
    for epoch in seen.reshape(epochs, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))


@settings(max_examples=50, deadline=None)
@given(counts, seeds, st.integers(1, 12), st.integers(1, 12))
def test_batch_size_and_parts_cut_one_and_the_same_stream(
    count: int, seed: int, size: int, other: int
) -> None:
    length = 3 * count
    np.testing.assert_array_equal(
        stream(plain(count, size, seed), length),
        stream(plain(count, other, seed), length, parts=3),
    )


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, second = plain(500, 500, 1), plain(500, 500, 2)
    orders = [first.at(0, 0, 1), first.at(1, 0, 1), second.at(0, 0, 1), np.arange(500)]
    for number, order in enumerate(orders):
        for other in orders[:number]:
            assert np.mean(order == other) < 0.05  # by chance 1 in 500


def test_each_order_is_equally_likely() -> None:
    orders = {(0, 1, 2): 0, (0, 2, 1): 0, (1, 0, 2): 0, (1, 2, 0): 0, (2, 0, 1): 0, (2, 1, 0): 0}
    for seed in range(1200):
        orders[tuple(plain(3, 3, seed).at(0, 0, 1).tolist())] += 1
    assert min(orders.values()) > 150  # expected 200, standard deviation 13
    assert max(orders.values()) < 250


def test_order_is_the_same_on_every_machine_and_numpy() -> None:
    assert plain(10, 10, 7).at(0, 0, 1).tolist() == ORDER_OF_SEED_7
    assert plain(10, 10, 7).at(10**9, 0, 1).tolist() == ORDER_OF_SEED_7_EPOCH_1E9


def test_a_batch_larger_than_the_data_takes_whole_epochs() -> None:
    batch = plain(3, 8, 0).at(0, 0, 1)
    assert np.bincount(batch[:6]).tolist() == [2, 2, 2]
    assert len(set(batch[6:].tolist())) == 2


def test_a_batch_is_the_callers_own_copy() -> None:
    batches = plain(6, 3, 0)
    before = batches.at(0, 0, 1).copy()
    batches.at(0, 0, 1)[:] = -1
    np.testing.assert_array_equal(batches.at(0, 0, 1), before)


def test_threads_get_what_one_thread_gets() -> None:
    shared = plain(50, 7, 3)

    def at(step: int) -> np.ndarray:
        return shared.at(step, 0, 1)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(at, range(300)))
    for step, batch in enumerate(found):
        np.testing.assert_array_equal(batch, plain(50, 7, 3).at(step, 0, 1))


@pytest.mark.parametrize(("step", "part", "parts"), [(-1, 0, 1), (0, 1, 1), (0, -1, 1), (0, 0, 0)])
def test_a_batch_that_does_not_exist_is_refused(step: int, part: int, parts: int) -> None:
    with pytest.raises(ValueError, match="there is no part"):
        plain(4, 2, 0).at(step, part, parts)


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 0)])
def test_an_empty_stream_is_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plain(count, size, 0)


def test_a_folder_of_which_nothing_would_be_taken_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        Batches([Source((0, 0), 2), Source((0,), 0)], 1, 0)


@st.composite
def sources(draw: st.DrawFn) -> list[Source]:
    """Folders in some buckets, some with repeats, some with a number of samples."""
    made: list[Source] = []
    for _ in range(draw(st.integers(1, 3))):
        buckets = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=9)))
        repeats = len(buckets) * draw(st.integers(1, 3))
        made.append(Source(buckets, draw(st.one_of(st.just(repeats), st.integers(1, 20)))))
    return made


def buckets_of(made: list[Source]) -> np.ndarray:
    return np.array([bucket for source in made for bucket in source.buckets])


@settings(max_examples=100, deadline=None)
@given(sources(), st.integers(1, 9), seeds, st.integers(1, 4))
def test_a_batch_is_whole_and_of_one_bucket(
    made: list[Source], size: int, seed: int, parts: int
) -> None:
    batches, buckets = Batches(made, size, seed), buckets_of(made)
    for number in range(40):
        items = batches.at(*divmod(number, parts), parts)
        assert items.shape == (size,)
        assert len(set(buckets[items].tolist())) == 1


@settings(max_examples=100, deadline=None)
@given(sources(), st.integers(1, 9), seeds, st.integers(1, 4), st.integers(1, 4))
def test_no_item_of_any_bucket_is_dropped_or_shown_more_than_once_too_often(
    made: list[Source], size: int, seed: int, parts: int, epochs: int
) -> None:
    batches, buckets = Batches(made, size, seed), buckets_of(made)
    # Long enough for whole passes over every source, whatever its samples are.
    length = epochs * math.lcm(*(len(source.buckets) for source in made))
    expected = np.concatenate(
        [
            np.full(len(source.buckets), length * source.per_epoch // len(source.buckets))
            for source in made
        ]
    )
    numbers = range(batches.number_of(length))
    shown = np.concatenate([batches.at(*divmod(number, parts), parts) for number in numbers])
    counts = np.bincount(shown, minlength=len(buckets))
    assert (counts >= expected).all()
    # What is more than asked was borrowed from the next epochs, less than a batch in each bucket.
    for bucket in set(buckets.tolist()):
        assert (counts - expected)[buckets == bucket].sum() < size


@settings(max_examples=50, deadline=None)
@given(sources(), seeds, st.integers(1, 5))
def test_samples_take_all_of_a_folder_in_turn(made: list[Source], seed: int, epochs: int) -> None:
    batches = Batches(made, 1, seed)
    shown = stream(batches, batches.epoch * epochs)
    first = 0
    for source in made:
        counts = np.bincount(shown, minlength=first + len(source.buckets))
        of_source = counts[first : first + len(source.buckets)]
        assert of_source.sum() == source.per_epoch * epochs
        assert of_source.max() - of_source.min() <= 1
        first += len(source.buckets)


@settings(max_examples=50, deadline=None)
@given(sources(), st.integers(1, 9), seeds)
def test_processes_together_take_what_one_process_takes(
    made: list[Source], size: int, seed: int
) -> None:
    alone = [Batches(made, size, seed).at(number, 0, 1) for number in range(24)]
    ranks = [Batches(made, size, seed) for _ in range(4)]
    for number, expected in enumerate(alone):
        step, rank = divmod(number, 4)
        np.testing.assert_array_equal(ranks[rank].at(step, rank, 4), expected)


@settings(max_examples=50, deadline=None)
@given(sources(), st.integers(1, 9), seeds, st.integers(0, 10**7))
def test_a_batch_far_into_the_run_needs_none_before_it(
    made: list[Source], size: int, seed: int, number: int
) -> None:
    batches = Batches(made, size, seed)
    for earlier in (3, number // 2):
        batches.at(earlier, 0, 1)
    fresh = Batches(made, size, seed)
    np.testing.assert_array_equal(batches.at(number, 0, 1), fresh.at(number, 0, 1))


def test_buckets_take_turns_within_an_epoch() -> None:
    made = [Source((0,) * 40 + (1,) * 40, 80)]
    batches, buckets = Batches(made, 4, 5), buckets_of(made)
    turns = [int(buckets[batches.at(number, 0, 1)[0]]) for number in range(20)]
    assert sorted(turns) == [0] * 10 + [1] * 10
    changes = sum(one != other for one, other in itertools.pairwise(turns))
    assert 4 <= changes <= 16  # 10 are expected, with a deviation of 2


@given(seeds, names, names)
def test_streams_of_different_names_differ(
    seed: int, name: list[int | str], other: list[int | str]
) -> None:
    assert (stream_seed(seed, *name) == stream_seed(seed, *other)) == (name == other)


@given(seeds, names)
def test_a_generator_is_a_function_of_its_name(seed: int, name: list[int | str]) -> None:
    first, again = step_generator(seed, *name), step_generator(seed, *name)
    assert first.random(5).tolist() == again.random(5).tolist()
    assert first.random(5).tolist() != step_generator(seed, *name).random(5).tolist()


def test_numpy_integers_name_the_stream_that_python_integers_name() -> None:
    assert stream_seed(3, np.int64(4)) == stream_seed(np.uint8(3), 4)  # pyright: ignore
    with pytest.raises(TypeError):
        stream_seed(3, 1.5)  # pyright: ignore[reportArgumentType]


def test_a_seed_is_the_sha256_of_its_written_name() -> None:
    written = hashlib.sha256(b'[1, "noise", 2]').hexdigest()
    assert stream_seed(1, "noise", 2) == int(written, 16)
