"""What can be measured of one layer of an adapter: sizes, ranks, and whether it was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from surefoot.adapters.spectrum import frobenius_norm, singular_values_of_product, stable_rank
from surefoot.formats.finite import all_finite
from surefoot.formats.leaves import (
    MAGNITUDES,
    AdapterKind,
    Axis,
    Shape,
    Shapes,
    axis_of,
    kind_of,
    rank_of,
    width_of,
)
from surefoot.tuning.delta import adapted_weight, weight_delta

WeightSource: TypeAlias = Literal["base", "magnitude", "estimate"]
Magnitude: TypeAlias = Literal["none", "unknown", "untrained", "trained"]

MAGNITUDE_ROUNDINGS = 8
"""So many units in the last place of float32 the norm of a row may differ: programs sum its squares
in other orders."""
UNCERTAIN = 8
"""A magnitude that is off by more than its rounding and less than so many times that may have been
rounded more often, or trained by that little."""


@dataclass(frozen=True)
class LayerFigures:
    """One layer of an adapter in numbers. Norms are Frobenius norms.

    Attributes:
        path: Canonical, e.g. `unet.mid_block.attentions.0.proj_in`.
        kind: Of its factors.
        axis: Along which a magnitude goes; `none` without one.
        kernel: Of a convolution, such as (3, 3); () of a linear layer, or where no factor tells.
        rank: 0 where there is none, as in a LoKr of two whole matrices.
        alpha: The update is scaled by `alpha / rank`.
        update_norm: ||dW||; with a magnitude and a base model of W' - W, with a magnitude alone of
            the update of the direction; NaN if a number is not finite.
        direction_norm: ||(alpha / rank) B A||; the same as `update_norm` without a magnitude.
        weight_norm: ||W||.
        weight_source: Where that comes from.
        stable_rank: ||dW||_F^2 / ||dW||_2^2 of the factors' product; 0 where it is not known.
        unusable: Names of leaves with numbers that are not finite.
        magnitude: Whether it left the norms of W at which it began.
    """

    path: str
    kind: AdapterKind
    axis: Axis | Literal["none"]
    kernel: Shape
    rank: int
    alpha: float
    update_norm: float
    direction_norm: float
    weight_norm: float
    weight_source: WeightSource
    stable_rank: float
    unusable: tuple[str, ...]
    magnitude: Magnitude

    @property
    def part(self) -> str:
        """The part of the model, such as `unet`."""
        return self.path.partition(".")[0]

    @property
    def ratio(self) -> float:
        """||dW|| / ||W||."""
        return _ratio(self.update_norm, self.weight_norm)

    @property
    def direction_ratio(self) -> float:
        """||(alpha / rank) B A|| / ||W||."""
        return _ratio(self.direction_norm, self.weight_norm)


def _ratio(norm: float, of: float) -> float:
    """A layer of zeros, as a zero convolution is at first, is changed without bounds or not."""
    if of:
        return norm / of
    return math.inf if norm else 0.0


def shapes_of(leaves: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shapes of a layer's leaves."""
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def kernel_of(shapes: Shapes) -> Shape:
    """The kernel of a convolution; () of a linear layer, or where no factor tells."""
    for leaf in ("lora_mid", "hada_t1", "lokr_t2", "lokr_w2", "lokr_w2_b", "lora_down"):
        if leaf in shapes:
            return shapes[leaf][2:]
    return ()


def measure(path: str, leaves: Mapping[str, Tensor], weight: Tensor | None = None) -> LayerFigures:
    """The figures of one layer.

    A LoRA is measured by its factors; whatever else there is, by an update as large as the weight.

    Args:
        path: Of the layer.
        leaves: By canonical names, see `formats.leaves`.
        weight: That of the base model, if it is at hand.
    """
    unusable = tuple(name for name, leaf in leaves.items() if not all_finite(leaf))
    shapes = shapes_of(leaves)
    direction, stable = (math.nan, 0.0) if unusable else _direction(leaves)
    update = direction
    if weight is not None and "magnitude" in leaves and not unusable:
        update = _norm(adapted_weight(weight, leaves) - weight.float())
    weight_norm, source = _weight_norm(leaves, weight)
    return LayerFigures(
        path=path,
        kind=_kind(shapes),
        axis=axis_of(shapes),
        kernel=kernel_of(shapes),
        rank=rank_of(shapes) or 0,
        alpha=float(leaves["alpha"]),
        update_norm=update,
        direction_norm=direction,
        weight_norm=weight_norm,
        weight_source=source,
        stable_rank=stable,
        unusable=unusable,
        magnitude=_magnitude(leaves, weight),
    )


def _kind(shapes: Shapes) -> AdapterKind:
    kind = kind_of(shapes)
    assert kind != "none", "a file with such a layer is not opened"
    return kind


def _direction(leaves: Mapping[str, Tensor]) -> tuple[float, float]:
    """The norm of the factors' product, scale included, and its stable rank."""
    if kind_of(leaves) == "lora" and "lora_mid" not in leaves:
        scale = float(leaves["alpha"]) / leaves["lora_down"].shape[0]
        up, down = leaves["lora_up"].flatten(1), leaves["lora_down"].flatten(1)
        values = scale * singular_values_of_product(up, down)
        return frobenius_norm(values), stable_rank(values)
    factors = {name: leaf for name, leaf in leaves.items() if name not in MAGNITUDES}
    return _norm(weight_delta(factors, width_of(shapes_of(leaves)))), 0.0


def _weight_norm(leaves: Mapping[str, Tensor], weight: Tensor | None) -> tuple[float, WeightSource]:
    if weight is not None:
        return _norm(weight), "base"
    if magnitudes := MAGNITUDES & leaves.keys():
        # It began as the norms of W's rows or columns, and moves by some percent.
        return _norm(leaves[min(magnitudes)]), "magnitude"
    # Layers begin with an RMS near 1 / sqrt(fan in), which makes the norm sqrt(out).
    return math.sqrt(width_of(shapes_of(leaves))[0]), "estimate"


def _norm(tensor: Tensor) -> float:
    return float(tensor.double().square().sum().sqrt())


def _magnitude(leaves: Mapping[str, Tensor], weight: Tensor | None) -> Magnitude:
    if not MAGNITUDES & leaves.keys():
        return "none"
    if weight is None or not all_finite(leaves["magnitude"]):
        return "unknown"
    magnitude = leaves["magnitude"].double()
    kept = 0 if axis_of(shapes_of(leaves)) == "output" else 1
    dims = [dim for dim in range(weight.ndim) if dim != kept]
    start = weight.double().square().sum(dim=dims).sqrt().reshape(magnitude.shape)
    rounding = _rounding(leaves["magnitude"], weight, weight.numel() // magnitude.numel())
    off = (magnitude - start).abs()
    if bool((off > UNCERTAIN * rounding * start).any()):
        return "trained"
    return "unknown" if bool((off > rounding * start).any()) else "untrained"


def _rounding(magnitude: Tensor, weight: Tensor, length: int) -> float:
    """By what share a magnitude that never moved may be off the norm of `length` numbers.

    It was rounded itself, perhaps in the precision of W before it was stored in a finer one; and W,
    of which it is the norm, may have been rounded since, each number for itself.
    """
    own, of_weight = (torch.finfo(tensor.dtype).eps for tensor in (magnitude, weight))
    if bool((magnitude.to(weight.dtype).double() == magnitude.double()).all()):
        own = max(own, of_weight)
    summed = MAGNITUDE_ROUNDINGS * torch.finfo(torch.float32).eps
    return max(own, summed) + of_weight / math.sqrt(length)
