"""The numbers of a frozen layer's weight, whatever they are stored as."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn

_PLAIN = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_BNB_INT8 = 127.0
"""bitsandbytes scales each row so that its largest number becomes this."""


def frozen_weight(layer: nn.Module, attribute: str) -> Tensor:
    """The weight as floating-point numbers; a quantised one is a full-size copy.

    Knows bitsandbytes' 4 and 8 bit and torchao's tensors. None of these packages is imported
    unless the layer already holds a tensor of its.

    Args:
        layer: The module that holds it.
        attribute: Its name there.

    Raises:
        ValueError: What hinders, as the end of a sentence that began with the layer.
    """
    weight: Any = getattr(layer, attribute, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"is a {type(layer).__name__} without a tensor `{attribute}`")
    if weight.is_meta:
        raise ValueError("has its weight on the meta device; load the weights first")
    held: Any = weight
    if type(weight).__module__.startswith("torchao."):
        return held.dequantize()
    if type(weight).__name__ == "Params4bit" and held.quant_state is not None:
        functional: Any = import_module("bitsandbytes.functional")
        return functional.dequantize_4bit(weight.data, held.quant_state)
    if type(weight).__name__ == "Int8Params" and weight.dtype == torch.int8:
        scales = held.SCB if held.SCB is not None else cast(Any, layer).state.SCB
        return weight.data * (scales.to(weight.device) / _BNB_INT8)[:, None]
    if weight.dtype not in _PLAIN:
        raise ValueError(
            f"holds {weight.dtype} numbers, whose meaning is not known here; load it unquantised "
            "or with bitsandbytes"
        )
    return weight
