"""Batches by number: pure, complete in every epoch, and the same everywhere."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.data.batches import Batches, repeat_indices, step_generator, stream_seed

counts = st.integers(1, 40)
sizes = st.integers(1, 60)
seeds = st.integers(-(2**70), 2**70)
names = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3)

# Written down once: a run that is resumed elsewhere or years later must find the same order.
ORDER_OF_SEED_7 = [0, 6, 7, 5, 9, 3, 8, 1, 2, 4]
ORDER_OF_SEED_7_EPOCH_1E9 = [5, 2, 7, 3, 8, 9, 0, 6, 4, 1]


def stream(batches: Batches, length: int, parts: int = 1) -> np.ndarray:
    needed = -(-length // batches.batch_size)
    pieces = [batches.at(*divmod(number, parts), parts) for number in range(needed)]
    return np.concatenate(pieces)[:length]


@settings(max_examples=100, deadline=None)
@given(counts, sizes, seeds, st.integers(1, 4), st.data())
def test_a_step_always_gives_the_same_batch_whatever_was_asked_before(
    count: int, size: int, seed: int, parts: int, data: st.DataObject
) -> None:
    used = Batches(count, size, seed)
    for step in data.draw(st.lists(st.integers(0, 200), max_size=5)):
        used.at(step, 0, parts)
    step, part = data.draw(st.integers(0, 200)), data.draw(st.integers(0, parts - 1))
    fresh = Batches(count, size, seed).at(step, part, parts)
    assert fresh.shape == (size,)
    np.testing.assert_array_equal(used.at(step, part, parts), fresh)


@settings(max_examples=100, deadline=None)
@given(counts, sizes, seeds, st.integers(1, 4), st.integers(1, 4))
def test_every_epoch_holds_every_example_once(
    count: int, size: int, seed: int, parts: int, epochs: int
) -> None:
    seen = stream(Batches(count, size, seed), count * epochs, parts)
    for epoch in seen.reshape(epochs, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))


@settings(max_examples=50, deadline=None)
@given(counts, seeds, st.integers(1, 12), st.integers(1, 12))
def test_batch_size_and_parts_cut_one_and_the_same_stream(
    count: int, seed: int, size: int, other: int
) -> None:
    length = 3 * count
    np.testing.assert_array_equal(
        stream(Batches(count, size, seed), length),
        stream(Batches(count, other, seed), length, parts=3),
    )


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, second = Batches(500, 500, 1), Batches(500, 500, 2)
    orders = [first.at(0, 0, 1), first.at(1, 0, 1), second.at(0, 0, 1), np.arange(500)]
    for number, order in enumerate(orders):
        for other in orders[:number]:
            assert np.mean(order == other) < 0.05  # by chance 1 in 500


def test_each_order_is_equally_likely() -> None:
    orders = {(0, 1, 2): 0, (0, 2, 1): 0, (1, 0, 2): 0, (1, 2, 0): 0, (2, 0, 1): 0, (2, 1, 0): 0}
    for seed in range(1200):
        orders[tuple(Batches(3, 3, seed).at(0, 0, 1).tolist())] += 1
    assert min(orders.values()) > 150  # expected 200, standard deviation 13
    assert max(orders.values()) < 250


def test_order_is_the_same_on_every_machine_and_numpy() -> None:
    assert Batches(10, 10, 7).at(0, 0, 1).tolist() == ORDER_OF_SEED_7
    assert Batches(10, 10, 7).at(10**9, 0, 1).tolist() == ORDER_OF_SEED_7_EPOCH_1E9


def test_a_batch_larger_than_the_data_takes_whole_epochs() -> None:
    batch = Batches(3, 8, 0).at(0, 0, 1)
    assert np.bincount(batch[:6]).tolist() == [2, 2, 2]
    assert len(set(batch[6:].tolist())) == 2


def test_a_batch_is_the_callers_own_copy() -> None:
    batches = Batches(6, 3, 0)
    before = batches.at(0, 0, 1).copy()
    batches.at(0, 0, 1)[:] = -1
    np.testing.assert_array_equal(batches.at(0, 0, 1), before)


def test_threads_get_what_one_thread_gets() -> None:
    shared = Batches(50, 7, 3)

    def at(step: int) -> np.ndarray:
        return shared.at(step, 0, 1)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(at, range(300)))
    for step, batch in enumerate(found):
        np.testing.assert_array_equal(batch, Batches(50, 7, 3).at(step, 0, 1))


@pytest.mark.parametrize(("step", "part", "parts"), [(-1, 0, 1), (0, 1, 1), (0, -1, 1), (0, 0, 0)])
def test_a_batch_that_does_not_exist_is_refused(step: int, part: int, parts: int) -> None:
    with pytest.raises(ValueError, match="there is no part"):
        Batches(4, 2, 0).at(step, part, parts)


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 0)])
def test_an_empty_stream_is_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Batches(count, size, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=5))
def test_repeats_show_each_example_as_often_as_asked(sets: list[tuple[int, int]]) -> None:
    expected = [repeats for count, repeats in sets for _ in range(count)]
    indices = repeat_indices(sets)
    assert indices.dtype == np.int64
    assert np.bincount(indices, minlength=len(expected)).tolist() == expected


@pytest.mark.parametrize("sets", [[(3, 0)], [(-1, 1)]])
def test_repeats_that_would_drop_examples_are_refused(sets: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="repeats >= 1"):
        repeat_indices(sets)


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
