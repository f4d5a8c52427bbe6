"""Which trained tensors a gradient reaches, and how many of their stored numbers a step changes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor

from surefoot.tuning.trainable import Trainable

_SAMPLE = 65536  # numbers of each tensor
_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@contextmanager
def awaiting_gradients(trainables: Sequence[Trainable]) -> Iterator[dict[str, Trainable]]:
    """Within it, each tensor that a gradient reaches leaves what is yielded; the rest is by name.

    By hooks, because an optimizer that steps in the backward pass frees the gradients there.
    """
    awaited = {item.name: item for item in trainables}
    names = {id(item.parameter): item.name for item in trainables}
    hooks = [
        item.parameter.register_post_accumulate_grad_hook(
            lambda parameter: awaited.pop(names[id(parameter)], None) and None
        )
        for item in trainables
    ]
    try:
        yield awaited
    finally:
        for hook in hooks:
            hook.remove()


@final
class StoredNumbers:
    """Compares the numbers as they are stored: in bfloat16 a small step changes none of them."""

    def __init__(self, trainables: Sequence[Trainable]) -> None:
        self._trainables = trainables
        self._before: list[Tensor] = []
        self._shares: list[Tensor] = []

    def before_step(self) -> None:
        """Takes a sample of each tensor."""
        self._before = [_sample(item.parameter).clone() for item in self._trainables]

    def after_step(self) -> None:
        """Compares; the answers stay on the device."""
        shares = [
            (_sample(item.parameter) != before).float().mean()
            for item, before in zip(self._trainables, self._before, strict=True)
        ]
        self._shares.append(torch.stack(shares))
        self._before = []

    def changed(self) -> dict[str, tuple[str, float]]:
        """By kind the dtype, and the share that a step changes.

        The median over the steps of the mean over the tensors; without the first step, in which
        `lora_down` has no gradient yet.
        """
        steps = torch.stack(self._shares[1:] or self._shares).cpu()
        found: dict[str, tuple[str, float]] = {}
        for kind in dict.fromkeys(item.kind for item in self._trainables):
            places = [at for at, item in enumerate(self._trainables) if item.kind == kind]
            dtype = self._trainables[places[0]].parameter.dtype
            share = statistics.median(steps[:, places].mean(dim=1).tolist())
            found[kind] = (_NAMES.get(dtype, str(dtype)), share)
        return found


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLE)]
