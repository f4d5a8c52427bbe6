"""The effective-step sheet: what the optimizer will really do to each kind of tensor. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.run import RunConfig
from surefoot.config.schedule import (
    ConstantConfig,
    CosineConfig,
    CosineRestartsConfig,
    InverseSqrtConfig,
    LinearConfig,
    PolynomialConfig,
    RexConfig,
)
from surefoot.config.tuning import (
    AnyAdapterConfig,
    DoraConfig,
    FullConfig,
    LohaConfig,
    LokrConfig,
    LoraConfig,
    TuningConfig,
    weights_dtype,
)
from surefoot.families.facts import FAMILIES
from surefoot.finding import StepRow
from surefoot.formats.headers import TensorHeader
from surefoot.optim.facts import facts_of
from surefoot.optim.lost_steps import share_lost
from surefoot.optim.scaling import StepScale, TensorKind, lora_up_factor, step_scale, usual_rms
from surefoot.optim.schedules import Schedule, relative_rate, steps_of_share
from surefoot.optim.steady import steady_steps
from surefoot.survey import ModelSurvey
from surefoot.tuning.factor_shapes import (
    Factors,
    loha_factors,
    lokr_factors,
    lora_factors,
)
from surefoot.tuning.targets import Target


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor that will be trained.

    Attributes:
        rms: Its own root mean square at the start.
        weight_rms: That of the weight of its layer; `layer_in` is the length of the weight's rows.
        shape: As the optimizer sees it.
        part: What it belongs to, such as `unet`.
        reach: What its step changes the weight by before alpha / rank; of `lora_up` only.
        as_lora: By what the weight rule takes `weight_rms` to be larger; of `lora_up` only.
    """

    kind: TensorKind
    numbers: int
    rms: float
    weight_rms: float
    alpha: float
    rank: int
    layer_in: int
    shape: tuple[int, ...] = ()
    part: str = ""
    reach: float = 0.0
    as_lora: float = 1.0


ORDER: tuple[TensorKind, ...] = (
    "lora_up", "lora_down", "magnitude", "weight", "bias", "norm", "embedding",
)  # fmt: skip


def trained_tensors(
    tuning: TuningConfig,
    model: ModelSurvey,
    targets: Mapping[str, Mapping[str, Target]],
) -> list[PlannedTensor]:
    """Every tensor that the tuning will train, with its size and its RMS at the start."""
    if isinstance(tuning, FullConfig):
        return list(_whole_parts(tuning, model))
    tensors: list[PlannedTensor] = []
    for part, layers in targets.items():
        for name, target in layers.items():
            tensors += _adapter(tuning, model, part, name, target)
    return tensors


def _whole_parts(tuning: FullConfig, model: ModelSurvey) -> Iterable[PlannedTensor]:
    for part in tuning.parts:
        if part not in model.parts:
            continue
        for name, header in model.parts[part].headers.items():
            if header.dtype.startswith(("I", "U", "BOOL")):  # position ids are no weights
                continue
            rms = model.parts[part].rms(name)
            width = math.prod(header.shape[1:])
            kind = _kind(name, header.shape)
            usual = rms or usual_rms(_fan_in(name, kind, model.parts[part].headers))
            yield PlannedTensor(kind, header.numbers, rms, usual, 1.0, 0, width, header.shape, part)


def _fan_in(name: str, kind: TensorKind, headers: Mapping[str, TensorHeader]) -> int:
    """Inputs of the layer that a weight or bias belongs to, 0 for anything else."""
    weight = name.removesuffix("bias") + "weight" if kind == "bias" else name
    known = kind in ("weight", "bias") and weight in headers
    return math.prod(headers[weight].shape[1:]) if known else 0


def _kind(name: str, shape: tuple[int, ...]) -> TensorKind:
    if "embedding.weight" in name:
        return "embedding"
    if len(shape) >= 2:
        return "weight"
    return "norm" if "norm" in name else "bias"


def planned_factors(
    tuning: AnyAdapterConfig, shape: tuple[int, ...], target: Target, weight_rms: float
) -> Factors:
    """What the adapter of a layer consists of."""
    rank = target.rank
    match tuning:
        case LoraConfig() | DoraConfig():
            return lora_factors(
                shape,
                rank,
                tuning.initialisation,
                weight_rms=weight_rms,
                scale=target.alpha / rank,
            )
        case LohaConfig():
            return loha_factors(shape, rank)
        case LokrConfig():
            return lokr_factors(shape, rank, tuning.factor, decompose_both=tuning.decompose_both)
        case _:
            assert_never(tuning)


def _adapter(
    tuning: AnyAdapterConfig, model: ModelSurvey, part: str, name: str, target: Target
) -> list[PlannedTensor]:
    rank, alpha = target.rank, target.alpha
    header = model.parts[part].headers[f"{name}.weight"]
    out, width = header.shape[0], math.prod(header.shape[1:])
    weight_rms = model.parts[part].rms(f"{name}.weight") or usual_rms(width)
    factors = planned_factors(tuning, header.shape, target, weight_rms)
    tensors = [
        PlannedTensor(
            "lora_down" if factor.rms else "lora_up",
            math.prod(factor.shape),
            factor.rms or factor.taken_off,
            weight_rms,
            float(rank) if factors.is_whole else alpha,
            rank,
            width,
            factor.shape,
            part,
            factors.reach,
            factors.as_lora,
        )
        for factor in factors.all
    ]
    if isinstance(tuning, DoraConfig):
        # The norms of W along an axis: their mean square is that of W times what each is over.
        count = out if tuning.norm_axis == "output" else header.shape[1]
        rms = weight_rms * math.sqrt(header.numbers / count)
        tensors.append(
            PlannedTensor("magnitude", count, rms, weight_rms, alpha, rank, width, (count,), part)
        )
    return tensors


def effective_steps(
    tensors: list[PlannedTensor], config: RunConfig, lr: float
) -> tuple[StepRow, ...]:
    """One row for each kind of tensor; its steps are those of the tensor with the median step.

    Where parts have learning rates of their own, one for each kind in each part.
    """
    apart = config.optimizer.part_lr
    rows: list[StepRow] = []
    for kind in ORDER:
        for part in config.tuning.parts if apart else ("",):
            members = [
                tensor for tensor in tensors if tensor.kind == kind and part in ("", tensor.part)
            ]
            if members:
                rate = apart.get(part, lr) if part else lr
                rows.append(_row(kind, part, members, config, _steps(config, rate, kind)))
    return tuple(rows)


def _row(
    kind: TensorKind,
    part: str,
    members: list[PlannedTensor],
    config: RunConfig,
    rates: list[float],
) -> StepRow:
    middle = _middle(members, config)
    scale = _scale(middle, config)
    total = _travel(scale, middle.rms, rates)
    return StepRow(
        kind=kind,
        tensors=len(members),
        numbers=sum(tensor.numbers for tensor in members),
        rms=_median([tensor.rms for tensor in members]),
        weight_rms=_taken_rms(middle),
        fan_in=middle.layer_in,
        first=scale.at(middle.rms) * next((rate for rate in rates if rate), 0.0),
        total=total,
        layer_change=layer_change(middle, total),
        known=not facts_of(config.optimizer).finds_rate,
        alpha=middle.alpha,
        dtype=weights_dtype(config.tuning),
        later=_later(scale.at(middle.rms), rates),
        full_lr=_full_rate(middle, scale.at(middle.rms) * max(rates, default=0.0)),
        part=part,
        lost=_lost(config, middle.rms, [scale.at(middle.rms) * rate for rate in rates]),
    )


def _later(factor: float, rates: Sequence[float]) -> tuple[float, float, float]:
    """Steps at a tenth, half and the end of the run."""
    tenth, half, end = (max(0, math.ceil(share * len(rates)) - 1) for share in (0.1, 0.5, 1.0))
    return factor * rates[tenth], factor * rates[half], factor * rates[end]


def _full_rate(tensor: PlannedTensor, step: float) -> float:
    """The RMS of a step's change of the layer's weight, which is Adam's rate for a whole weight."""
    match tensor.kind:
        case "lora_up":
            return tensor.alpha / tensor.rank * step * tensor.reach
        case "lora_down":
            return 0.0  # it meets a lora_up of zeros
        case "magnitude":
            return step / tensor.rms * tensor.weight_rms if tensor.rms else 0.0
        case "weight" | "bias" | "norm" | "embedding":
            return step


def _rounds_to_nearest(config: RunConfig) -> bool:
    """Whether weights are in bfloat16 and lose the steps that are below its digits."""
    optimizer = config.optimizer
    keeps = isinstance(optimizer, AdafactorConfig) and optimizer.rounding != "nearest"
    return weights_dtype(config.tuning) == "bf16" and not keeps


def _lost(config: RunConfig, rms: float, steps: list[float]) -> float:
    """The share of a tensor's steps that is lost, over its numbers and the run."""
    taken = [step for step in steps if step]
    if not taken or not _rounds_to_nearest(config):
        return 0.0
    # Of a rate that is found in the run, the customary one is a fair guess.
    found = facts_of(config.optimizer).finds_rate
    factor = FAMILIES[config.model.family].full_lr if found else 1.0
    return math.fsum(share_lost(factor * step, rms) for step in taken) / len(taken)


def _middle(members: list[PlannedTensor], config: RunConfig) -> PlannedTensor:
    """The tensor with the median step; of equal ones, that with the median step by the weight."""

    def size(tensor: PlannedTensor) -> tuple[float, float]:
        by_weight = lora_up_factor(tensor.layer_in) * tensor.weight_rms * tensor.as_lora
        return _scale(tensor, config).at(tensor.rms), by_weight

    return sorted(members, key=size)[len(members) // 2]


def _taken_rms(tensor: PlannedTensor) -> float:
    """What the weight rule takes for the RMS of the layer."""
    return tensor.weight_rms * (tensor.as_lora if tensor.kind == "lora_up" else 1.0)


def _scale(tensor: PlannedTensor, config: RunConfig) -> StepScale:
    optimizer = config.optimizer
    if not isinstance(optimizer, AdafactorConfig):
        return StepScale(slope=0.0, floor=1.0)  # only Adafactor scales by a tensor's size
    return step_scale(
        tensor.kind,
        optimizer.scale_parameter,
        weight_rms=_taken_rms(tensor),
        fan_in=tensor.layer_in,
        alpha=tensor.alpha,
        eps2=optimizer.eps2,
    )


def _steps(config: RunConfig, lr: float, kind: TensorKind) -> list[float]:
    """The step of a steady gradient at every step, before Adafactor's scaling."""
    shares = steady_steps(config.optimizer, kind)
    return [rate * share for rate, share in zip(scheduled_rates(config, lr), shares, strict=False)]


def scheduled_rates(config: RunConfig, lr: float) -> list[float]:
    """The learning rate at every step, before what an optimizer makes of it."""
    steps, optimizer = config.train.steps, config.optimizer
    if isinstance(optimizer, AdafactorConfig) and optimizer.relative_step:
        return [
            relative_rate(step, warmup_init=optimizer.warmup_init) for step in range(1, steps + 1)
        ]
    schedule = planned_schedule(config)
    return [lr * schedule.factor(step) for step in range(steps)]


def planned_schedule(config: RunConfig) -> Schedule:
    """The schedule in steps: no share of the run and no `auto` left."""
    section, steps = config.schedule, config.train.steps
    warmup = section.warmup_steps or steps_of_share(section.warmup_fraction, steps)
    match section:
        case ConstantConfig():
            return Schedule(section.kind, steps, warmup)
        case LinearConfig() | CosineConfig() | RexConfig():
            return Schedule(section.kind, steps, warmup, section.end_factor)
        case PolynomialConfig():
            return Schedule(section.kind, steps, warmup, section.end_factor, power=section.power)
        case CosineRestartsConfig():
            return Schedule(
                section.kind,
                steps,
                warmup,
                section.end_factor,
                cycles=section.cycles,
                cycle_multiplier=section.cycle_multiplier,
            )
        case InverseSqrtConfig():
            automatic = warmup or steps_of_share(0.1, steps)
            timescale = automatic if section.timescale == "auto" else section.timescale
            return Schedule(section.kind, steps, warmup, timescale=timescale)
        case _:
            assert_never(section)


def _travel(scale: StepScale, rms: float, rates: list[float]) -> float:
    """How far one number gets if every step goes the same way.

    The tensor's RMS grows on the way where it goes far, and with it the step; the square root of
    the sum of squares stands in for it, since start and travel point in unrelated directions.
    """
    travelled = 0.0
    for rate in rates:
        travelled += rate * scale.at(math.hypot(rms, travelled))
        if travelled > 1e6:
            break
    return travelled


def layer_change(tensor: PlannedTensor, total: float) -> float:
    """The largest relative change of the layer's weight by this tensor alone."""
    match tensor.kind:
        case "lora_up":
            update = tensor.alpha / tensor.rank * total * tensor.reach
            return update / tensor.weight_rms if tensor.weight_rms else 0.0
        case "lora_down" | "magnitude" | "weight" | "bias" | "norm" | "embedding":
            return total / tensor.rms if tensor.rms else 0.0


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
