"""An optimizer section and the trained tensors to an optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import assert_never, cast

from torch.optim import AdamW, Optimizer

from surefoot.config.optimizer import AdafactorConfig, AdamWConfig, OptimizerConfig
from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    AdanConfig,
    CameConfig,
    DAdaptationConfig,
    LionConfig,
    MuonConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
    ProdigyPlusConfig,
    ScheduleFreeAdamWConfig,
    SoapConfig,
    StableAdamWConfig,
)
from surefoot.config.tuning import Part
from surefoot.finding import Finding, Refused
from surefoot.optim import external
from surefoot.optim.adafactor import Adafactor
from surefoot.optim.grouping import group_by_kind
from surefoot.tuning.trainable import Trainable

Groups = list[external.Group]


def build_optimizer(
    config: OptimizerConfig, lr: float, trainables: Sequence[Trainable], seed: int = 0
) -> Optimizer:
    """The optimizer over exactly these tensors, in groups of one kind.

    Each group says its own learning rate at its highest as `initial_lr`, torch's word for it, and
    its `part` where parts have rates of their own.

    Args:
        config: Its section.
        lr: The learning rate at its highest, of parts without one of their own.
        trainables: The tensors.
        seed: Of stochastic rounding.

    Raises:
        Refused: If the class of `pytorch_optimizer` does not take its arguments.
    """
    grouped = group_by_kind if isinstance(config, AdafactorConfig) else _by_kind
    if config.part_lr:
        groups = [
            {**group, "part": part, "lr": config.part_lr.get(part, lr)}
            for part, members in _by_part(trainables).items()
            for group in grouped(members)
        ]
    else:
        groups = [{**group, "lr": lr} for group in grouped(trainables)]
    optimizer = _built(config, lr, groups, seed)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def _built(config: OptimizerConfig, lr: float, groups: Groups, seed: int) -> Optimizer:
    match config:
        case AdafactorConfig():
            return _adafactor(config, lr, groups, seed)
        case AdamWConfig():
            return AdamW(
                groups,
                lr=lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case AdamW8bitConfig():
            return external.adamw_8bit(
                groups,
                lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                min_8bit_size=config.min_8bit_size,
            )
        case ProdigyPlusConfig():
            return external.prodigy_plus(groups, lr, _prodigy_plus(config))
        case NamedOptimizerConfig():
            try:
                return external.named(config.name, groups, lr, config.arguments)
            except external.BadArgumentsError as error:
                values = {"name": config.name, "reason": str(error)}
                finding = Finding("SF117", "error", "optimizer.arguments", dict(values))
                raise Refused([finding]) from None
        case _:
            name, options = _library_class(config)
            return external.named(name, groups, lr, options)


def _by_part(trainables: Sequence[Trainable]) -> dict[Part, list[Trainable]]:
    """In the order of the model."""
    parts: dict[Part, list[Trainable]] = {}
    for item in trainables:
        parts.setdefault(cast(Part, item.name.partition(".")[0]), []).append(item)
    return parts


def _by_kind(trainables: Sequence[Trainable]) -> Groups:
    # Nothing else: a group's `alpha` means something of its own to some classes.
    ordered = sorted(trainables, key=lambda item: item.kind)
    return [
        {"params": [item.parameter for item in members], "kind": kind}
        for kind, members in groupby(ordered, key=lambda item: item.kind)
    ]


def _adafactor(config: AdafactorConfig, lr: float, groups: Groups, seed: int) -> Adafactor:
    return Adafactor(
        groups,
        lr,
        relative_step=config.relative_step,
        warmup_init=config.warmup_init,
        scale_parameter=config.scale_parameter,
        clip_threshold=config.clip_threshold,
        decay_rate=config.decay_rate,
        beta1=config.beta1,
        eps1=config.eps1,
        eps2=config.eps2,
        weight_decay=config.weight_decay,
        rounding=config.rounding,
        seed=seed,
    )


def _library_class(
    config: LionConfig
    | CameConfig
    | StableAdamWConfig
    | AdanConfig
    | MuonConfig
    | SoapConfig
    | ProdigyConfig
    | DAdaptationConfig
    | ScheduleFreeAdamWConfig,
) -> tuple[str, dict[str, object]]:
    """The class of pytorch-optimizer, and its options by the names it has for them."""
    # The library decays by the gradient in some classes unless told otherwise.
    decay: dict[str, object] = {"weight_decay": config.weight_decay, "weight_decouple": True}
    match config:
        case LionConfig():
            return "Lion", {**decay, "betas": (config.beta1, config.beta2)}
        case CameConfig():
            return "CAME", {
                **decay,
                "betas": (config.beta1, config.beta2, config.beta3),
                "clip_threshold": config.clip_threshold,
                "eps1": config.eps1,
                "eps2": config.eps2,
            }
        case StableAdamWConfig():
            # Its Kahan summation is of use to weights in bf16, which Adafactor is there for.
            own = {"betas": (config.beta1, config.beta2), "kahan_sum": False}
            return "StableAdamW", {**decay, **own, "eps": config.eps}
        case AdanConfig():
            betas = (config.beta1, config.beta2, config.beta3)
            return "Adan", {**decay, "betas": betas, "eps": config.eps}
        case MuonConfig():
            return "Muon", decay | _muon(config)
        case SoapConfig():
            return "SOAP", _soap(config)
        case ProdigyConfig():
            return "Prodigy", decay | _prodigy(config)
        case DAdaptationConfig():
            return "DAdaptAdam", {
                **decay,
                "betas": (config.beta1, config.beta2),
                "eps": config.eps,
                "d0": config.d0,
                "growth_rate": _limit(config.growth_rate),
            }
        case ScheduleFreeAdamWConfig():
            return "ScheduleFreeAdamW", {
                "betas": (config.beta1, config.beta2),
                "eps": config.eps,
                "weight_decay": config.weight_decay,
                "r": config.r,
                "weight_lr_power": config.weight_lr_power,
            }
        case _:
            assert_never(config)


def _muon(config: MuonConfig) -> dict[str, object]:
    return {
        "momentum": config.momentum,
        "nesterov": config.nesterov,
        "ns_steps": config.ns_steps,
        "use_adjusted_lr": True,
        "adamw_betas": (config.beta1, config.beta2),
        "adamw_eps": config.eps,
        "adamw_wd": config.weight_decay,
    }


def _soap(config: SoapConfig) -> dict[str, object]:
    return {
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
        "precondition_frequency": config.precondition_frequency,
        "max_precondition_dim": config.max_precondition_dim,
    }


def _prodigy(config: ProdigyConfig) -> dict[str, object]:
    return {
        "betas": (config.beta1, config.beta2),
        "beta3": math.sqrt(config.beta2) if config.beta3 == "auto" else config.beta3,
        "eps": config.eps,
        "d0": config.d0,
        "d_coef": config.d_coef,
        "growth_rate": _limit(config.growth_rate),
        "bias_correction": config.bias_correction,
        "safeguard_warmup": config.safeguard_warmup,
    }


def _prodigy_plus(config: ProdigyPlusConfig) -> dict[str, object]:
    same = config.model_dump(exclude={"kind", "lr", "part_lr", "beta1", "beta2", "beta3"})
    beta3 = None if config.beta3 == "auto" else config.beta3
    # Its stochastic rounding draws numbers that no checkpoint brings back.
    own = {"betas": (config.beta1, config.beta2), "beta3": beta3, "stochastic_rounding": False}
    return {**same, **own}


def _limit(growth_rate: float | str) -> float:
    return math.inf if isinstance(growth_rate, str) else growth_rate
