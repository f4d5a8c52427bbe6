"""What can be said of any PyTorch model and optimizer before they are trained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn
from torch.optim import Optimizer

from surefoot.finding import Finding, Value
from surefoot.language import _
from surefoot.optim.review_steps import (
    ReviewedSteps,
    ReviewRow,
    finds_rate,
    is_adafactor,
    reviewed_steps,
)
from surefoot.rule_words import TOO_HIGH, TOO_LOW
from surefoot.wording import say

_IDLE = 1e-5  # a step of `lora_up` that comes to nothing in a thousand
_MOST_LOST = 0.5
_MAGNITUDE_BESIDE = 50.0  # times as fast as `lora_up` a magnitude moves, where only it is trained
_STILL, _TORN = 1e-6, 0.3  # of a layer by one step: a thousand come to nothing, ten to noise
_USUAL_FACTOR = (0.1, 10.0)  # of `lr` where the optimizer finds its rate; 1 is usual

# What these step by does not depend on the size of the gradients, so that it can be foretold.
_STEADY = ("adam", "lion", "adafactor", "adan", "came")


@dataclass(frozen=True)
class Review:
    """Findings, the worst first, and the sheet of steps."""

    findings: tuple[Finding, ...]
    rows: tuple[ReviewRow, ...]

    def __str__(self) -> str:
        """In words, a line for each."""
        lines = [
            _("{kind}: {tensors} tensors, RMS {rms:.2g}, step {step:.1e}").format(
                kind=row.kind, tensors=row.tensors, rms=row.rms, step=row.step
            )
            for row in self.rows
        ]
        return "\n".join([*lines, *map(in_words, self.findings)])


def in_words(finding: Finding) -> str:
    """A finding as lines of text, for those who have no run.toml to point at."""
    said = say(finding)
    helps = [f"  {text}" for text in said.helps]
    return "\n".join([f"{said.level}[{finding.code}] {said.sentence}", *helps])


def review_training(model: nn.Module, optimizer: Optimizer) -> Review:
    """Compares a model with its optimizer; changes neither.

    Adapters are known as `parameter_groups` knows them. Call it when the weights are loaded, the
    adapters attached and the optimizer built, before the first step.

    Args:
        model: As it will be trained, not sharded over several processes.
        optimizer: torch's, transformers', surefoot's or any other, or Accelerate's around one.

    Raises:
        ValueError: If nothing is trained, or an adapter is of no known kind.
    """
    inner = unwrapped(optimizer)
    steps = reviewed_steps(model, inner)
    rows = steps.rows()
    found = list(_unheld(model, inner))
    if finds_rate(inner):
        found += _not_one(inner)  # its steps are next to nothing until it has found one
    else:
        found += [
            *_idle(rows, inner),
            *_magnitude_apart(steps),
            *_far_off(rows, inner),
            *_lost(rows),
        ]
    return Review(tuple(sorted(found, key=lambda item: item.level != "error")), rows)


def unwrapped(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself, out of Accelerate's wrapper."""
    return cast(Optimizer, getattr(optimizer, "optimizer", optimizer))


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
        if _is_idle(row):
            name = type(optimizer).__name__
            values: dict[str, Value] = {"step": row.step, "optimizer": name}
            yield Finding("SF543", "error" if is_adafactor(optimizer) else "warning", "", values)


def _is_idle(row: ReviewRow) -> bool:
    return row.kind == "lora_up" and row.rms == 0 and row.step <= _IDLE


def _magnitude_apart(steps: ReviewedSteps) -> Iterator[Finding]:
    """One rate for a DoRA's magnitude and its matrices, whose steps are orders apart."""
    paces = steps.dora_paces()
    if not paces:
        return
    up = statistics.median(pace.up for pace in paces)
    magnitude = statistics.median(pace.magnitude for pace in paces)
    if magnitude > _MAGNITUDE_BESIDE * up:
        values: dict[str, Value] = {
            "magnitude": 100 * magnitude,
            "up": 100 * up,
            "times": magnitude / up if up else math.inf,
        }
        yield Finding("SF545", "warning", "", values)


def _far_off(rows: Sequence[ReviewRow], optimizer: Optimizer) -> Iterator[Finding]:
    """A learning rate that is meant for another optimizer."""
    name = type(optimizer).__name__
    if not any(word in name.lower() for word in _STEADY):
        return
    for row in rows:
        # Whole weights and `lora_up` are what changes the layers; biases may be tiny by right.
        if row.kind not in ("weight", "lora_up") or math.isnan(row.share) or _is_idle(row):
            continue
        if not _STILL <= row.share <= _TORN:
            values: dict[str, Value] = {
                "kind": row.kind,
                "percent": 100 * row.share,
                "lr": _highest_rate(optimizer),
                "optimizer": name,
                "effect": TOO_LOW if row.share < _STILL else TOO_HIGH,
            }
            yield Finding("SF546", "warning", "", values)


def _not_one(optimizer: Optimizer) -> Iterator[Finding]:
    """Prodigy and D-Adaptation take a factor for `lr`."""
    low, high = _USUAL_FACTOR
    lr = _highest_rate(optimizer)
    if not low <= lr <= high:
        values: dict[str, Value] = {"lr": lr, "optimizer": type(optimizer).__name__}
        yield Finding("SF547", "warning", "", values)


def _highest_rate(optimizer: Optimizer) -> float:
    groups = optimizer.param_groups
    return max(float(group.get(key) or 0.0) for group in groups for key in ("lr", "initial_lr"))


def _lost(rows: Sequence[ReviewRow]) -> Iterator[Finding]:
    for row in rows:
        if row.lost > _MOST_LOST:
            values: dict[str, Value] = {
                "kind": row.kind,
                "percent": 100 * row.lost,
                "step": row.step,
            }
            yield Finding("SF544", "warning", "", values)
