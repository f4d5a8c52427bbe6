"""Singular values of an update, and the factors of the nearest one of a lower rank.

All of it is in float64: singular values far below the largest would drown in float32, and what is
cut off is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# torch has no types for it.
_linalg: Any = torch.linalg


@dataclass(frozen=True)
class Spectrum:
    """The singular value decomposition of a matrix of (out, in), cut to its `k` possible ranks.

    Attributes:
        left: (out, k), orthonormal columns.
        values: (k,), falling.
        right: (k, in), orthonormal rows.
    """

    left: Tensor
    values: Tensor
    right: Tensor


def spectrum(matrix: Tensor) -> Spectrum:
    """That of any matrix, (out, in), by a full decomposition in float64."""
    left, values, right = _linalg.svd(matrix.double(), full_matrices=False)
    return Spectrum(left, values, right)


def spectrum_of_product(up: Tensor, down: Tensor) -> Spectrum:
    """That of `up @ down` without ever forming it.

    With up = Q R and down^T = P S the product is Q (R S^T) P^T, and R S^T is only as large as the
    rank.

    Args:
        up: (out, rank).
        down: (rank, in).
    """
    up_basis, up_triangle = _linalg.qr(up.double())
    down_basis, down_triangle = _linalg.qr(down.double().T)
    inner = spectrum(up_triangle @ down_triangle.T)
    return Spectrum(up_basis @ inner.left, inner.values, inner.right @ down_basis.T)


def singular_values_of_product(up: Tensor, down: Tensor) -> Tensor:
    """The singular values of `up @ down`, falling, as many as the smallest side has."""
    _, up_triangle = _linalg.qr(up.double(), mode="r")
    _, down_triangle = _linalg.qr(down.double().T, mode="r")
    return _linalg.svdvals(up_triangle @ down_triangle.T)


def stable_rank(values: Tensor) -> float:
    """How many directions an update really uses: ||D||_F^2 / ||D||_2^2, 0 for an update of zeros.

    Between 1 and the rank; unlike the rank it hardly changes when D does (Rudelson & Vershynin
    2007, "Sampling from large matrices", section 1).
    """
    largest = float(values[0]) if values.numel() else 0.0
    return float((values / largest).square().sum()) if largest > 0 else 0.0


def kept_share(values: Tensor, rank: int) -> float:
    """The share of ||D||_F^2 that the first `rank` singular values have; 1 for an update of zeros.

    No other matrix of that rank is nearer to D (Eckart & Young 1936).
    """
    total = float(values.square().sum())
    return float(values[:rank].square().sum()) / total if total > 0 else 1.0


def rank_for(values: Tensor, *, energy: float) -> int:
    """The lowest rank that keeps the share `energy` of ||D||_F^2, in (0, 1]; at least 1."""
    kept = values.square().cumsum(0)
    if not kept.numel() or float(kept[-1]) == 0:
        return 1
    # A share of 1 is asked for up to the rounding of the sum itself.
    enough = kept >= energy * kept[-1] * (1 - values.numel() * torch.finfo(kept.dtype).eps)
    return int(enough.int().argmax()) + 1


def cut(whole: Spectrum, rank: int, *, scale: float) -> tuple[Tensor, Tensor]:
    """Factors of the nearest matrix of at most this rank, both of the same size.

    Args:
        whole: Of the matrix, D.
        rank: At most as many as it has singular values.
        scale: `alpha / rank` of the layer to be; above 0.

    Returns:
        `down` (rank, in) and `up` (out, rank), float64, with `scale * up @ down` nearest to D.
    """
    roots = (whole.values[:rank] / scale).sqrt()
    up = whole.left[:, :rank] * roots
    down = roots[:, None] * whole.right[:rank]
    return down, up


def frobenius_norm(values: Tensor) -> float:
    """||D||_F from its singular values."""
    return math.sqrt(float(values.square().sum()))
