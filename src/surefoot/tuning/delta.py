"""What an adapter adds to the weight of its layer, from the adapter's tensors alone.

The tensors bear LyCORIS's names (`formats.leaves` says which and in which shape):

    LoRA   alpha / rank * B A               or B M A with a Tucker core (`lora_mid`)
    LoHa   alpha / rank * (B1 A1) * (B2 A2)     element by element (Hyeon-Woo et al. 2022, FedPara)
    LoKr   alpha / rank * (B1 A1) x (B2 A2)     Kronecker; a side may be one whole matrix

and with DoRA's magnitude m the layer's weight becomes m (W + d) / ||W + d||, a norm for each row or
each column (Liu et al. 2024, arXiv 2402.09353, equation 5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

SMALLEST_SQUARED_NORM = 1e-24
"""Floor under a squared norm: a row of zeros is divided by 1e-12 instead of by 0."""


def weight_delta(leaves: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
    """The update of a weight, alpha / rank included and DoRA's magnitude left out.

    Args:
        leaves: The adapter's tensors by their names.
        shape: Of the weight: (out, in / groups, *kernel).

    Returns:
        A tensor of that shape, float32, or float64 if the factors are.

    Raises:
        ValueError: The tensors are of no adapter, or of a weight of another size.
    """
    precise = {name: _precise(tensor) for name, tensor in leaves.items()}
    if "lora_up" in precise:
        product, rank = _lora(precise)
    elif "hada_w1_a" in precise:
        product, rank = _loha(precise)
    elif "lokr_w1" in precise or "lokr_w1_a" in precise:
        product, rank = _lokr(precise)
    else:
        raise ValueError(f"no adapter: it consists of {', '.join(leaves) or 'nothing'}")
    if product.numel() != math.prod(shape):
        given, wanted = tuple(product.shape), tuple(shape)
        raise ValueError(f"an update of shape {given} does not fit a weight of shape {wanted}")
    # No rank: both sides of a LoKr are whole, and nothing divides.
    scale = float(leaves["alpha"]) / rank if rank else 1.0
    return product.reshape(shape) * scale


def adapted_weight(weight: Tensor, leaves: Mapping[str, Tensor], strength: float = 1.0) -> Tensor:
    """The weight with an adapter in it, in float32 (float64 where the factors are).

    Args:
        weight: The frozen weight, (out, in / groups, *kernel).
        leaves: The adapter's tensors; a `magnitude` has the shape of its norm, (out, 1, ...) or
            (1, in / groups, 1, ...), by which its axis is known.
        strength: At 1 the whole adapter. Otherwise the change that it makes is multiplied, the
            normalisation of a DoRA included.

    Raises:
        ValueError: As `weight_delta`, or the magnitude fits no axis.
    """
    delta = weight_delta(leaves, tuple(weight.shape))
    before = weight.to(delta.dtype)
    if "magnitude" not in leaves:
        return before + strength * delta
    magnitude = _precise(leaves["magnitude"])
    over = normed_dimensions(tuple(magnitude.shape), tuple(weight.shape))
    after = before + delta
    norm = after.square().sum(dim=over, keepdim=True).clamp_min(SMALLEST_SQUARED_NORM).sqrt()
    after = after * (magnitude / norm)
    return after if strength == 1.0 else before + strength * (after - before)


def normed_dimensions(magnitude: tuple[int, ...], weight: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions that a DoRA's norm is taken over, all but the one that its magnitude has.

    Args:
        magnitude: Shape of the magnitude.
        weight: Shape of the weight.

    Raises:
        ValueError: The magnitude is of another size than the weight's rows and columns.
    """
    ones = (1,) * (len(weight) - 2)
    if magnitude == (weight[0], 1, *ones):
        return tuple(range(1, len(weight)))
    if magnitude == (1, weight[1], *ones):
        return (0, *range(2, len(weight)))
    raise ValueError(
        f"a magnitude of shape {magnitude} is neither one number for each output nor one for each "
        f"input of a weight of shape {weight}"
    )


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 and tensor.ndim else tensor.float()


def _lora(leaves: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    up, down = leaves["lora_up"], leaves["lora_down"]
    if "lora_mid" in leaves:
        core = leaves["lora_mid"]
        return _tucker(core, up.flatten(1), down.flatten(1)), up.shape[1]
    return up.flatten(1) @ down.flatten(1), down.shape[0]


def _loha(leaves: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    sides: list[Tensor] = []
    for side in ("hada_w1", "hada_w2"):
        a, b = leaves[f"{side}_a"], leaves[f"{side}_b"]
        core = leaves.get(side.replace("w", "t"))
        # With a core LyCORIS lays the left factor down: (rank, out).
        sides.append(a @ b if core is None else _tucker(core, a.T, b))
    return sides[0] * sides[1], leaves["hada_w1_b"].shape[0]


def _lokr(leaves: Mapping[str, Tensor]) -> tuple[Tensor, int]:
    first, first_rank = _lokr_side(leaves, "lokr_w1", None)
    second, second_rank = _lokr_side(leaves, "lokr_w2", leaves.get("lokr_t2"))
    # A kernel is in the second side only.
    first = first.reshape(*first.shape, *(1 for _ in second.shape[2:]))
    return torch.kron(first.contiguous(), second.contiguous()), second_rank or first_rank


def _lokr_side(leaves: Mapping[str, Tensor], name: str, core: Tensor | None) -> tuple[Tensor, int]:
    """One side and its rank, 0 for a whole matrix."""
    if name in leaves:
        return leaves[name], 0
    a, b = leaves[f"{name}_a"], leaves[f"{name}_b"]
    if core is not None:
        return _tucker(core, a.T, b), b.shape[0]
    return (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:]), b.shape[0]


def _tucker(core: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(out, rank) and (rank, in) around a core (rank, rank, *kernel): (out, in, *kernel)."""
    return torch.einsum("or,rs...,si->oi...", left, core, right)
