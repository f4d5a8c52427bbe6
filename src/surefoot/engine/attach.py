"""The tuning of a plan, put onto a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict, assert_never

import torch
from torch import nn

from surefoot.config.tuning import (
    AnyAdapterConfig,
    DoraConfig,
    FullConfig,
    LohaConfig,
    LokrConfig,
    LoraConfig,
    WeightsDtype,
)
from surefoot.data.randomness import torch_generator
from surefoot.families.family import Family
from surefoot.plan import Plan
from surefoot.tuning import full
from surefoot.tuning.dora import DoraLayer
from surefoot.tuning.layers import AdaptableLayer, AdapterLayer
from surefoot.tuning.loha import LohaLayer
from surefoot.tuning.lokr import LokrLayer
from surefoot.tuning.lora import LoraLayer
from surefoot.tuning.quantised import quantise
from surefoot.tuning.replacement import MakeLayer, replace_targets
from surefoot.tuning.targets import Target
from surefoot.tuning.trainable import Tuned

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What a forward pass computes in, by `train.precision`; in float32 otherwise."""
_DTYPES: dict[WeightsDtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class _Shared(TypedDict):
    """What every adapter layer takes."""

    rank: int
    alpha: float
    dropout: float
    generator: torch.Generator


def attach(plan: Plan, family: Family) -> Tuned:
    """Makes the parts trainable as the plan says; adapters start the same from the same seed."""
    tuning = plan.config.tuning
    parts: dict[str, nn.Module] = {name: family.parts[name] for name in tuning.parts}
    if isinstance(tuning, FullConfig):
        tuned = full.attach(parts, _DTYPES[tuning.weights])
    else:
        tuned = _adapters(plan, tuning, parts)
    for part in parts.values():
        part.train()
    return tuned


def _freeze(tuning: AnyAdapterConfig, precision: str, parts: dict[str, nn.Module]) -> None:
    """Puts the frozen weights into what they are to be kept in."""
    if tuning.base_weights == "fp32":
        return
    for part in parts.values():
        if tuning.base_weights == "bf16":
            nn.Module.to(part, torch.bfloat16)
        else:
            quantise(part, tuning.base_weights, HALF.get(precision, torch.float32))


def _adapters(plan: Plan, tuning: AnyAdapterConfig, parts: dict[str, nn.Module]) -> Tuned:
    _freeze(tuning, plan.config.train.precision, parts)
    given = {
        f"{part}.{path}": target
        for part, layers in plan.targets.items()
        for path, target in layers.items()
    }
    paths = {part: tuple(layers) for part, layers in plan.targets.items()}
    make = _maker(tuning, given, torch_generator(plan.config.seed, "adapter"))
    return replace_targets(parts, paths, make)


def _maker(
    tuning: AnyAdapterConfig, given: Mapping[str, Target], generator: torch.Generator
) -> MakeLayer:
    """What builds the layer of a path; `given` has every path that will be asked for."""

    def make(path: str, base: AdaptableLayer) -> AdapterLayer:
        shared = _Shared(
            rank=given[path].rank,
            alpha=given[path].alpha,
            dropout=tuning.dropout,
            generator=generator,
        )
        match tuning:
            case LoraConfig():
                return LoraLayer(path, base, initialisation=tuning.initialisation, **shared)
            case DoraConfig():
                return DoraLayer(
                    path,
                    base,
                    axis=tuning.norm_axis,
                    initialisation=tuning.initialisation,
                    **shared,
                )
            case LohaConfig():
                return LohaLayer(path, base, **shared)
            case LokrConfig():
                return LokrLayer(
                    path,
                    base,
                    factor=tuning.factor,
                    decompose_both=tuning.decompose_both,
                    **shared,
                )
            case _:
                assert_never(tuning)

    return make
