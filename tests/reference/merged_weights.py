"""What an adapter makes of a weight, by the formulas of the papers, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def merged(weight: Tensor, leaves: Mapping[str, Tensor]) -> Tensor:
    """The weight of a layer with its adapter, by canonical leaves without Tucker's factors."""
    own = {leaf: tensor.double() for leaf, tensor in leaves.items()}
    if "lora_up" in own:
        rank = own["lora_down"].shape[0]
        product = own["lora_up"].flatten(1) @ own["lora_down"].flatten(1)
    elif "hada_w1_a" in own:
        rank = own["hada_w1_b"].shape[0]
        product = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])
    elif "lokr_w2" in own:
        rank, kernel = float(own["alpha"]), [1] * (weight.ndim - 2)
        product = torch.kron(own["lokr_w1"].reshape(*own["lokr_w1"].shape, *kernel), own["lokr_w2"])
    else:
        rank = own["lokr_w2_b"].shape[0]
        second = own["lokr_w2_a"] @ own["lokr_w2_b"]
        kernel = [1] * (weight.ndim - 2)
        second = second.reshape(second.shape[0], -1, *weight.shape[2:])
        product = torch.kron(own["lokr_w1"].reshape(*own["lokr_w1"].shape, *kernel), second)
    adapted = weight.double() + own["alpha"] / rank * product.reshape(weight.shape)
    if "magnitude" not in own:
        return adapted
    kept = 0 if own["magnitude"].shape[0] == weight.shape[0] else 1
    dims = [dim for dim in range(weight.ndim) if dim != kept]
    return own["magnitude"] * adapted / adapted.square().sum(dims, keepdim=True).sqrt()
