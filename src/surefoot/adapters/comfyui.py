"""Magnitudes bent so that ComfyUI, which divides by the wrong norm, makes the right weights.

For DoRA of the output axis ComfyUI computes m' (W + d) / ||W|| instead of m (W + d) / ||W + d||
(comfy/weight_adapter/base.py, `weight_decompose`). With m' = m ||W|| / ||W + d|| both are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from surefoot.adapters.figures import shapes_of
from surefoot.formats.leaves import axis_of
from surefoot.tuning.delta import SMALLEST_SQUARED_NORM, weight_delta


def bend(leaves: Mapping[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
    """Leaves with `comfyui_magnitude` in the place of `magnitude`.

    Args:
        leaves: Canonical, with a magnitude of the output axis.
        weight: Of the base model, (out, ...).
    """
    others = {name: leaf for name, leaf in leaves.items() if name != "magnitude"}
    magnitude = leaves["magnitude"]
    factor = _norm_ratio(others, weight).reshape(magnitude.shape)
    bent = _stored(magnitude.double() / factor, magnitude)
    return {**others, "comfyui_magnitude": bent}


def straightened(leaves: Mapping[str, Tensor], weight: Tensor | None) -> dict[str, Tensor]:
    """The reverse of `bend`.

    Leaves without such a magnitude are returned as they are. One of the input axis, where ComfyUI
    is right, was never bent, whatever it is called; another stays bent without the weight.
    """
    if "comfyui_magnitude" not in leaves:
        return dict(leaves)
    others = {name: leaf for name, leaf in leaves.items() if name != "comfyui_magnitude"}
    bent = leaves["comfyui_magnitude"]
    if axis_of(shapes_of(leaves)) == "input":
        return {**others, "magnitude": bent}
    if weight is None:
        return dict(leaves)
    factor = _norm_ratio(others, weight).reshape(bent.shape)
    return {**others, "magnitude": _stored(bent.double() * factor, bent)}


def _stored(magnitude: Tensor, before: Tensor) -> Tensor:
    """In float32 at least: a factor of any size has no room in 16 bits."""
    return magnitude.to(torch.promote_types(before.dtype, torch.float32))


def _norm_ratio(factors: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """||W + d|| / ||W|| of every row, (out,), float64."""
    rows = weight.double().flatten(1)
    moved = rows + weight_delta(factors, tuple(weight.shape)).double().flatten(1)
    squares = (
        matrix.square().sum(dim=1).clamp_min(SMALLEST_SQUARED_NORM) for matrix in (moved, rows)
    )
    after, before = squares
    return (after / before).sqrt()
