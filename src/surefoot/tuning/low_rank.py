"""Forward and backward of an adapted linear layer, with nothing kept that can be spared.

    y = g * (x W^T + s x A^T B^T) + b           DoRA over outputs; LoRA with g = 1
    y = (g * x) (W^T + s A^T B^T) + b           DoRA over inputs

The update is accumulated into the frozen output by the matrix product itself, and its gradient into
that of the input: no tensor of the size of either is made for it. The gradient of g is taken from
the output, which whoever asked for it holds as a rule; the product before g is not kept. The scale
s goes onto the narrow tensors.

None of W is copied, and none of W's size is made.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_NUMBERS_AT_ONCE = 2**24
_NUMBERS_AT_ONCE_ON_CPU = 2**15
"""Of a product that is summed up at once; more on a CPU would leave its cache, and have its threads
wait for each other at every operation."""


def adapted_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    scale: float,
    *,
    row_gain: Tensor | None = None,
    column_gain: Tensor | None = None,
) -> Tensor:
    """A frozen linear layer with its low-rank update.

    Args:
        x: (..., in).
        weight: W, (out, in), frozen.
        bias: b, (out,), frozen.
        down: A, (rank, in).
        up: B, (out, rank).
        scale: s.
        row_gain: g over outputs, (out,), float32.
        column_gain: g over inputs, (in,), float32; not both.

    Returns:
        (..., out), in the dtype of the layer's output: that of the autocast region, or W's.
    """
    dtype = weight.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    down, up = down.to(dtype), up.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        return _apply(x, None, weight, bias, down, up, scale, row_gain, column_gain)


def joined(
    output: Tensor,
    x: Tensor,
    bias: Tensor | None,
    down: Tensor,
    up: Tensor,
    scale: float,
    *,
    row_gain: Tensor | None = None,
) -> Tensor:
    """As `adapted_linear`, of a layer that has given its own output.

    Args:
        output: x W^T + b, (..., out), left as it is.
        x: What the update is of, (..., in); may differ from the frozen layer's input by dropout.
        bias: b, (out,), within `output`; left out of the gain.
        down: A, (rank, in).
        up: B, (out, rank).
        scale: s.
        row_gain: g over outputs, (out,), float32.
    """
    x, down, up = (tensor.to(output.dtype) for tensor in (x, down, up))
    with torch.autocast(x.device.type, enabled=False):
        return _apply(x, output, None, bias, down, up, scale, row_gain, None)


def scaled_rows(product: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    """Gives g * (product - b) + b for each channel of a convolution's output.

    Args:
        product: (batch, out, ...), left as it is.
        gain: g, (out,), float32.
        bias: b, (out,), within `product`.
    """
    result: Tensor = _ScaledRows.apply(product, gain, bias)  # pyright: ignore[reportAssignmentType]
    return result


def _apply(*arguments: Any) -> Tensor:  # noqa: ANN401
    result: Tensor = _AdaptedLinear.apply(*arguments)  # pyright: ignore[reportAssignmentType]
    return result


class _AdaptedLinear(torch.autograd.Function):
    """All arguments are of one dtype, but for the gains and the weight.

    The weight is rounded where it is used: under autocast the rounded copies of all layers, kept
    for the backward pass, would be half a model more.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        output: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
        row_gain: Tensor | None,
        column_gain: Tensor | None,
    ) -> Tensor:
        rows = _rows(x if column_gain is None else _times(x, column_gain))
        narrow = rows @ down.T
        if output is not None:
            product = torch.addmm(_rows(output), narrow, up.T, alpha=scale)
        else:
            assert weight is not None, "either the output or what it is computed by"
            product = F.linear(rows, weight.to(down.dtype), bias)
            product.addmm_(narrow, up.T, alpha=scale)
        if row_gain is not None:
            _scaled(product, row_gain, bias, out=product)
        # Not a view to autograd, as the output of a plain layer is none: others may write into it.
        result = torch.ops.aten._unsafe_view(product, (*x.shape[:-1], product.shape[-1]))
        ctx.scale = scale
        kept = result if row_gain is not None else None
        ctx.save_for_backward(x, kept, weight, bias, narrow, down, up, row_gain, column_gain)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        x, kept, weight, bias, narrow, down, up, row_gain, column_gain = ctx.saved_tensors
        needs = ctx.needs_input_grad
        of_product = _rows(gradient)
        of_row_gain = of_column_gain = of_x = of_down = of_up = None
        if row_gain is not None:
            if needs[7]:
                of_row_gain = _gain_gradient(of_product, _rows(kept), row_gain, bias)
            of_product = _times(of_product, row_gain)
        of_narrow = of_product @ (up * ctx.scale)
        if needs[5]:
            of_up = (of_product.T @ narrow).mul_(ctx.scale)
        if needs[4]:
            of_down = of_narrow.T @ _rows(x)
            if column_gain is not None:
                _times(of_down, column_gain, out=of_down)
        if needs[0] or needs[8]:
            if weight is None:
                of_x = of_narrow @ down
            else:
                of_x = (of_product @ weight.to(down.dtype)).addmm_(of_narrow, down)
            if column_gain is not None:
                of_column_gain = _summed_product(of_x, _rows(x))
                _times(of_x, column_gain, out=of_x)
            of_x = of_x.view(x.shape)
        of_output = of_product.view(gradient.shape) if needs[1] else None
        return of_x, of_output, None, None, of_down, of_up, None, of_row_gain, of_column_gain


class _ScaledRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, product: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:  # noqa: ANN401
        result = _scaled(product.movedim(1, -1), gain, bias, out=None).movedim(-1, 1)
        ctx.save_for_backward(result, gain, bias)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        result, gain, bias = ctx.saved_tensors
        of_gain = None
        if ctx.needs_input_grad[1]:
            rows = _rows(gradient.movedim(1, -1)), _rows(result.movedim(1, -1))
            of_gain = _gain_gradient(*rows, gain, bias)
        return _times(gradient.movedim(1, -1), gain).movedim(-1, 1), of_gain, None


def _rows(tensor: Tensor) -> Tensor:
    """Everything but the last dimension in one."""
    return tensor.reshape(-1, tensor.shape[-1])


def _times(tensor: Tensor, gain: Tensor, out: Tensor | None = None) -> Tensor:
    """The tensor times a gain over the last dimension, in the dtype of the tensor."""
    if tensor.dtype.itemsize >= 4:
        return torch.mul(tensor, gain.to(tensor.dtype), out=out)
    # Near 1 the gain itself has no room in half precision, its distance from 1 has.
    return torch.addcmul(tensor, tensor, (gain - 1).to(tensor.dtype), out=out)


def _scaled(product: Tensor, gain: Tensor, bias: Tensor | None, out: Tensor | None) -> Tensor:
    """Gives g * (product - b) + b, with the bias in `product`; at g = 1 the product to the bit."""
    if bias is None:
        return _times(product, gain, out)
    shift = ((1 - gain) * bias).to(product.dtype)
    if product.dtype.itemsize >= 4:
        return torch.addcmul(shift, product, gain.to(product.dtype), out=out)
    return _times(product, gain, out).add_(shift)


def _gain_gradient(gradient: Tensor, result: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
    """Of g, from the result: g * (product - b) = result - b. Zero where g is, as nothing is left.

    Args:
        gradient: Of the result, (tokens, out).
        result: (tokens, out).
        gain: g, (out,).
        bias: b, (out,).
    """
    total = _summed_product(gradient, result)
    if bias is not None:
        total -= bias.float() * gradient.sum(0, dtype=torch.float32)
    return torch.where(gain == 0, 0.0, total / gain)


def _summed_product(first: Tensor, second: Tensor) -> Tensor:
    """The sums of first * second over the rows, (columns,), in float32 at least."""
    dtype = torch.promote_types(first.dtype, torch.float32)
    on_cpu = first.device.type == "cpu"
    at_once = _NUMBERS_AT_ONCE_ON_CPU if on_cpu else _NUMBERS_AT_ONCE
    count = min(max(1, at_once // max(1, first.shape[1])), len(first))
    ones = torch.ones(count, dtype=dtype, device=first.device)
    total = torch.zeros(first.shape[1], dtype=dtype, device=first.device)
    for start in range(0, len(first), count or 1):
        part = slice(start, start + count)
        product = first[part].to(dtype) * second[part]
        # A product with ones is the faster sum on a CPU; a GPU may round it to fewer digits.
        total += ones[: len(product)] @ product if on_cpu else product.sum(0)
    return total
