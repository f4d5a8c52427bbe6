"""Any network's trained tensors to parameter groups that say which layer each belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Protocol

from torch import Tensor, nn

from surefoot.optim.adapter_layers import Adapter, find_adapters, listed
from surefoot.optim.frozen_weight import frozen_weight
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import TensorKind, as_lora, usual_rms


class Trained(Protocol):
    """One trained tensor and what the optimizer must know about it."""

    @property
    def name(self) -> str:
        """Unique and dotted."""
        ...

    @property
    def parameter(self) -> nn.Parameter:
        """The tensor itself, as the model holds it."""
        ...

    @property
    def kind(self) -> TensorKind:
        """What it is."""
        ...

    @property
    def weight_rms(self) -> float:
        """RMS of the frozen weight of the layer for adapters, else its own at the start."""
        ...

    @property
    def fan_in(self) -> int:
        """Inputs of the layer for adapters, kernel included; 0 outside them."""
        ...

    @property
    def alpha(self) -> float:
        """LoRA's alpha; 1.0 outside adapters."""
        ...


@dataclass(frozen=True)
class _Trained:
    name: str
    parameter: nn.Parameter
    kind: TensorKind
    weight_rms: float
    fan_in: int = 0
    alpha: float = 1.0


def parameter_groups(model: nn.Module) -> list[dict[str, object]]:
    """Parameter groups for `Adafactor(parameter_groups(model), lr=1e-2)`.

    Takes every tensor of the model that is to be trained (`requires_grad`), once, under the first
    of its names, and finds what it is: part of an adapter by the names it bears (our own, PEFT's
    LoRA, DoRA, LoHa and LoKr, those of LyCORIS), otherwise a weight, bias, norm or embedding by the
    layer it is in. Call it once the adapters are there and the weights are loaded, before they are
    sharded.

    alpha: what the rule asks for is the alpha of `alpha / rank`, so that each group gets `scale *
    rank` of the scale in force: rank-stabilised LoRA, `alpha_pattern` and a scale set afterwards
    are right by that. An adapter of another shape than LoRA's gets a `weight_rms` that makes the
    first step change the layer as much as a LoRA's would, see `_as_lora`.

    Zero-initialised weights and biases outside adapters get the `weight_rms` that torch's usual
    initialisation would have given them, 1 / sqrt(3 fan in), and so does a frozen weight of
    zeros, below which an adapter could not learn.

    Returns:
        Groups of one kind and alpha, in an order that depends on the model's structure only. Their
        `params` are pairs of name and tensor, as torch takes them.

    Raises:
        ValueError: Nothing is trained; or says of each tensor that has no place what hinders and
            how to mend it.
    """
    return group_by_kind(read_trained(model))


def read_trained(model: nn.Module) -> list[Trained]:
    """Every tensor of a model that is to be trained, and what it is, as `parameter_groups` knows.

    Raises:
        ValueError: As there.
    """
    named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    if not named:
        raise ValueError(
            "no tensor of this model is to be trained: each has requires_grad=False; unfreeze some "
            "or add an adapter first"
        )
    meta = [name for name, value in named if value.is_meta]
    if meta:
        raise ValueError(
            f"{meta[0]} and {len(meta) - 1} more trained tensors are on the meta device, without "
            "numbers; load the weights first"
        )
    adapters = find_adapters(model)
    inside = {id(tensor) for adapter in adapters for tensor in adapter.tensors()}
    places = [place for place in _places(model) if id(place.parameter) not in inside]
    records = {id(item.parameter): item for item in _records(adapters, places)}
    return [
        _Trained(name, value, record.kind, record.weight_rms, record.fan_in, record.alpha)
        for name, value in named
        for record in (records[id(value)],)
    ]


def group_by_kind(trained: Iterable[Trained]) -> list[dict[str, object]]:
    """Parameter groups of one kind and alpha, with named tensors."""
    groups: list[dict[str, object]] = []
    for (kind, alpha), members in groupby(sorted(trained, key=_group_of), key=_group_of):
        found = list(members)
        groups.append(
            {
                "params": [(item.name, item.parameter) for item in found],
                "kind": kind,
                "alpha": alpha,
                "weight_rms": [item.weight_rms for item in found],
                "fan_in": [item.fan_in for item in found],
            }
        )
    return groups


def parameter_kind(module: nn.Module, leaf: str, parameter: Tensor) -> TensorKind:
    """What a tensor outside adapters is, by the layer that holds it and its name there."""
    if isinstance(module, nn.Embedding):
        return "embedding"
    # diffusers and transformers have norm layers of their own (RMSNorm, T5LayerNorm, ...), with
    # no class in common but the word in their name.
    if "norm" in type(module).__name__.lower():
        return "norm"
    if leaf == "bias" or parameter.ndim < 2:
        return "bias"
    return "weight"


def _group_of(item: Trained) -> tuple[str, float]:
    return item.kind, item.alpha


@dataclass(frozen=True)
class _Place:
    """A trained tensor outside adapters; `fan_in` is 0 where the layer has none."""

    parameter: nn.Parameter
    kind: TensorKind
    fan_in: int


def _places(model: nn.Module) -> Iterator[_Place]:
    seen: set[int] = set()
    for module in model.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                kind = parameter_kind(module, leaf, parameter)
                yield _Place(parameter, kind, fan_in_of(module, parameter, kind))


def fan_in_of(module: nn.Module, parameter: Tensor, kind: TensorKind) -> int:
    """Inputs of the layer that holds a weight or bias, kernel included; 0 for what has none."""
    match kind:
        case "weight":
            return math.prod(parameter.shape[1:])
        case "bias":
            weight: object = getattr(module, "weight", None)
            return math.prod(weight.shape[1:]) if isinstance(weight, Tensor) else 0
        case _:
            return 0


def _records(adapters: Sequence[Adapter], places: Sequence[_Place]) -> Iterator[_Trained]:
    """What each tensor is, unnamed yet; everything is measured in one go."""
    problems: list[str] = []
    fan_ins: list[int] = []

    def frozen_weights() -> Iterator[Tensor]:
        for adapter in adapters:
            try:
                weight = frozen_weight(adapter.layer, adapter.weight_name)
            except ValueError as error:
                problems.append(f"{adapter.path}: the layer it changes {error}")
                continue
            shape = weight.shape
            fan_ins.append(shape[0] if adapter.transposed else math.prod(shape[1:]))
            yield weight

    tensors = [place.parameter for place in places]
    tensors += [factor for adapter in adapters for factor in adapter.factors()]
    measured = root_mean_squares(chain(frozen_weights(), tensors))
    if problems:
        raise ValueError(listed(problems))
    own = dict(zip(map(id, tensors), measured[len(adapters) :], strict=True))
    for place in places:
        rms = own[id(place.parameter)] or usual_rms(place.fan_in)
        yield _Trained("", place.parameter, place.kind, rms)
    for adapter, weight_rms, fan_in in zip(adapters, measured, fan_ins, strict=False):
        yield from _adapter_records(adapter, weight_rms or usual_rms(fan_in), fan_in, own)


def _adapter_records(
    adapter: Adapter, weight_rms: float, fan_in: int, own: Mapping[int, float]
) -> Iterator[_Trained]:
    zeros = [factor for factor in adapter.factors() if own[id(factor)] == 0]
    zero = zeros[0] if len(zeros) == 1 else adapter.usual_zero
    # The product of scale and rank is rounded, so that alpha / rank * rank is alpha again.
    alpha = float(f"{abs(adapter.scale) * adapter.rank:.12g}")
    share = _as_lora(adapter, zero, fan_in, own)
    yield _Trained("", zero, "lora_up", weight_rms * share, fan_in, alpha)
    for factor in adapter.factors():
        if factor is not zero:
            yield _Trained("", factor, "lora_down", weight_rms, fan_in, alpha)
    for magnitude in adapter.magnitudes:
        yield _Trained("", magnitude, "magnitude", weight_rms, fan_in, alpha)
    for bias in adapter.biases:
        yield _Trained("", bias, "bias", usual_rms(fan_in))


def _as_lora(adapter: Adapter, zero: nn.Parameter, fan_in: int, own: Mapping[int, float]) -> float:
    """See `scaling.as_lora`. For LoRA itself it is 1 whatever `lora_down` has become."""
    if adapter.is_plain_lora and zero is adapter.usual_zero:
        return 1.0
    sides = [
        [None if factor is zero else own[id(factor)] for factor in side] for side in adapter.sides
    ]
    try:
        return as_lora(sides, adapter.rank, fan_in)
    except ValueError as error:
        raise ValueError(f"{adapter.path}: {error}") from None
