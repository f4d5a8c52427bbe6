"""An optimizer section and the trained tensors to an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from torch.optim import AdamW, Optimizer

from surefoot.config.optimizer import (
    AdafactorConfig,
    AdamWConfig,
    OptimizerConfig,
)
from surefoot.optim.adafactor import Adafactor
from surefoot.optim.grouping import group_by_kind
from surefoot.tuning.trainable import Trainable


def build_optimizer(
    config: OptimizerConfig, lr: float, trainables: Sequence[Trainable]
) -> Optimizer:
    """The optimizer over exactly these tensors, in groups of one kind and alpha."""
    groups = group_by_kind(trainables)
    match config:
        case AdafactorConfig():
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
            )
        case AdamWConfig():
            return AdamW(
                [{"params": group["params"]} for group in groups],
                lr=lr,
                betas=(config.beta1, config.beta2),
                eps=config.eps,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case _:
            assert_never(config)
