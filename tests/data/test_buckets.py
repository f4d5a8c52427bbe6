"""Buckets: exactly one for each picture, the one that keeps most of it, with a bounded crop."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.data.buckets import (
    Size,
    bucket_sizes,
    frame,
    kept_share,
    nearest_bucket,
    scale_of,
    smaller_bucket,
)

sides = st.integers(1, 12_000)
steps = st.sampled_from([8, 16, 32, 64])
ratios = st.floats(1, 4)
places = st.floats(0, 1)


@st.composite
def bucket_sets(draw: st.DrawFn) -> tuple[int, int, float, tuple[Size, ...]]:
    step, ratio = draw(steps), draw(ratios)
    resolution = step * draw(st.integers(1, 32))
    return resolution, step, ratio, bucket_sizes(resolution, step, ratio)


@given(bucket_sets())
def test_buckets_are_of_whole_steps_and_no_larger_than_the_square(
    made: tuple[int, int, float, tuple[Size, ...]],
) -> None:
    resolution, step, ratio, sizes = made
    assert Size(resolution, resolution) in sizes
    for size in sizes:
        assert size.width % step == size.height % step == 0
        assert size.area <= resolution**2
        assert 1 / ratio <= size.ratio <= ratio
        assert Size(size.height, size.width) in sizes
    assert [size.ratio for size in sizes] == sorted({size.ratio for size in sizes})


def test_buckets_of_1024_are_those_of_sdxl() -> None:
    # Podell et al. 2023, SDXL, appendix I, with ratios up to 2 and no more than 1024 x 1024 pixels.
    sizes = {str(size) for size in bucket_sizes(1024, 64, 2.0)}
    assert {"1024x1024", "1088x960", "1152x896", "1216x832", "1344x768", "1408x704"} <= sizes
    assert {"704x1408", "768x1344", "832x1216"} <= sizes


@given(bucket_sets(), sides, sides)
def test_a_picture_lands_in_the_one_bucket_that_keeps_most_of_it(
    made: tuple[int, int, float, tuple[Size, ...]], width: int, height: int
) -> None:
    sizes = made[3]
    chosen = nearest_bucket(width, height, sizes)
    assert sizes.count(chosen) == 1
    assert nearest_bucket(width, height, sizes[::-1]) == chosen
    kept = kept_share(width, height, chosen)
    assert kept == max(kept_share(width, height, size) for size in sizes)


@settings(max_examples=200)
@given(bucket_sets(), sides, sides)
def test_the_crop_is_bounded_by_the_gap_between_buckets(
    made: tuple[int, int, float, tuple[Size, ...]], width: int, height: int
) -> None:
    sizes = made[3]
    own = [size.ratio for size in sizes]
    if not own[0] <= width / height <= own[-1]:
        return
    gaps = [wide / narrow for narrow, wide in itertools.pairwise(own)] or [1.0]
    kept = kept_share(width, height, nearest_bucket(width, height, sizes))
    assert kept >= max(gaps) ** -0.5 - 1e-9


def test_no_picture_of_usual_proportions_loses_more_than_a_twelfth() -> None:
    sizes = bucket_sizes(1024, 64, 2.0)
    for ratio in np.linspace(0.5, 2.0, 500):
        width, height = round(4000 * ratio), 4000
        assert kept_share(width, height, nearest_bucket(width, height, sizes)) > 11 / 12


@settings(max_examples=200)
@given(sides, sides, bucket_sets(), places, places)
def test_what_is_kept_lies_within_the_scaled_picture(
    width: int,
    height: int,
    made: tuple[int, int, float, tuple[Size, ...]],
    across: float,
    down: float,
) -> None:
    target = nearest_bucket(width, height, made[3])
    framing = frame(width, height, target, across, down)
    assert framing.target == target
    assert framing.original == Size(width, height)
    assert 0 <= framing.left <= framing.scaled.width - target.width
    assert 0 <= framing.top <= framing.scaled.height - target.height
    # Only one side is cropped, but for the rounding to whole pixels.
    scale = scale_of(width, height, target)
    spare = [framing.scaled.width - target.width, framing.scaled.height - target.height]
    assert min(spare) <= 1
    assert framing.scaled.width == pytest.approx(width * scale, abs=1)
    assert framing.mirrored().mirrored() == framing


def test_mirroring_moves_what_was_cut_off_to_the_other_side() -> None:
    framing = frame(300, 100, Size(100, 100), across=0.25)
    assert (framing.left, framing.top) == (50, 0)
    assert framing.mirrored().left == 150


@settings(max_examples=200)
@given(sides, sides, bucket_sets())
def test_a_smaller_bucket_scales_nothing_up(
    width: int, height: int, made: tuple[int, int, float, tuple[Size, ...]]
) -> None:
    _resolution, step, _ratio, sizes = made
    bucket = nearest_bucket(width, height, sizes)
    found = smaller_bucket(width, height, bucket, step)
    assert found.width % step == found.height % step == 0
    assert found.width <= max(step, bucket.width)
    assert found.height <= max(step, bucket.height)
    if min(width, height) >= step:
        assert scale_of(width, height, found) <= 1
    if width >= bucket.width and height >= bucket.height:
        assert found == bucket


@pytest.mark.parametrize("made", [(0, 8, 2.0), (64, 0, 2.0), (64, 8, 0.5)])
def test_buckets_of_nothing_are_refused(made: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bucket_sizes(*made)
