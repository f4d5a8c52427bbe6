"""How an update is subtracted from weights that hold fewer digits than it.

A bfloat16 weight of 1 has a neighbour at 1 + 2^-7: rounded to the nearest, every update below half
of that distance is lost, step after step. Stochastic rounding keeps it on average, Kahan summation
keeps it in a second tensor of the weights' dtype.
"""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from typing import Literal, assert_never

import torch
from torch import Tensor

Rounding = Literal["stochastic", "kahan", "nearest"]

# A bfloat16 is the upper half of a float32.
_LOWER_HALF = 0xFFFF


def loses_digits(dtype: torch.dtype) -> bool:
    """Whether weights of this dtype hold fewer digits than a float32 update."""
    return dtype in (torch.bfloat16, torch.float16)


def compensates(dtype: torch.dtype, rounding: Rounding) -> bool:
    """Whether tensors of this dtype need a second one for what rounding loses."""
    return rounding == "kahan" and loses_digits(dtype)


def subtract(
    parameters: list[Tensor],
    update: Tensor,
    rounding: Rounding,
    *,
    keys: Tensor,
    first: int = 0,
    compensations: list[Tensor] | None = None,
) -> None:
    """Subtracts row i of `update` (n, ...), float32, from the i-th of n weights of one dtype.

    Args:
        parameters: The weights, or the same part of each.
        update: What is subtracted.
        rounding: For weights that hold fewer digits; others are simply subtracted from.
        keys: (n,), int32; the randomness of stochastic rounding is a function of a weight's key
            and of each element's place in it, whatever else is stepped with it.
        first: The place of the first element, where `parameters` are parts.
        compensations: For `"kahan"`, what earlier steps have lost, one for each weight; updated.
    """
    if not loses_digits(parameters[0].dtype) or rounding == "nearest":
        torch._foreach_sub_(parameters, update.unbind(0))
    elif rounding == "stochastic":
        values = torch.stack(parameters).float().sub_(update)
        torch._foreach_copy_(parameters, round_stochastically(values, keys, first).unbind(0))
    elif rounding == "kahan":
        assert compensations is not None
        before = torch.stack(parameters)
        change = torch.stack(compensations).float().sub_(update)
        after = (before.float() + change).to(before.dtype)
        # What earlier steps have lost may be half a digit, to which rounding would yield.
        after = torch.where(update == 0, before, after)
        change.sub_(after.float().sub_(before.float()))
        torch._foreach_copy_(parameters, after.unbind(0))
        torch._foreach_copy_(compensations, change.unbind(0))
    else:
        assert_never(rounding)


def round_stochastically(values: Tensor, keys: Tensor, first: int = 0) -> Tensor:
    """(n, ...) float32 to bfloat16: up or down, with the nearer neighbour the likelier.

    The expectation of the result is the value. `values` is overwritten.
    """
    bits = values.view(torch.int32)
    dropped = random_bits(keys, values[0].numel(), first).bitwise_and_(_LOWER_HALF)
    bits.add_(dropped.view_as(bits)).bitwise_and_(~_LOWER_HALF)
    return values.bfloat16()


def step_keys(positions: Tensor, seed: int, step: int) -> Tensor:
    """(n,): a key for each weight at a step, from (n,) positions, int32."""
    return _mixed(_mixed(positions + _as_int32(seed * 0x9E3779B1)) + _as_int32(step * 0x85EBCA6B))


def random_bits(keys: Tensor, count: int, first: int = 0) -> Tensor:
    """(n, count): 32 random bits for each element, a pure function of key and place."""
    places = torch.arange(first, first + count, device=keys.device, dtype=torch.int32)
    return _mixed(places.mul_(_as_int32(0x9E3779B1)) + keys[:, None])


def _mixed(bits: Tensor) -> Tensor:
    """The bits of each int32 stirred, in place.

    Two rounds of shift, exclusive or and multiplication with an odd number, the finaliser of
    MurmurHash3: each bit of the result depends on each bit of the argument.
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits.bitwise_xor_(_shifted(bits, shift)).mul_(_as_int32(factor))
    return bits.bitwise_xor_(_shifted(bits, 16))


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, filled with zeros; torch's own shift repeats the sign."""
    return (bits >> places).bitwise_and_((1 << (32 - places)) - 1)


def _as_int32(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >= 1 << 31 else number
