"""Root mean squares of many tensors, fetched from their device together."""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

PIECE = 2**22
"""Numbers that are widened to float32 at a time, 16 MiB."""


def root_mean_squares(tensors: Iterable[Tensor]) -> list[float]:
    """The root mean square of each, computed in float32; 0 for a tensor without elements.

    Each tensor is let go before the next is asked for, so that an iterator may make them one by
    one. Only the results leave the device, all at once: a transfer for each would wait for the
    device each time.
    """
    norms: list[Tensor] = []
    roots: list[float] = []
    for tensor in tensors:
        norms.append(_norm(tensor.detach()))
        roots.append(math.sqrt(max(1, tensor.numel())))
    return [norm / root for norm, root in zip(_fetched(norms), roots, strict=True)]


@torch.no_grad()
def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all elements of all tensors, as float32 on their device; 0 of none.

    torch's own would round the norm of each bfloat16 tensor to three digits.
    """
    if not tensors:
        return torch.zeros(())
    norms = torch._foreach_norm(list(tensors), dtype=torch.float32)
    linalg: Any = torch.linalg
    return cast(Tensor, linalg.vector_norm(torch.stack(norms)))


def _norm(tensor: Tensor) -> Tensor:
    """Euclidean norm over all elements, without a widened copy of the whole tensor."""
    linalg: Any = torch.linalg
    norms = [cast(Tensor, linalg.vector_norm(piece)) for piece in map(_widened, _pieces(tensor))]
    return norms[0] if len(norms) == 1 else cast(Tensor, linalg.vector_norm(torch.stack(norms)))


def _pieces(tensor: Tensor) -> list[Tensor]:
    """The tensor in slices along its first dimension."""
    if tensor.dim() == 0 or tensor.numel() <= PIECE:
        return [tensor]
    rows = max(1, PIECE * tensor.shape[0] // tensor.numel())
    starts = range(0, tensor.shape[0], rows)
    return [tensor[start : start + rows] for start in starts]


def _widened(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.to(torch.float32)


def _fetched(scalars: list[Tensor]) -> list[float]:
    """The numbers on the host, by one transfer from each device."""
    places: dict[torch.device, list[int]] = {}
    for index, scalar in enumerate(scalars):
        places.setdefault(scalar.device, []).append(index)
    numbers = [0.0] * len(scalars)
    for indices in places.values():
        stacked = torch.stack([scalars[i].to(torch.float32) for i in indices])
        fetched = cast(list[float], cast(Any, stacked).tolist())
        for index, number in zip(indices, fetched, strict=True):
            numbers[index] = number
    return numbers
