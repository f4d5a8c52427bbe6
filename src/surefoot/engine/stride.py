"""How fast the trained tensors move, measured on a sample of each and fetched together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from surefoot.engine.watch_verdict import Stride
from surefoot.optim.scaling import usual_rms
from surefoot.sheet import PlannedTensor, layer_change
from surefoot.tuning.trainable import Trainable

_SAMPLE = 4096


@final
class Strides:
    """Compares the trained tensors with how they were before a step and before the run."""

    def __init__(self, trainables: Sequence[Trainable]) -> None:
        """Takes the tensors as they are now for those of the start."""
        self._trainables = trainables
        self._start = [_sample(item.parameter) for item in trainables]
        self._before: list[Tensor] = []

    def before_step(self) -> None:
        """To be called before a step that is to be measured."""
        self._before = [_sample(item.parameter) for item in self._trainables]

    @torch.no_grad()
    def read(self) -> dict[str, Stride]:
        """By kind the median over its tensors, after the step; one transfer from the device."""
        now = [_sample(item.parameter) for item in self._trainables]
        rows = [
            torch.stack([rms(new - before), rms(new - start), rms(start)])
            for new, before, start in zip(now, self._before, self._start, strict=True)
        ]
        self._before = []
        by_kind: dict[str, list[Stride]] = {}
        for item, (step, moved, own) in zip(
            self._trainables, torch.stack(rows).tolist(), strict=True
        ):
            if item.kind == "lora_up" or own:
                planned = _planned(item, own)
                stride = Stride(layer_change(planned, step), layer_change(planned, moved))
                by_kind.setdefault(item.kind, []).append(stride)
        return {kind: _median(strides) for kind, strides in by_kind.items()}


def rms(values: Tensor) -> Tensor:
    """Root mean square as a scalar on the device."""
    return values.norm() / math.sqrt(max(1, values.numel()))


def _planned(item: Trainable, own: float) -> PlannedTensor:
    return PlannedTensor(
        kind=item.kind,
        numbers=item.parameter.numel(),
        rms=own,
        weight_rms=item.weight_rms,
        alpha=item.alpha,
        rank=max(1, item.rank),
        layer_in=max(1, item.fan_in),
        # A LoRA's; for other adapters `weight_rms` is such that this holds for them too.
        reach=math.sqrt(max(1, item.rank)) * usual_rms(item.fan_in),
    )


def _median(strides: Sequence[Stride]) -> Stride:
    return Stride(
        statistics.median(stride.per_step for stride in strides),
        statistics.median(stride.since_start for stride in strides),
    )


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLE)].to(torch.float32, copy=True)
