"""Rules about what saves memory: weights in bfloat16, the step inside the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.tuning import QUANTISED_BY, DoraConfig, FullConfig, base_weights, weights_dtype
from surefoot.families.facts import FAMILIES
from surefoot.finding import Change, Finding, Value
from surefoot.optim.library import installed
from surefoot.optim.lost_steps import smallest_change
from surefoot.plan import Plan
from surefoot.survey import Survey
from surefoot.wording import NORMS, ROUNDED, TRAINED, UPDATES

_MUCH = 0.1
"""Share of the steps: less than this is lost in the last, small steps of any schedule."""


def steps_lost_in_rounding(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF129. Source: Zamirai et al. 2020, "Revisiting BFloat16 Training", arXiv 2010.06192."""
    losing = [row for row in plan.sheet if row.lost > _MUCH]
    if not losing:
        return
    optimizer, row = plan.config.optimizer, max(losing, key=lambda row: row.numbers)
    # Of a rate that is found in the run, the customary one is a fair guess.
    rate = 1.0 if row.known else FAMILIES[plan.config.model.family].full_lr
    values: dict[str, Value] = {
        "kind": row.kind,
        "percent": 100 * row.lost,
        "step": rate * row.total / plan.steps,
        "rms": row.rms,
        "smallest": smallest_change(row.rms),
    }
    change = Change("tuning.weights", '"fp32"', '"bf16"')
    if isinstance(optimizer, AdafactorConfig):
        change = Change("optimizer.rounding", '"stochastic"', f'"{optimizer.rounding}"')
    yield Finding("SF129", "warning", change.path, values, rows=plan.sheet, changes=(change,))


def precision_beyond_the_weights(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF130. A network in bfloat16 has no fp32 to compute with, and not float16's digits."""
    precision = plan.config.train.precision
    tuning = plan.config.tuning
    if "bf16" in (weights_dtype(tuning), base_weights(tuning)) and precision != "bf16":
        change = Change("train.precision", '"bf16"', f'"{precision}"')
        values: dict[str, Value] = {"precision": precision}
        yield Finding("SF130", "error", "train.precision", values, changes=(change,))


def quantiser_not_installed(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF138."""
    kind = base_weights(plan.config.tuning)
    package = QUANTISED_BY.get(kind)
    if package is not None and not installed(package):
        values: dict[str, Value] = {"kind": kind, "package": package}
        yield Finding("SF138", "error", "tuning.base_weights", values)


def quantised_base(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF139. Source: SimpleTuner's quick start of FLUX; PEFT issue 1518."""
    tuning = plan.config.tuning
    kind = base_weights(tuning)
    if kind in QUANTISED_BY:
        effect = NORMS if isinstance(tuning, DoraConfig) else UPDATES
        values: dict[str, Value] = {"kind": kind, "effect": effect}
        yield Finding("SF139", "note", "tuning.base_weights", values)


def offload_without_frozen_blocks(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF163. What is trained has to stay on the device, and quantised weights are made there."""
    tuning = plan.config.tuning
    whole = isinstance(tuning, FullConfig)
    if plan.config.train.offload and (whole or tuning.base_weights in QUANTISED_BY):
        values: dict[str, Value] = {"reason": TRAINED if whole else ROUNDED}
        change = Change("train.offload", "0", f"{plan.config.train.offload:g}", same=True)
        yield Finding("SF163", "error", "train.offload", values, changes=(change,))


def offload_without_checkpointing(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF164. What is computed once has its weights kept until the backward pass."""
    train = plan.config.train
    if train.offload and not train.gradient_checkpointing:
        change = Change("train.gradient_checkpointing", "true", "false", same=True)
        yield Finding("SF164", "warning", "train.offload", changes=(change,))


def stepped_before_unscaled(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF136. In float16 the whole gradient has to be seen before any of it is used.

    Source: Micikevicius et al. 2018, section 3.2.
    """
    if _steps_in_backward(plan) and plan.config.train.precision == "fp16":
        change = Change("train.precision", '"bf16"', '"fp16"')
        yield Finding("SF136", "error", "train.precision", changes=(change,))


def average_kept_apart_of_nothing(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF137. Where there is no average there is nothing to keep on the CPU."""
    train = plan.config.train
    if train.ema_device == "cpu" and train.ema == "off":
        change = Change("train.ema_device", '"same"', '"cpu"', same=True)
        yield Finding("SF137", "warning", "train.ema_device", changes=(change,))


def clipped_before_all_are_there(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF133. The norm of all gradients is known when all tensors have moved."""
    clip = plan.config.train.clip_grad_norm
    if _steps_in_backward(plan) and clip != "off":
        change = Change("train.clip_grad_norm", '"off"', f"{clip:g}")
        yield Finding("SF133", "error", "train.clip_grad_norm", {"clip": clip}, changes=(change,))


def gradients_kept_for_accumulation(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF134."""
    parts = plan.config.train.gradient_accumulation
    if _steps_in_backward(plan) and parts > 1:
        values: dict[str, Value] = {"parts": parts, "megabytes": plan.bytes.gradients / 1e6}
        yield Finding("SF134", "note", "optimizer.step_in_backward", values)


def gradients_of_adapters_are_small(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF135."""
    if _steps_in_backward(plan) and not isinstance(plan.config.tuning, FullConfig):
        # What all gradients would take: as much as the trained tensors.
        values: dict[str, Value] = {"megabytes": plan.bytes.trained / 1e6}
        yield Finding("SF135", "note", "optimizer.step_in_backward", values)


def _steps_in_backward(plan: Plan) -> bool:
    optimizer = plan.config.optimizer
    return isinstance(optimizer, AdafactorConfig) and optimizer.step_in_backward


MEMORY_RULES = (
    steps_lost_in_rounding,
    precision_beyond_the_weights,
    quantiser_not_installed,
    quantised_base,
    offload_without_frozen_blocks,
    offload_without_checkpointing,
    stepped_before_unscaled,
    average_kept_apart_of_nothing,
    clipped_before_all_are_there,
    gradients_kept_for_accumulation,
    gradients_of_adapters_are_small,
)
