"""Adapters of projections that one program keeps fused (`to_qkv`) and another apart.

With W of q, k and v one above the other, the update of the fused layer is B A, and that of q is the
upper rows of B times the same A. The other way the ranks add up: A is stacked, and B is block
diagonal. Both are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from surefoot.formats.leaves import axis_of, kind_of
from surefoot.formats.weights import WeightsError
from surefoot.language import _

Leaves = Mapping[str, Tensor]


def split_fused(layer: str, leaves: Leaves, rows: Sequence[int]) -> list[dict[str, Tensor]]:
    """The adapters of the single projections, in their order.

    Args:
        layer: Canonical path of the fused layer, for the message.
        leaves: Its adapter.
        rows: Outputs of each projection; together those of the fused layer.

    Raises:
        WeightsError: A column's length goes over all projections, or the factors of a Kronecker
            product do not end where a projection does.
    """
    shapes = {leaf: tuple(tensor.shape) for leaf, tensor in leaves.items()}
    # What has the layer's outputs as its rows; all other tensors are shared.
    sliced = {"lora_up", "hada_w1_a", "hada_w2_a", "magnitude"} & leaves.keys()
    step = 1
    if kind_of(shapes) == "lokr":
        step = _second_rows(shapes)
        # A magnitude would have to be cut otherwise.
        sliced |= {"lokr_w1" if "lokr_w1" in shapes else "lokr_w1_a"}
    possible = step == 1 or "magnitude" not in shapes
    if axis_of(shapes) == "input" or "hada_t1" in shapes or not possible:
        raise WeightsError(_inseparable(layer))
    if any(count % step for count in rows):
        raise WeightsError(_inseparable(layer))
    sizes = [count // step for count in rows]
    pieces = {leaf: torch.split(leaves[leaf], sizes) for leaf in sliced}
    return [
        {**leaves, **{leaf: piece[number] for leaf, piece in pieces.items()}}
        for number in range(len(rows))
    ]


def _inseparable(layer: str) -> str:
    return _("The adapter of {layer} is fused and cannot be taken apart exactly.").format(
        layer=layer
    )


def fuse(layer: str, parts: Sequence[Leaves]) -> dict[str, Tensor]:
    """The adapter of the fused layer; the reverse of `split_fused`.

    Args:
        layer: Canonical path of the fused layer, for the message.
        parts: Adapters of all its projections, in order.

    Raises:
        WeightsError: They are not all LoRA, or all DoRA of the output axis.
    """
    shapes = [{leaf: tuple(tensor.shape) for leaf, tensor in part.items()} for part in parts]
    plain = all(kind_of(shape) == "lora" and "lora_mid" not in shape for shape in shapes)
    if not plain or len({axis_of(shape) for shape in shapes}) > 1 or axis_of(shapes[0]) == "input":
        raise WeightsError(
            _("The adapters that make up {layer} cannot be fused exactly.").format(layer=layer)
        )
    fused = _fused_factors(parts)
    if "magnitude" in parts[0]:
        fused["magnitude"] = torch.cat([part["magnitude"] for part in parts])
    return fused


def _fused_factors(parts: Sequence[Leaves]) -> dict[str, Tensor]:
    downs, ups = [part["lora_down"] for part in parts], [part["lora_up"] for part in parts]
    alphas = [float(part["alpha"]) for part in parts]
    if len(set(alphas)) == 1 and all(torch.equal(downs[0], down) for down in downs[1:]):
        # They were fused before.
        return {"lora_down": downs[0], "lora_up": torch.cat(ups), "alpha": parts[0]["alpha"]}
    scales = [alpha / down.shape[0] for alpha, down in zip(alphas, downs, strict=True)]
    rank = sum(down.shape[0] for down in downs)
    same = len(set(scales)) == 1
    diagonal: list[Tensor] = []
    before = 0
    for down, up, scale in zip(downs, ups, scales, strict=True):
        columns = down.shape[0]
        scaled = up.flatten(1) if same else up.flatten(1) * scale
        diagonal.append(functional.pad(scaled, (before, rank - before - columns)))
        before += columns
    return {
        "lora_down": torch.cat(downs),
        "lora_up": torch.cat(diagonal).reshape(-1, rank, *ups[0].shape[2:]),
        "alpha": torch.tensor(rank * (scales[0] if same else 1.0), dtype=torch.float64),
    }


def _second_rows(shapes: Mapping[str, tuple[int, ...]]) -> int:
    if "lokr_w2" in shapes:
        return shapes["lokr_w2"][0]
    return shapes["lokr_w2_a"][1 if "lokr_t2" in shapes else 0]
