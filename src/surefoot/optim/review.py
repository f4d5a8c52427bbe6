"""What can be said of any PyTorch model and optimizer before they are trained."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surefoot.finding import Finding
from surefoot.optim.grouping import parameter_groups
from surefoot.optim.lost_steps import share_lost
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import TensorKind, step_scale
from surefoot.optim.schedules import relative_rate
from surefoot.wording import say

_IDLE = 1e-5  # a step of `lora_up` that comes to nothing in a thousand
_MOST_LOST = 0.5


@dataclass(frozen=True)
class ReviewRow:
    """One kind of tensor.

    Attributes:
        rms: Median root mean square of its tensors.
        step: Median step per element at the learning rate that the optimizer has now, of a
            gradient that stays the same.
        lost: Share of the numbers whose step is rounded away, largest over the tensors.
    """

    kind: str
    tensors: int
    numbers: int
    rms: float
    step: float
    lost: float


@dataclass(frozen=True)
class Review:
    """Findings, the worst first, and the sheet of steps."""

    findings: tuple[Finding, ...]
    rows: tuple[ReviewRow, ...]

    def __str__(self) -> str:
        """In words, a line for each."""
        lines = [
            f"{row.kind}: {row.tensors} tensors, RMS {row.rms:.2g}, step {row.step:.1e}"
            for row in self.rows
        ]
        for finding in self.findings:
            said = say(finding)
            lines.append(f"{said.level}[{finding.code}] {said.sentence}")
            lines += said.helps
        return "\n".join(lines)


@dataclass(frozen=True)
class _Step:
    kind: TensorKind
    tensor: Tensor
    rms: float
    step: float

    @property
    def lost(self) -> float:
        return share_lost(self.step, self.rms) if self.tensor.dtype == torch.bfloat16 else 0.0


def review_training(model: nn.Module, optimizer: Optimizer) -> Review:
    """Compares a model with its optimizer; changes neither.

    Adapters are known as `parameter_groups` knows them. Call it when the weights are loaded, the
    adapters attached and the optimizer built, before the first step.

    Args:
        model: As it will be trained, not wrapped for several processes.
        optimizer: torch's, transformers', surefoot's or any other, or Accelerate's around one.

    Raises:
        ValueError: If nothing is trained, or an adapter is of no known kind.
    """
    inner = cast(Optimizer, getattr(optimizer, "optimizer", optimizer))
    groups = parameter_groups(model)
    steps = list(_steps(groups, inner))
    rows = tuple(_row(kind, steps) for kind in dict.fromkeys(item.kind for item in steps))
    found = [*_unheld(model, inner), *_idle(rows, inner), *_lost(rows)]
    return Review(tuple(found), rows)


def _steps(groups: Sequence[Mapping[str, Any]], optimizer: Optimizer) -> Iterator[_Step]:
    held = {id(item): group for group in optimizer.param_groups for item in group["params"]}
    for group in groups:
        tensors = [tensor for _name, tensor in group["params"]]
        sizes = root_mean_squares(tensors)
        for tensor, rms, weight_rms, fan_in in zip(
            tensors, sizes, group["weight_rms"], group["fan_in"], strict=True
        ):
            options = held.get(id(tensor))
            if options is None:
                continue
            step = _rate(options)
            if _is_adafactor(optimizer):
                scale = step_scale(
                    group["kind"],
                    options.get("scale_parameter", True),  # torch's own always scales
                    weight_rms=weight_rms,
                    fan_in=fan_in,
                    alpha=group["alpha"],
                    eps2=_eps2(options),
                )
                step *= scale.at(rms)
            yield _Step(group["kind"], tensor, rms, step)


def _is_adafactor(optimizer: Optimizer) -> bool:
    return type(optimizer).__name__ == "Adafactor"


def _eps2(options: Mapping[str, Any]) -> float:
    """Surefoot names it; transformers and torch give a pair."""
    return float(options["eps2"] if "eps2" in options else options["eps"][1])


def _rate(options: Mapping[str, Any]) -> float:
    if options.get("relative_step"):
        return relative_rate(1, warmup_init=bool(options.get("warmup_init")))
    return float(options["lr"] or 0.0) * float(options.get("d", 1.0))


def _row(kind: str, steps: Sequence[_Step]) -> ReviewRow:
    members = [item for item in steps if item.kind == kind]
    return ReviewRow(
        kind=kind,
        tensors=len(members),
        numbers=sum(item.tensor.numel() for item in members),
        rms=statistics.median(item.rms for item in members),
        step=statistics.median(item.step for item in members),
        lost=max(item.lost for item in members),
    )


def _unheld(model: nn.Module, optimizer: Optimizer) -> Iterator[Finding]:
    """Tensors that only one of the two has, by identity."""
    trained = {id(item): name for name, item in model.named_parameters() if item.requires_grad}
    held = {id(item) for group in optimizer.param_groups for item in group["params"]}
    missing = [name for key, name in trained.items() if key not in held]
    if missing:
        yield Finding("SF541", "error", "", {"count": len(missing), "example": missing[0]})
    if strangers := len(held - trained.keys()):
        yield Finding("SF542", "warning", "", {"count": strangers})


def _idle(rows: Sequence[ReviewRow], optimizer: Optimizer) -> Iterator[Finding]:
    """Adafactor's own scale on a tensor that begins at zero."""
    for row in rows:
        if row.kind == "lora_up" and row.rms == 0 and row.step <= _IDLE:
            name = type(optimizer).__name__
            values = {"step": row.step, "optimizer": name}
            yield Finding("SF543", "error" if _is_adafactor(optimizer) else "warning", "", values)


def _lost(rows: Sequence[ReviewRow]) -> Iterator[Finding]:
    for row in rows:
        if row.lost > _MOST_LOST:
            values = {"kind": row.kind, "percent": 100 * row.lost, "step": row.step}
            yield Finding("SF544", "warning", "", values)
