"""How far each trained tensor of any model moves by a step of any optimizer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import bfloat16, nn
from torch.optim import Optimizer

from surefoot.optim.adapter_layers import Adapter, find_adapters
from surefoot.optim.grouping import parameter_groups
from surefoot.optim.lost_steps import share_lost
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import TensorKind, reach, step_scale
from surefoot.optim.schedules import relative_rate


@dataclass(frozen=True)
class ReviewedStep:
    """One trained tensor.

    Attributes:
        rms: Its own root mean square, as it is now.
        step: Step per element at the highest learning rate that the optimizer tells of, of a
            gradient that stays the same.
        layer_rms: RMS of the frozen weight of its layer, of an adapter's tensors; 0 of others.
    """

    kind: TensorKind
    tensor: nn.Parameter
    rms: float
    step: float
    layer_rms: float

    @property
    def lost(self) -> float:
        """Share of its numbers whose step is rounded away."""
        return share_lost(self.step, self.rms) if self.tensor.dtype == bfloat16 else 0.0


@dataclass(frozen=True)
class ReviewRow:
    """One kind of tensor.

    Attributes:
        rms: Median root mean square of its tensors.
        step: Median step per element at the highest learning rate that the optimizer tells of, of
            a gradient that stays the same.
        lost: Share of the numbers whose step is rounded away, largest over the tensors.
        share: Median step as a share of the tensor itself, of `lora_up` of its layer; NaN where
            the tensors are zero or their layers unknown.
    """

    kind: str
    tensors: int
    numbers: int
    rms: float
    step: float
    lost: float
    share: float


@dataclass(frozen=True)
class DoraPace:
    """By what share a step changes a DoRA's layer through `lora_up`, and its magnitude."""

    up: float
    magnitude: float


@dataclass(frozen=True)
class ReviewedSteps:
    """All trained tensors that the optimizer holds, and the adapters among them."""

    steps: tuple[ReviewedStep, ...]
    adapters: tuple[Adapter, ...]

    def rows(self) -> tuple[ReviewRow, ...]:
        """One for each kind."""
        changes = {id(tensor): change for _, tensor, change in self._changes()}
        return tuple(
            _row([item for item in self.steps if item.kind == kind], changes)
            for kind in dict.fromkeys(item.kind for item in self.steps)
        )

    def dora_paces(self) -> list[DoraPace]:
        """Of each DoRA whose layer both of its parts can change."""
        by_tensor = {id(item.tensor): item for item in self.steps}
        found: list[DoraPace] = []
        for adapter, _zero, change in self._changes():
            held = [by_tensor[id(item)] for item in adapter.magnitudes if id(item) in by_tensor]
            found += [DoraPace(change, item.step / item.rms) for item in held if item.rms]
        return found

    def _changes(self) -> Iterator[tuple[Adapter, nn.Parameter, float]]:
        """By what share a step of its `lora_up` changes each adapter's layer."""
        by_tensor = {id(item.tensor): item for item in self.steps}
        for adapter in self.adapters:
            ups = [item for item in map(by_tensor.get, map(id, adapter.factors())) if item]
            up = next((item for item in ups if item.kind == "lora_up"), None)
            if up is None or not up.layer_rms or len(ups) < len(adapter.factors()):
                continue
            sides = [
                [None if factor is up.tensor else by_tensor[id(factor)].rms for factor in side]
                for side in adapter.sides
            ]
            change = abs(adapter.scale) * up.step * reach(sides, adapter.rank) / up.layer_rms
            yield adapter, up.tensor, change


def reviewed_steps(model: nn.Module, optimizer: Optimizer) -> ReviewedSteps:
    """What one step does.

    Raises:
        ValueError: If nothing is trained, or an adapter is of no known kind.
    """
    adapters = tuple(find_adapters(model))
    layers = _layer_sizes(adapters, groups := parameter_groups(model))
    return ReviewedSteps(tuple(_steps(groups, layers, optimizer)), adapters)


def is_adafactor(optimizer: Optimizer) -> bool:
    """Whether it is an Adafactor, by whatever library."""
    return type(optimizer).__name__ == "Adafactor"


def finds_rate(optimizer: Optimizer) -> bool:
    """Whether it is a Prodigy or D-Adaptation, which keep the rate they found as `d`."""
    # torch's Adafactor calls its threshold of clipping so.
    return not is_adafactor(optimizer) and any("d" in group for group in optimizer.param_groups)


def _layer_sizes(
    adapters: Sequence[Adapter], groups: Sequence[Mapping[str, Any]]
) -> dict[int, float]:
    """RMS of the frozen weight of each adapter's layer, by the identity of the adapter's tensors.

    What a group says of `lora_up` is what the weight rule takes it to be; `lora_down` has its own.
    """
    told = {
        id(tensor): rms
        for group in groups
        if group["kind"] in ("lora_down", "magnitude")
        for (_name, tensor), rms in zip(group["params"], group["weight_rms"], strict=True)
    }
    sizes: dict[int, float] = {}
    for adapter in adapters:
        known = [told[id(tensor)] for tensor in adapter.tensors() if id(tensor) in told]
        sizes |= dict.fromkeys(map(id, adapter.tensors()), known[0] if known else 0.0)
    return sizes


def _steps(
    groups: Sequence[Mapping[str, Any]], layers: Mapping[int, float], optimizer: Optimizer
) -> Iterator[ReviewedStep]:
    held = {id(item): group for group in optimizer.param_groups for item in group["params"]}
    for group in groups:
        tensors: list[nn.Parameter] = [tensor for _name, tensor in group["params"]]
        sizes = root_mean_squares(tensors)
        for tensor, rms, weight_rms, fan_in in zip(
            tensors, sizes, group["weight_rms"], group["fan_in"], strict=True
        ):
            options = held.get(id(tensor))
            if options is None:
                continue
            step = _rate(options)
            if finds_rate(optimizer):
                step *= float(options["d"])
            if is_adafactor(optimizer):
                scale = step_scale(
                    group["kind"],
                    options.get("scale_parameter", True),  # torch's own always scales
                    weight_rms=weight_rms,
                    fan_in=fan_in,
                    alpha=group["alpha"],
                    eps2=_eps2(options),
                )
                step *= scale.at(rms)
            yield ReviewedStep(group["kind"], tensor, rms, step, layers.get(id(tensor), 0.0))


def _eps2(options: Mapping[str, Any]) -> float:
    """Surefoot names it; transformers and torch give a pair."""
    return float(options["eps2"] if "eps2" in options else options["eps"][1])


def _rate(options: Mapping[str, Any]) -> float:
    """The highest that a group tells of: a scheduler with a warm-up has set `lr` to zero by now."""
    if options.get("relative_step"):
        return relative_rate(1, warmup_init=bool(options.get("warmup_init")))
    rates = [options.get(key) or 0.0 for key in ("lr", "initial_lr", "max_lr")]
    return max(float(rate) for rate in rates)


def _row(members: Sequence[ReviewedStep], changes: Mapping[int, float]) -> ReviewRow:
    shares = [share for item in members if not math.isnan(share := _share(item, changes))]
    return ReviewRow(
        kind=members[0].kind,
        tensors=len(members),
        numbers=sum(item.tensor.numel() for item in members),
        rms=statistics.median(item.rms for item in members),
        step=statistics.median(item.step for item in members),
        lost=max(item.lost for item in members),
        share=statistics.median(shares) if shares else math.nan,
    )


def _share(item: ReviewedStep, changes: Mapping[int, float]) -> float:
    if item.kind == "lora_up":
        return changes.get(id(item.tensor), math.nan)
    return item.step / item.rms if item.rms else math.nan
