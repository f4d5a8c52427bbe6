"""The mathematics of ranks, against numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surefoot.adapters.spectrum import (
    cut,
    frobenius_norm,
    kept_share,
    rank_for,
    singular_values_of_product,
    spectrum,
    spectrum_of_product,
    stable_rank,
)

ROUNDING = 1e-12  # float64 has 2e-16; some hundred operations on numbers near 1
SIZES = [(30, 20, 4), (20, 30, 4), (6, 50, 16), (50, 6, 16), (8, 8, 8), (5, 7, 1)]


def factors(out: int, inner: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(out + inner + rank)
    return noise.normal(size=(out, rank)), noise.normal(size=(rank, inner))


@pytest.mark.parametrize(("out", "inner", "rank"), SIZES)
def test_spectrum_of_a_product_is_that_of_the_whole_matrix(out: int, inner: int, rank: int) -> None:
    up, down = factors(out, inner, rank)
    found = spectrum_of_product(torch.from_numpy(up), torch.from_numpy(down))
    expected = np.linalg.svd(up @ down, compute_uv=False)
    count = min(out, inner, rank)
    assert found.values.shape == (count,)
    np.testing.assert_allclose(found.values.numpy(), expected[:count], rtol=ROUNDING)
    np.testing.assert_allclose(expected[count:], 0, atol=ROUNDING * expected[0])
    values = singular_values_of_product(torch.from_numpy(up), torch.from_numpy(down))
    np.testing.assert_allclose(values.numpy(), expected[:count], rtol=ROUNDING)
    again = (found.left * found.values) @ found.right
    np.testing.assert_allclose(again.numpy(), up @ down, atol=ROUNDING * expected[0])


@pytest.mark.parametrize(("out", "inner", "rank"), SIZES)
@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0])
def test_what_is_cut_is_the_nearest_of_its_rank(
    out: int, inner: int, rank: int, scale: float
) -> None:
    up, down = factors(out, inner, rank)
    left, values, right = np.linalg.svd(up @ down)
    whole = spectrum_of_product(torch.from_numpy(up), torch.from_numpy(down))
    for lower in range(1, min(out, inner, rank) + 1):
        new_down, new_up = cut(whole, lower, scale=scale)
        assert (new_down.shape, new_up.shape) == ((lower, inner), (out, lower))
        nearest = (left[:, :lower] * values[:lower]) @ right[:lower]
        found = scale * (new_up @ new_down).numpy()
        np.testing.assert_allclose(found, nearest, atol=ROUNDING * values[0])
        share = (values[:lower] ** 2).sum() / (values**2).sum()
        assert kept_share(whole.values, lower) == pytest.approx(share, rel=ROUNDING)


def test_whole_matrix_and_its_factors_agree() -> None:
    up, down = factors(12, 9, 3)
    whole = spectrum(torch.from_numpy(up @ down))
    assert whole.values.shape == (9,)
    found = spectrum_of_product(torch.from_numpy(up), torch.from_numpy(down)).values
    np.testing.assert_allclose(whole.values[:3].numpy(), found.numpy(), rtol=ROUNDING)
    norm = np.linalg.norm(up @ down)
    assert frobenius_norm(whole.values) == pytest.approx(norm, rel=ROUNDING)


def test_factors_of_half_precision_are_not_multiplied_in_it() -> None:
    up = torch.full((4, 1), 300.0, dtype=torch.float16)
    down = torch.full((1, 4), 300.0, dtype=torch.float16)  # 90,000 is infinite in float16
    assert float(singular_values_of_product(up, down)[0]) == pytest.approx(360_000)


@pytest.mark.parametrize(
    ("energy", "expected"), [(0.5, 1), (0.64, 1), (0.65, 2), (0.89, 2), (0.99, 3), (1.0, 3)]
)
def test_rank_is_the_lowest_that_keeps_the_share(energy: float, expected: int) -> None:
    values = torch.tensor([8.0, 5.0, 11.0**0.5, 0.0], dtype=torch.float64)  # squares of 100
    assert rank_for(values, energy=energy) == expected


def test_an_update_of_zeros_has_rank_one_and_loses_nothing() -> None:
    zeros = spectrum_of_product(torch.zeros(5, 2), torch.ones(2, 3))
    assert rank_for(zeros.values, energy=1.0) == 1
    assert kept_share(zeros.values, 1) == 1
    assert stable_rank(zeros.values) == 0
    down, up = cut(zeros, 1, scale=1.0)
    assert torch.equal(up @ down, torch.zeros(5, 3, dtype=torch.float64))


def test_stable_rank_counts_equal_directions_and_overlooks_faint_ones() -> None:
    assert stable_rank(torch.tensor([2.0, 2.0, 2.0])) == pytest.approx(3)
    assert stable_rank(torch.tensor([1.0, 1e-3, 1e-3])) == pytest.approx(1, abs=1e-5)
