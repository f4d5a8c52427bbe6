"""How far ranks are lowered, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from surefoot.adapters.spectrum import rank_for
from surefoot.finding import Finding

Tell = Callable[[int], None]
"""Told of every layer that is done."""


@dataclass(frozen=True)
class Cutting:
    """How far ranks are lowered.

    Attributes:
        rank: The most there may be; 0 for no bound.
        energy: The share of ||D||_F^2 that each layer is to keep; the lowest rank that does.
    """

    rank: int
    energy: float

    def __call__(self, values: Tensor) -> int:
        """The rank for a layer with these singular values."""
        enough = rank_for(values, energy=self.energy)
        return min(enough, self.rank) if self.rank else enough


@dataclass(frozen=True)
class KeptLayer:
    """What a layer keeps of its update.

    Attributes:
        path: Canonical.
        rank: Of its factors.
        kept: Share of ||D||_F^2.
        squared_norm: ||D||_F^2.
    """

    path: str
    rank: int
    kept: float
    squared_norm: float


def overall(layers: Sequence[KeptLayer]) -> float:
    """The share of all updates together that is kept."""
    total = sum(layer.squared_norm for layer in layers)
    return sum(layer.kept * layer.squared_norm for layer in layers) / total if total else 1.0


@dataclass(frozen=True)
class Written:
    """An adapter that was written at other ranks.

    Attributes:
        kept: What every layer keeps.
        findings: What should be known about the result.
    """

    kept: tuple[KeptLayer, ...]
    findings: tuple[Finding, ...]
