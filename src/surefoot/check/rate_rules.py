"""Rules about learning rates, weight decay and what else an optimizer is told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.optimizer_libraries import CameConfig, NamedOptimizerConfig
from surefoot.config.schedule import CosineRestartsConfig
from surefoot.config.tuning import TUNING_NAMES, FullConfig, weights_dtype
from surefoot.families.facts import FAMILIES
from surefoot.finding import Change, Finding, StepRow, Value
from surefoot.optim.facts import facts_of
from surefoot.optim.lost_steps import smallest_change
from surefoot.optim.scaling import TensorKind, step_scale
from surefoot.optim.schedules import relative_rate
from surefoot.plan import Plan, customary_rate
from surefoot.rule_words import TOO_HIGH, TOO_LOW
from surefoot.survey import Survey

_BANDS = {"full": (1e-2, 10.0), "adapter": (1 / 20, 30.0)}
"""Rates over the customary one outside of which runs were seen to learn nothing or to be ruined:
1e-7 to 1e-4 for full fine-tuning, 5e-6 to 3e-3 for adapters."""
_MUCH_DECAY = 0.1


def own_scale_by_name(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF150. What SF101 says, of the Adafactor of pytorch-optimizer, whose defaults are these."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, NamedOptimizerConfig) or optimizer.name != "AdaFactor":
        return
    given = optimizer.arguments
    adapter = not isinstance(plan.config.tuning, FullConfig)
    wrong = [
        key for key in ("scale_parameter", "relative_step") if adapter and given.get(key, True)
    ]
    if wrong:
        changes = tuple(Change(f"optimizer.arguments.{key}", "false", "true") for key in wrong)
        values: dict[str, Value] = {"keys": " + ".join(wrong), "tuning": plan.config.tuning.kind}
        yield Finding("SF150", "error", "optimizer.arguments", values, changes=changes)


def clipped_below_the_rate(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF151. Source: sd-scripts warns of it."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, AdafactorConfig | CameConfig):
        return
    threshold = optimizer.clip_threshold
    if threshold < 1:
        change = Change("optimizer.clip_threshold", "1.0", f"{threshold:g}")
        values: dict[str, Value] = {"threshold": threshold}
        yield Finding("SF151", "warning", change.path, values, changes=(change,))


def decay_that_eats_the_weights(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF152. Decoupled decay multiplies each number by 1 - decay * rate at every step."""
    decay = _weight_decay(plan)
    rows = [row for row in plan.sheet if row.known and row.kind not in ("lora_up", "bias")]
    if not decay or not rows:
        return
    shares = {row.kind: 1 - math.exp(-decay * _summed_rates(plan, row)) for row in rows}
    kind, share = max(shares.items(), key=lambda item: item[1])
    if share > _MUCH_DECAY:
        path, value = _decay_key(plan), f"{decay:g}"
        values: dict[str, Value] = {"decay": decay, "kind": kind, "percent": 100 * share}
        change = Change(path, "0.0", value)
        yield Finding("SF152", "warning", path, values, changes=(change,))


def decay_lost_in_rounding(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF155. Source: OneTrainer issue 996."""
    decay, optimizer = _weight_decay(plan), plan.config.optimizer
    keeps = isinstance(optimizer, AdafactorConfig) and optimizer.rounding != "nearest"
    if not decay or keeps or weights_dtype(plan.config.tuning) != "bf16":
        return
    row = max(plan.sheet, key=lambda row: row.numbers, default=None)
    if row is None or not row.known:
        return
    share = decay * _largest_rate(plan) * _scale(plan, row)
    # Of a number, relative to it: half of the distance to the next below, where that is least.
    if share < smallest_change(1.0) / 2:
        change = Change(_decay_key(plan), "0.0", f"{decay:g}", same=True)
        values: dict[str, Value] = {"decay": decay, "share": share}
        yield Finding("SF155", "warning", change.path, values, changes=(change,))


def restarts_of_a_found_rate(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF153. Source: Prodigy's README."""
    finds = facts_of(plan.config.optimizer).finds_rate
    if finds and isinstance(plan.config.schedule, CosineRestartsConfig):
        change = Change("schedule.kind", '"cosine"', '"cosine_restarts"')
        yield Finding("SF153", "warning", "schedule.kind", changes=(change,))


def rate_of_another_tuning(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF154. Source: SimpleTuner's bands, OneTrainer's presets; see `_BANDS`."""
    optimizer = plan.config.optimizer
    facts = facts_of(optimizer)
    relative = isinstance(optimizer, AdafactorConfig) and (
        optimizer.relative_step or optimizer.scale_parameter is not False
    )
    if facts.finds_rate or relative or optimizer.lr == "auto":
        return
    full = isinstance(plan.config.tuning, FullConfig)
    usual = facts.rate * customary_rate(plan.config, FAMILIES[plan.config.model.family])
    low, high = _BANDS["full" if full else "adapter"]
    if not usual * low <= plan.lr <= usual * high:
        change = Change("optimizer.lr", '"auto"', f"{plan.lr:g}")
        values: dict[str, Value] = {
            "lr": plan.lr,
            "usual": usual,
            "tuning": plan.config.tuning.kind,
            "effect": TOO_LOW if plan.lr < usual else TOO_HIGH,
        }
        yield Finding("SF154", "warning", "optimizer.lr", values, changes=(change,))


def unscaled_relative_step(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF110. 1e-2 per element is half a weight: full fine-tuning is wrecked, adapters at times."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, AdafactorConfig) or not optimizer.relative_step:
        return
    full = isinstance(plan.config.tuning, FullConfig)
    usual = customary_rate(plan.config, FAMILIES[plan.config.model.family])
    rate = _largest_rate(plan)
    _low, high = _BANDS["full" if full else "adapter"]
    if optimizer.scale_parameter is False and rate > high * usual:
        values: dict[str, Value] = {"rate": rate, "times": rate / usual, "lr": usual}
        values["tuning"] = TUNING_NAMES.get(plan.config.tuning.kind, "full")
        change = Change("optimizer.relative_step", "false", "true")
        level = "error" if full else "warning"
        yield Finding("SF110", level, "optimizer.relative_step", values, changes=(change,))


def _weight_decay(plan: Plan) -> float:
    optimizer = plan.config.optimizer
    if isinstance(optimizer, NamedOptimizerConfig):
        given = optimizer.arguments.get("weight_decay", 0.0)
        return float(given) if isinstance(given, int | float) else 0.0
    return optimizer.weight_decay


def _decay_key(plan: Plan) -> str:
    named = isinstance(plan.config.optimizer, NamedOptimizerConfig)
    return "optimizer.arguments.weight_decay" if named else "optimizer.weight_decay"


def _rates(plan: Plan) -> Iterator[float]:
    optimizer = plan.config.optimizer
    for step in range(plan.steps):
        if isinstance(optimizer, AdafactorConfig) and optimizer.relative_step:
            yield relative_rate(step + 1, warmup_init=optimizer.warmup_init)
        else:
            yield plan.lr * plan.schedule.factor(step)


def _largest_rate(plan: Plan) -> float:
    return max(_rates(plan))


def _summed_rates(plan: Plan, row: StepRow) -> float:
    return math.fsum(_rates(plan)) * _scale(plan, row)


def _scale(plan: Plan, row: StepRow) -> float:
    """What Adafactor multiplies the rate with for the tensors of a row."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, AdafactorConfig):
        return 1.0
    scale = step_scale(
        cast(TensorKind, row.kind),
        optimizer.scale_parameter,
        weight_rms=row.weight_rms,
        fan_in=row.fan_in,
        alpha=row.alpha,
        eps2=optimizer.eps2,
    )
    return scale.at(row.rms)


RATE_RULES = (
    own_scale_by_name,
    clipped_below_the_rate,
    decay_that_eats_the_weights,
    decay_lost_in_rounding,
    restarts_of_a_found_rate,
    rate_of_another_tuning,
    unscaled_relative_step,
)
