"""From trained tensors to the groups of an optimizer."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from surefoot.config.optimizer import AdafactorConfig, AdamWConfig
from surefoot.engine.optimizer import build_optimizer
from surefoot.optim.scaling import TensorKind
from surefoot.tuning.trainable import Trainable

KINDS: list[TensorKind] = ["lora_down", "lora_up", "magnitude"]


def trainables() -> list[Trainable]:
    """Layers of two alphas whose kinds alternate, each with a weight RMS of its own."""
    return [
        Trainable(
            f"{layer}.{kind}",
            nn.Parameter(torch.ones(2, 2)),
            kind,
            weight_rms=0.1 * layer + 0.01,
            fan_in=layer + 5,
            alpha=a,
            rank=2,
        )
        for layer, a in enumerate([8.0, 4.0, 8.0])
        for kind in KINDS
    ]


def test_each_tensor_keeps_its_own_weight_and_alpha() -> None:
    items = trainables()
    optimizer = build_optimizer(AdafactorConfig(), 0.01, items)
    found = {
        id(parameter): (group["kind"], group["alpha"], rms, fan_in)
        for group in optimizer.param_groups
        for parameter, rms, fan_in in zip(
            group["params"], group["weight_rms"], group["fan_in"], strict=True
        )
    }
    assert found == {id(x.parameter): (x.kind, x.alpha, x.weight_rms, x.fan_in) for x in items}
    assert len(optimizer.param_groups) == len(KINDS) * 2


@pytest.mark.parametrize("asked", [True, False, "weight"])
def test_options_of_adafactor_reach_it(asked: bool | Literal["weight"]) -> None:
    config = AdafactorConfig(
        scale_parameter=asked,
        clip_threshold=0.5,
        decay_rate=-0.7,
        beta1=0.8,
        eps1=1e-20,
        eps2=1e-4,
        weight_decay=0.1,
        relative_step=True,
        warmup_init=True,
    )
    for group in build_optimizer(config, 0.25, trainables()).param_groups:
        assert group["scale_parameter"] == asked
        assert group["lr"] == 0.25
        assert group["clip_threshold"] == 0.5
        assert group["decay_rate"] == -0.7
        assert (group["beta1"], group["eps1"], group["eps2"]) == (0.8, 1e-20, 1e-4)
        assert group["weight_decay"] == 0.1
        assert group["relative_step"] is group["warmup_init"] is True


def test_options_of_adamw_reach_it() -> None:
    config = AdamWConfig(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.2)
    for group in build_optimizer(config, 0.25, trainables()).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.25, (0.8, 0.95), 1e-6)
        assert group["weight_decay"] == 0.2
