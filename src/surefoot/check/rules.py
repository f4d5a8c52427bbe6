"""The rules. Each is one small function with the codes it may give; `review` asks them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from surefoot.check.caption_rules import CAPTION_RULES
from surefoot.check.format_rules import FORMAT_RULES
from surefoot.check.memory_rules import MEMORY_RULES
from surefoot.check.objective_rules import OBJECTIVE_RULES
from surefoot.check.optimizer_rules import OPTIMIZER_RULES
from surefoot.check.picture_rules import PICTURE_RULES
from surefoot.check.rate_rules import RATE_RULES
from surefoot.check.save_rules import SAVE_RULES
from surefoot.check.set_rules import SET_RULES
from surefoot.check.tuning_rules import TUNING_RULES
from surefoot.check.waivers import with_waivers
from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.schedule import ConstantConfig, CosineRestartsConfig
from surefoot.config.tuning import TUNING_NAMES, FullConfig
from surefoot.finding import LEVELS, Change, Finding
from surefoot.optim.scaling import step_scale
from surefoot.optim.schedules import relative_rate
from surefoot.plan import Plan
from surefoot.survey import Survey
from surefoot.wording import CONSTANT_RATE, RAMP_RATE, RUNS_AWAY, STALLS

Rule = Callable[[Plan, Survey], Iterator[Finding]]
_MEGABYTE = 1e6


def review(plan: Plan, survey: Survey) -> list[Finding]:
    """Every finding about a run, the worst first."""
    found = [*survey.findings, *(finding for rule in RULES for finding in rule(plan, survey))]
    found = with_waivers(found, plan.config.waive)
    return sorted(found, key=lambda finding: (LEVELS.index(finding.level), finding.code))


def own_scale_of_adapters(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF101. Adafactor scales by the tensor's own RMS, and a fresh `lora_up` is zero.

    Source: OneTrainer issue 455; Shazeer & Stern 2018, section 8.
    """
    optimizer, tuning = plan.config.optimizer, plan.config.tuning
    if not isinstance(optimizer, AdafactorConfig) or isinstance(tuning, FullConfig):
        return
    rows = {row.kind: row for row in plan.sheet}
    if optimizer.scale_parameter is not True or "lora_up" not in rows:
        return
    up = rows["lora_up"]
    other = rows.get("magnitude", rows["lora_down"])
    changes = [Change("optimizer.scale_parameter", '"weight"', "true")]
    rate = rows["lora_down"].first / max(rows["lora_down"].rms, optimizer.eps2)
    if not (optimizer.relative_step or optimizer.lr == "auto" or 3e-3 <= optimizer.lr <= 3e-2):
        # A rate that was meant to be absolute would be far too low as a relative one.
        changes.append(Change("optimizer.lr", '"auto"', f"{optimizer.lr:g}"))
        rate *= 1e-2 / optimizer.lr
    smallest = max(up.first, 1e-30)  # eps2 = 0 is allowed
    by_weight = step_scale(
        "lora_up",
        "weight",
        weight_rms=up.weight_rms,
        fan_in=up.fan_in,
        alpha=up.alpha,
        eps2=optimizer.eps2,
    )
    mended = rate * by_weight.at(0.0)
    yield Finding(
        "SF101",
        "error",
        "optimizer.scale_parameter",
        {
            "tuning": TUNING_NAMES[tuning.kind],
            "eps2": optimizer.eps2,
            "steps": plan.steps,
            "up_first": up.first,
            "up_change": 100 * up.layer_change,
            "outcome": RUNS_AWAY if up.layer_change > 1 else STALLS,
            "other": other.kind,
            "other_percent": 100 * (1e-4 / smallest) * other.first / max(other.rms, 1e-30),
            "up_mended": mended,
            "up_times": mended / smallest,
        },
        rows=plan.sheet,
        changes=tuple(changes),
    )


def rate_set_twice(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF102. `relative_step` and a learning rate or schedule of one's own exclude each other."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, AdafactorConfig) or not optimizer.relative_step:
        return
    ignored = ["optimizer.lr"] if optimizer.lr != "auto" else []
    if plan.config.schedule != ConstantConfig() and ("schedule" in plan.config.model_fields_set):
        ignored.append("schedule")
    if ignored:
        values = {"ignored": " + ".join(ignored)}
        yield Finding("SF102", "error", ignored[0], {**values, **_relative_rates(plan, optimizer)})


def _relative_rates(plan: Plan, optimizer: AdafactorConfig) -> dict[str, float]:
    return {
        "first": relative_rate(1, warmup_init=optimizer.warmup_init),
        "last": relative_rate(plan.steps, warmup_init=optimizer.warmup_init),
    }


def warmup_without_relative_step(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF103. `warmup_init` is the ramp of `relative_step`'s rate and means nothing else."""
    optimizer = plan.config.optimizer
    if (
        isinstance(optimizer, AdafactorConfig)
        and optimizer.warmup_init
        and not optimizer.relative_step
    ):
        change = Change("optimizer.warmup_init", "false", "true", same=True)
        yield Finding("SF103", "error", "optimizer.warmup_init", changes=(change,))


def relative_step_is_constant(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF104. In a run of this length `relative_step` is not what its name suggests."""
    optimizer = plan.config.optimizer
    if isinstance(optimizer, AdafactorConfig) and optimizer.relative_step and plan.steps < 10_000:
        shape = RAMP_RATE if optimizer.warmup_init else CONSTANT_RATE
        values = {"steps": plan.steps, "shape": shape}
        yield Finding("SF104", "note", "optimizer.relative_step", dict(values))


def clipped_twice(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF105. Source: transformers' documentation of Adafactor advises against both."""
    clip, optimizer = plan.config.train.clip_grad_norm, plan.config.optimizer
    # With the step inside backward it cannot be done at all, which SF133 says.
    if isinstance(optimizer, AdafactorConfig) and clip != "off" and not optimizer.step_in_backward:
        change = Change("train.clip_grad_norm", '"off"', f"{clip:g}")
        yield Finding("SF105", "warning", "train.clip_grad_norm", {"clip": clip}, changes=(change,))


def warmup_longer_than_run(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF106. The learning rate never arrives."""
    schedule, warmup = plan.config.schedule, plan.schedule.warmup_steps
    if warmup >= plan.steps:
        values = {"warmup": warmup, "steps": plan.steps}
        change = Change("schedule.warmup_steps", str(plan.steps // 10), str(warmup))
        if not schedule.warmup_steps:
            change = Change("schedule.warmup_fraction", "0.1", f"{schedule.warmup_fraction:g}")
        yield Finding("SF106", "error", change.path, dict(values), changes=(change,))


def warmup_given_twice(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF131. In steps and as a share: one of the two would be ignored."""
    schedule = plan.config.schedule
    if schedule.warmup_steps and schedule.warmup_fraction:
        values = {"steps": schedule.warmup_steps, "fraction": schedule.warmup_fraction}
        yield Finding("SF131", "error", "schedule.warmup_fraction", dict(values))


def cycles_without_steps(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF132. Each cycle begins at a step of its own, or it is none."""
    schedule = plan.schedule
    begun = schedule.restarts()
    # A run that is all warm-up has a finding of its own.
    crowded = len({*begun}) < len(begun) and schedule.falling_steps
    if isinstance(plan.config.schedule, CosineRestartsConfig) and crowded:
        values = {"cycles": schedule.cycles, "steps": schedule.falling_steps}
        yield Finding("SF132", "error", "schedule.cycles", dict(values))


def average_longer_than_run(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF108. An average over 1 / (1 - decay) steps needs a run of several times that."""
    ema = plan.config.train.ema
    if ema != "off" and (1 - ema) * plan.steps < 3:
        mended = max(0.5, 1 - 10 / plan.steps)
        values = {"ema": ema, "length": 1 / (1 - ema), "steps": plan.steps, "mended": mended}
        off = (1 - mended) * plan.steps < 3  # a run too short for any average
        change = Change("train.ema", '"off"' if off else f"{mended:.4g}", f"{ema:g}")
        yield Finding("SF108", "warning", "train.ema", dict(values), changes=(change,))


def relative_rate_too_high(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF109. A rate that is relative to the weights is no place for 1e-1."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, AdafactorConfig) or optimizer.relative_step:
        return
    whole = optimizer.scale_parameter is True and isinstance(plan.config.tuning, FullConfig)
    if (optimizer.scale_parameter == "weight" or whole) and plan.lr > 3e-2:
        change = Change("optimizer.lr", "1e-2", f"{plan.lr:g}")
        values = {"lr": plan.lr, "percent": 100 * plan.lr}
        yield Finding("SF109", "warning", "optimizer.lr", dict(values), changes=(change,))


def wrong_prediction(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF201. Source: sd-scripts' and diffusers' issues on v-prediction models."""
    described = survey.model.source == "folder" or plan.config.model.config != "auto"
    if survey.model.parts and described and plan.prediction != survey.model.prediction:
        values = {"asked": plan.prediction, "found": survey.model.prediction}
        change = Change("model.prediction", '"auto"', f'"{plan.prediction}"')
        yield Finding("SF201", "warning", "model.prediction", dict(values), changes=(change,))


def disk_without_room(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF042. Asked before the run, since the last save is the worst place to find out."""
    needed = plan.disk_needed
    if 0 <= survey.free_bytes < needed:
        needed -= min(survey.cached_bytes(), plan.bytes.cache)
    if 0 <= survey.free_bytes < needed:
        values = {"needed_mb": needed / _MEGABYTE, "free_mb": survey.free_bytes / _MEGABYTE}
        yield Finding("SF042", "error", "folder", dict(values))


def batch_larger_than_set(plan: Plan, survey: Survey) -> Iterator[Finding]:
    """SF303. Not where pictures are yet to be mended, which would count."""
    if any(item.unusable and item.path.startswith("data.") for item in survey.findings):
        return
    batch = plan.config.train.batch_size * plan.config.train.gradient_accumulation
    if 0 < plan.pictures_in_epoch < batch:
        values = {"batch": batch, "pictures": plan.pictures_in_epoch}
        yield Finding("SF303", "warning", "train.batch_size", dict(values))


RULES: tuple[Rule, ...] = (
    own_scale_of_adapters,
    rate_set_twice,
    warmup_without_relative_step,
    relative_step_is_constant,
    clipped_twice,
    warmup_longer_than_run,
    warmup_given_twice,
    cycles_without_steps,
    average_longer_than_run,
    relative_rate_too_high,
    *OPTIMIZER_RULES,
    *MEMORY_RULES,
    *TUNING_RULES,
    *RATE_RULES,
    *SET_RULES,
    *CAPTION_RULES,
    *SAVE_RULES,
    *PICTURE_RULES,
    *OBJECTIVE_RULES,
    *FORMAT_RULES,
    wrong_prediction,
    disk_without_room,
    batch_larger_than_set,
)
