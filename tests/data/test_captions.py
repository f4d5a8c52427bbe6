"""Caption dropout."""

from __future__ import annotations

import numpy as np
import pytest

from surefoot.data.batches import step_generator
from surefoot.data.captions import drop_caption


def test_captions_are_dropped_as_often_as_asked() -> None:
    generator = step_generator(0, "dropout")
    kept = [drop_caption("a cat", 0.1, generator) for _ in range(10_000)]
    assert set(kept) == {"", "a cat"}
    assert abs(kept.count("") - 1000) < 150  # five standard deviations of 30


def test_zero_keeps_and_one_drops_every_caption() -> None:
    generator = np.random.default_rng(0)
    assert {drop_caption("a", 0.0, generator) for _ in range(1000)} == {"a"}
    assert {drop_caption("a", 1.0, generator) for _ in range(1000)} == {""}


def test_changing_the_dropout_does_not_shift_later_draws() -> None:
    none, half = step_generator(1), step_generator(1)
    drop_caption("a", 0.0, none)
    drop_caption("a", 0.5, half)
    assert none.random() == half.random()


@pytest.mark.parametrize("dropout", [-0.1, 1.1, float("nan")])
def test_a_dropout_that_is_no_probability_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match="within 0 to 1"):
        drop_caption("a", dropout, np.random.default_rng(0))
