"""Adapters put into the frozen weights, and taken out again to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from surefoot.tuning.layers import AdapterLayer, TuningError
from surefoot.tuning.trainable import Tuned

_FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@contextmanager
def merged(tuned: Tuned) -> Iterator[None]:
    """Within it the frozen layers hold the adapters, and each is called alone.

    The merged weight is computed in float32 and rounded once, to the dtype of the frozen one, which
    is kept meanwhile and put back: what comes after is what was before, to the bit.

    Args:
        tuned: What `attach` of a tuning gave.

    Raises:
        TuningError: Names the layers whose weights cannot be written, such as quantised ones;
            nothing is merged then.
    """
    layers = [layer for layer in tuned.layers if not layer.merged]
    problems = [reason for layer in layers if (reason := _unmergeable(layer))]
    if problems:
        raise TuningError("\n".join(problems))
    before: list[tuple[AdapterLayer, Tensor]] = []
    try:
        for layer in layers:
            before.append((layer, layer.base.weight.data))
            # In place of the tensor, not into it: others may hold the frozen one.
            layer.base.weight.data = layer.merged_weight().to(layer.base.weight.dtype)
            layer.merged = True
        yield
    finally:
        for layer, weight in before:
            layer.base.weight.data = weight
            layer.merged = False


def _unmergeable(layer: AdapterLayer) -> str:
    """Why an adapter cannot go into its layer; empty if it can."""
    weight = layer.base.weight
    plain = type(weight) is nn.Parameter and weight.dtype in _FLOATING
    if plain and not weight.is_meta:
        return ""
    return (
        f"{layer.path} holds {type(weight).__name__} weights of {weight.dtype} on {weight.device}, "
        "into which no adapter can be merged; load the model unquantised."
    )
