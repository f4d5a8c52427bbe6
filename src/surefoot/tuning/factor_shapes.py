"""Which factors an adapter of a layer consists of, and how large each is at the start. No torch.

LoHa and LoKr are as LyCORIS has them, in names, shapes and initial values (Yeh et al. 2023,
arXiv 2309.14859; package `lycoris-lora`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, assert_never

from surefoot.config.tuning import Initialisation
from surefoot.optim.scaling import as_lora, reach, usual_rms

Shape = tuple[int, ...]
"""Of a weight: (out, in / groups, *kernel)."""


@dataclass(frozen=True)
class Factor:
    """One tensor of an adapter.

    Attributes:
        name: As the file has it.
        shape: As the layer holds it.
        rms: Root mean square of what is drawn for it; 0 for the one that starts at zero.
        taken_off: That of what it starts from instead of zero, where the layer takes that off again
            so that it counts as zero.
    """

    name: str
    shape: Shape
    rms: float
    taken_off: float = 0.0


@dataclass(frozen=True)
class Factors:
    """The factors of one layer.

    Attributes:
        sides: Each a chain of factors that meet in the rank, see `optim.scaling.reach`.
        rank: Where they meet.
        fan_in: Inputs of the layer, kernel included.
    """

    sides: tuple[tuple[Factor, ...], ...]
    rank: int
    fan_in: int

    @property
    def all(self) -> tuple[Factor, ...]:
        """All of them."""
        return tuple(factor for side in self.sides for factor in side)

    @property
    def is_whole(self) -> bool:
        """No two meet, so that alpha / rank does not count."""
        return all(len(side) == 1 for side in self.sides)

    @property
    def reach(self) -> float:
        """What a step of the factor at zero changes the weight by, before alpha / rank."""
        return reach(self._sizes, self.rank)

    @property
    def as_lora(self) -> float:
        """By what the RMS of the layer is taken larger for the step of the factor at zero."""
        return as_lora(self._sizes, self.rank, self.fan_in)

    @property
    def _sizes(self) -> list[list[float | None]]:
        return [[factor.rms or None for factor in side] for side in self.sides]


def lora_factors(
    shape: Shape,
    rank: int,
    initialisation: Initialisation = "kaiming",
    *,
    weight_rms: float = 0.0,
    scale: float = 1.0,
) -> Factors:
    """B (out, rank) and A (rank, in, *kernel), see `tuning.initialisation`.

    Args:
        shape: Of the weight.
        rank: Inner width.
        initialisation: What they start from.
        weight_rms: Of the weight; of use to `pissa` only, as `scale` is.
        scale: alpha / rank.
    """
    out, *fan = shape
    width = math.prod(fan)
    up_rms = 0.0
    match initialisation:
        case "kaiming":
            rms = usual_rms(width)
        case "gaussian":
            rms = 1 / rank
        case "pissa":
            # The largest singular value of random numbers of this size (Marchenko and Pastur); each
            # factor has its root, spread over a column or a row.
            largest = weight_rms * (math.sqrt(out) + math.sqrt(width))
            rms, up_rms = math.sqrt(largest / scale / width), math.sqrt(largest / scale / out)
        case _:
            assert_never(initialisation)
    up = Factor("lora_up", (out, rank, *(1 for _ in fan[1:])), 0.0, up_rms)
    return Factors(((up, Factor("lora_down", (rank, *fan), rms)),), rank, width)


def loha_factors(shape: Shape, rank: int) -> Factors:
    """(B1 A1) * (B2 A2), element by element; normal with 0.1 and 1, B2 at zero."""
    out, width = shape[0], math.prod(shape[1:])
    first, second = (
        (
            Factor(f"hada_w{side}_a", (out, rank), rms),
            Factor(f"hada_w{side}_b", (rank, width), 1.0),
        )
        for side, rms in ((1, 0.1), (2, 0.0))
    )
    return Factors((first, second), rank, width)


def lokr_factors(
    shape: Shape, rank: int, factor: int | Literal["auto"], *, decompose_both: bool
) -> Factors:
    """W1 x W2, Kronecker, W1 the smaller; uniform as torch draws layers, W2 or its A at zero.

    A side is a whole matrix where it is no larger than two of this rank would be; W1 also unless
    `decompose_both`.
    """
    out, inner, *kernel = shape
    (out1, out2), (in1, in2) = factorised(out, factor), factorised(inner, factor)
    width2 = in2 * math.prod(kernel)
    first: tuple[Factor, ...] = (Factor("lokr_w1", (out1, in1), usual_rms(in1)),)
    if decompose_both and rank < max(out1, in1) / 2:
        first = (
            Factor("lokr_w1_a", (out1, rank), usual_rms(rank)),
            Factor("lokr_w1_b", (rank, in1), usual_rms(in1)),
        )
    second: tuple[Factor, ...] = (Factor("lokr_w2", (out2, in2, *kernel), 0.0),)
    if rank < max(out2, in2) / 2:
        second = (
            Factor("lokr_w2_a", (out2, rank), usual_rms(rank)),
            Factor("lokr_w2_b", (rank, width2), 0.0),
        )
    return Factors((first, second), rank, math.prod(shape[1:]))


def factorised(size: int, factor: int | Literal["auto"]) -> tuple[int, int]:
    """Two numbers whose product is `size`, the smaller first.

    Args:
        size: A side of the weight.
        factor: One of the two where it divides `size`, else the most that the smaller may be;
            `auto`: as near to each other as can be.

    Examples:
        >>> factorised(360, "auto"), factorised(360, 4), factorised(250, 4), factorised(127, 8)
        ((18, 20), (4, 90), (2, 125), (1, 127))
    """
    if factor != "auto" and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    highest = math.isqrt(size) if factor == "auto" else min(factor, math.isqrt(size))
    smaller = next(number for number in range(highest, 0, -1) if size % number == 0)
    return smaller, size // smaller
