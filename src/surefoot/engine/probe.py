"""A few real steps of a run, in a copy that is thrown away: what they did, what all will cost."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.optim import Optimizer

from surefoot.engine.assemble import assemble
from surefoot.engine.events import Events
from surefoot.engine.loop import forward_and_backward, gradient_norm, step_optimizer
from surefoot.engine.session import Session
from surefoot.engine.stored_numbers import StoredNumbers, awaiting_gradients
from surefoot.engine.watch_verdict import Stride
from surefoot.engine.wiring import Movement, check_wiring
from surefoot.finding import Finding, StepRow
from surefoot.plan import Plan
from surefoot.sheet import scheduled_rates
from surefoot.survey import Survey

_FEW = 0.5  # of the numbers of a kind that a step should change at least
_OFF = 10.0  # times the predicted step, or less than its tenth


@dataclass(frozen=True)
class KindProbe:
    """One kind of tensor.

    Attributes:
        measured: Median step, as a share of the tensor itself; of `lora_up`, of its layer.
        predicted: What the plan's sheet says of it, NaN where it says nothing.
        dtype: In which its numbers are stored.
        changed: Share of the stored numbers that a step changes, mean over steps and tensors.
    """

    kind: str
    measured: float
    predicted: float
    dtype: str
    changed: float


@dataclass(frozen=True)
class Probe:
    """What the probe found.

    Attributes:
        steps: Steps taken, at the full learning rate.
        losses: Of each step.
        kinds: Steps by kind of tensor.
        tensors: Trained ones.
        without_gradient: Names of those that no gradient has reached.
        seconds_per_step: Median, the first step left out.
        pictures_per_second: At that pace.
        run_seconds: All steps of the run at that pace, without validation and previews.
        peak_bytes: Of the device's memory; on the CPU, of the whole process.
        disk_bytes: What the run will write.
        findings: What is wrong.
    """

    steps: int
    losses: tuple[float, ...]
    kinds: tuple[KindProbe, ...]
    tensors: int
    without_gradient: tuple[str, ...]
    seconds_per_step: float
    pictures_per_second: float
    run_seconds: float
    peak_bytes: int
    disk_bytes: int
    findings: tuple[Finding, ...]


def probe(plan: Plan, survey: Survey, steps: int) -> Probe:
    """Takes `steps` steps, at least two; the run's own folder is not touched.

    Only the pictures of these steps are encoded.

    Raises:
        Refused: If the device is not there, or a class does not take its arguments.
    """
    with TemporaryDirectory() as folder:
        copy = replace(plan, run_folder=Path(folder))
        with Events(copy.run_folder, 0) as events:
            return _taken(assemble(copy, survey, events, None), max(2, steps))


def _taken(session: Session, steps: int) -> Probe:
    plan = session.plan
    movement = Movement(session.tuned.trainables, session.optimizer)
    stored = StoredNumbers(session.tuned.trainables)
    losses: list[float] = []
    seconds: list[float] = []
    strides: list[dict[str, Stride]] = []
    set_full_rate(session)
    with awaiting_gradients(session.tuned.trainables) as awaited:
        for step in range(steps):
            session.strides.before_step()
            stored.before_step()
            started = time.monotonic()
            losses.append(take_step(session, step))
            strides.append(session.strides.read())  # waits for the device
            seconds.append(time.monotonic() - started)
            stored.after_step()
    check_wiring(session.tuned, session.optimizer)
    kinds = tuple(_kinds(plan, strides, stored))
    train = plan.config.train
    pace = statistics.median(seconds[1:])
    return Probe(
        steps=steps,
        losses=tuple(losses),
        kinds=kinds,
        tensors=len(session.tuned.trainables),
        without_gradient=tuple(awaited),
        seconds_per_step=pace,
        pictures_per_second=train.batch_size * train.gradient_accumulation / pace,
        run_seconds=pace * plan.steps,
        peak_bytes=_peak_bytes(session.device),
        disk_bytes=plan.disk_needed,
        findings=(
            *_without_gradient(awaited, steps),
            *_unmoved(movement, set(awaited), steps),
            *_off(kinds),
            *_rounded_away(kinds, session.optimizer),
            *_not_finite(losses),
        ),
    )


def set_full_rate(session: Session) -> None:
    """The highest learning rate of the run: a warm-up would hide what the run does later."""
    for group in session.optimizer.param_groups:
        group["lr"] = group["initial_lr"]


def take_step(session: Session, step: int) -> float:
    """One step as the run takes it; returns its loss. A gradient that is not finite is refused."""
    loss = forward_and_backward(session, step)
    if math.isfinite(gradient_norm(session)):
        step_optimizer(session)
    elif session.scale is not None:
        session.scale.overflowed()
    session.optimizer.zero_grad(set_to_none=True)
    return loss


def _kinds(plan: Plan, strides: list[dict[str, Stride]], stored: StoredNumbers) -> list[KindProbe]:
    """The median step of each kind, beside what the sheet gives for the highest rate of the run."""
    rates = scheduled_rates(plan.config, plan.lr)
    # The sheet's first step may be one of the warm-up; the probe takes those of the full rate.
    full = max(rates) / next((rate for rate in rates if rate), 1.0)
    predicted = {row.kind: full * _share(row) for row in plan.sheet if row.known}
    measured: Mapping[str, float] = {
        kind: statistics.median(found[kind].per_step for found in strides[1:])
        for kind in strides[-1]
    }
    changed = stored.changed()
    return [
        KindProbe(kind, took, predicted.get(kind, math.nan), *changed[kind])
        for kind, took in measured.items()
    ]


def _share(row: StepRow) -> float:
    """The sheet's first step as a share of the tensor itself; of `lora_up`, of its layer."""
    if row.kind == "lora_up":
        return row.first * row.layer_change / row.total if row.total else 0.0
    return row.first / row.rms if row.rms else 0.0


def _without_gradient(names: Collection[str], steps: int) -> list[Finding]:
    if not names:
        return []
    values = {"count": len(names), "steps": steps, "example": next(iter(names))}
    return [Finding("SF532", "error", "", dict(values))]


def _unmoved(movement: Movement, known: set[str], steps: int) -> list[Finding]:
    unmoved = [name for name in movement.unmoved() if name not in known]
    if not unmoved:
        return []
    values = {"count": len(unmoved), "steps": steps, "example": unmoved[0]}
    return [Finding("SF501", "error", "", dict(values))]


def _rounded_away(kinds: tuple[KindProbe, ...], optimizer: Optimizer) -> list[Finding]:
    """What is measured of SF129. Stochastic rounding and Kahan's sum keep such steps."""
    if any(group.get("rounding", "nearest") != "nearest" for group in optimizer.param_groups):
        return []
    return [
        Finding(
            "SF533",
            "warning",
            "tuning.weights",
            {"kind": item.kind, "dtype": item.dtype, "percent": 100 * item.changed},
        )
        for item in kinds
        # Rows of an embedding may rest unused.
        if item.dtype in ("bf16", "fp16") and item.kind != "embedding" and item.changed < _FEW
    ]


def _off(kinds: tuple[KindProbe, ...]) -> list[Finding]:
    return [
        Finding(
            "SF531",
            "warning",
            "optimizer",
            {"kind": item.kind, "measured": item.measured, "predicted": item.predicted},
        )
        for item in kinds
        if item.predicted > 0
        and not item.predicted / _OFF <= item.measured <= item.predicted * _OFF
    ]


def _not_finite(losses: list[float]) -> list[Finding]:
    bad = [step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)]
    return [Finding("SF530", "error", "optimizer.lr", {"step": bad[0]})] if bad else []


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
