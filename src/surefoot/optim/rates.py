"""The learning rate that an optimizer really used, for each kind of tensor."""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from surefoot.optim.adafactor import Adafactor, step_scales
from surefoot.optim.adafactor_group import AdafactorGroup
from surefoot.optim.schedules import relative_rate

Group = Mapping[str, Any]


@torch.no_grad()
def real_rates(optimizer: Optimizer) -> dict[str, float]:
    """The rate after a step by kind of tensor; over the tensors of a kind, the mean.

    Of groups that say their `part`, by part and kind, such as `unet.lora_up`.

    `d * lr` for those that find their rate; for Adafactor the rate times its scale, which is the
    step per element of a steady gradient. Where tensors have to be asked they are asked together,
    with one transfer from the device.
    """
    found: list[tuple[str, Tensor]] = []
    for group in optimizer.param_groups:
        if isinstance(optimizer, Adafactor):
            rates = _of_adafactor(optimizer, cast(AdafactorGroup, group))
        else:
            rates = torch.tensor([_of_group(group)], dtype=torch.float64)
        part = f"{group['part']}." if "part" in group else ""
        found.append((f"{part}{group['kind']}", rates))
    fetched = torch.cat([rates for _, rates in found]).cpu().numpy()
    numbers = iter(cast(list[float], fetched.tolist()))
    by_kind: dict[str, list[float]] = {}
    for kind, rates in found:
        by_kind.setdefault(kind, []).extend(next(numbers) for _ in range(len(rates)))
    return {kind: math.fsum(rates) / len(rates) for kind, rates in by_kind.items()}


def _of_group(group: Group) -> float:
    lr = float(group["lr"])
    if "d" not in group:
        return lr
    # ProdigyPlus with one d for all groups keeps it beside the group's own.
    shared = group.get("shared_d")
    return lr * float(group["d"] if shared is None else shared)


def _of_adafactor(optimizer: Adafactor, group: AdafactorGroup) -> Tensor:
    """The rate times max(slope * RMS, floor), of each tensor of the group."""
    parameters, scales = group["params"], step_scales(group)
    norms = torch.stack(torch._foreach_norm(parameters, dtype=torch.float32))
    slopes = [
        scale.slope / math.sqrt(max(1, parameter.numel()))
        for scale, parameter in zip(scales, parameters, strict=True)
    ]
    slope, floor = norms.new_tensor(slopes), norms.new_tensor([scale.floor for scale in scales])
    rate = group["lr"]
    if group["relative_step"]:
        step = int(optimizer.state.get(parameters[0], {}).get("step", 1))
        rate = relative_rate(step, warmup_init=group["warmup_init"])
    return torch.maximum(norms.mul_(slope), floor).mul_(rate)
