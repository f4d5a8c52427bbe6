"""Rules about optimizers of libraries: rates they find, averages they keep, memory they save."""

from __future__ import annotations

from collections.abc import Iterator

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    DAdaptationConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
)
from surefoot.config.tuning import FullConfig
from surefoot.families.facts import FAMILIES
from surefoot.finding import Change, Finding, Value
from surefoot.optim.facts import GOES_ON_OTHERWISE, facts_of
from surefoot.plan import Plan, customary_rate
from surefoot.survey import Survey

_LOWEST_FACTOR = 0.1
"""A factor on a found rate at or below this is a learning rate by mistake (sd-scripts warns)."""


def rate_instead_of_factor(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF118. Source: Prodigy's README; sd-scripts and diffusers issue 5508 warn of it."""
    optimizer = plan.config.optimizer
    if facts_of(optimizer).finds_rate and plan.lr <= _LOWEST_FACTOR:
        change = Change("optimizer.lr", "1.0", f"{plan.lr:g}")
        yield Finding("SF118", "error", "optimizer.lr", {"lr": plan.lr}, changes=(change,))


def found_rate_never_falls(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF119. Source: prodigy-plus-schedule-free's README; diffusion-pipe issue 201."""
    facts, schedule = facts_of(plan.config.optimizer), plan.config.schedule
    if facts.finds_rate and not facts.averages and schedule.kind == "constant":
        change = Change("schedule.kind", '"cosine"', '"constant"')
        yield Finding("SF119", "warning", "schedule.kind", changes=(change,))


def clipped_before(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF120. Source: prodigy-plus-schedule-free's README. SF105 is about Adafactor."""
    optimizer, clip = plan.config.optimizer, plan.config.train.clip_grad_norm
    facts = facts_of(optimizer)
    if clip == "off" or isinstance(optimizer, AdafactorConfig):
        return
    if facts.finds_rate or facts.clips_itself:
        code = "SF120" if facts.finds_rate else "SF121"
        change = Change("train.clip_grad_norm", '"off"', f"{clip:g}")
        values: dict[str, Value] = {"clip": clip, "kind": optimizer.kind}
        yield Finding(code, "warning", "train.clip_grad_norm", values, changes=(change,))


def warmup_without_safeguard(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF122. Source: Prodigy's README."""
    optimizer, warmup = plan.config.optimizer, plan.schedule.warmup_steps
    if not warmup:
        return
    asked = plan.config.schedule
    path = "schedule.warmup_steps" if asked.warmup_steps else "schedule.warmup_fraction"
    if isinstance(optimizer, ProdigyConfig) and not optimizer.safeguard_warmup:
        change = Change("optimizer.safeguard_warmup", "true", "false")
        values: dict[str, Value] = {"warmup": warmup}
        yield Finding("SF122", "warning", path, values, changes=(change,))
    if isinstance(optimizer, DAdaptationConfig):
        before = asked.warmup_steps or asked.warmup_fraction
        change = Change(path, "0" if asked.warmup_steps else "0.0", f"{before:g}")
        values = {"warmup": warmup}
        yield Finding("SF122", "warning", path, values, changes=(change,))


def average_and_schedule(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF123. Source: schedule_free's README; OneTrainer forces its schedule to be constant."""
    schedule = plan.config.schedule
    if facts_of(plan.config.optimizer).averages and schedule.kind != "constant":
        change = Change("schedule.kind", '"constant"', f'"{schedule.kind}"')
        values: dict[str, Value] = {"schedule": schedule.kind}
        yield Finding("SF123", "error", "schedule.kind", values, changes=(change,))


def averaged_twice(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF124. The moving average would be of weights that are not the ones to show."""
    ema = plan.config.train.ema
    if facts_of(plan.config.optimizer).averages and ema != "off":
        change = Change("train.ema", '"off"', f"{ema:g}")
        yield Finding("SF124", "error", "train.ema", {"ema": ema}, changes=(change,))


def rate_of_a_schedule(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF125. Source: schedule_free's README: 1 to 10 times the rate of AdamW with a schedule."""
    optimizer = plan.config.optimizer
    facts = facts_of(optimizer)
    usual = customary_rate(plan.config, FAMILIES[plan.config.model.family])
    if facts.averages and not facts.finds_rate and plan.lr < usual:
        change = Change("optimizer.lr", f"{3 * usual:g}", f"{plan.lr:g}")
        values: dict[str, Value] = {"lr": plan.lr, "usual": usual}
        yield Finding("SF125", "warning", "optimizer.lr", values, changes=(change,))


def found_rate_stays_small(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF126. Source: facebookresearch/dadaptation issues 24 and 29."""
    optimizer, tuning = plan.config.optimizer, plan.config.tuning
    named = isinstance(optimizer, NamedOptimizerConfig) and optimizer.name == "DAdaptAdaGrad"
    if named and not isinstance(tuning, FullConfig):
        yield Finding("SF126", "warning", "optimizer.name")


def memory_kept_in_32_bits(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF127. Source: bitsandbytes' documentation of min_8bit_size."""
    optimizer = plan.config.optimizer
    if not isinstance(optimizer, AdamW8bitConfig):
        return
    # By the mean size of a kind, which is what the sheet knows.
    small = [row for row in plan.sheet if row.numbers < optimizer.min_8bit_size * row.tensors]
    if small:
        values: dict[str, Value] = {
            "kinds": ", ".join(row.kind for row in small),
            "size": optimizer.min_8bit_size,
        }
        yield Finding("SF127", "note", "optimizer.min_8bit_size", values)


def goes_on_otherwise(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF128. Found by going on with each class of the library and comparing."""
    optimizer = plan.config.optimizer
    if isinstance(optimizer, NamedOptimizerConfig) and optimizer.name in GOES_ON_OTHERWISE:
        yield Finding("SF128", "warning", "optimizer.name", {"name": optimizer.name})


def rates_of_parts(plan: Plan, _survey: Survey) -> Iterator[Finding]:
    """SF143, SF144, SF145. Source: Prodigy's issues 3 and 16; sd-scripts refuses it likewise."""
    optimizer, tuning = plan.config.optimizer, plan.config.tuning
    for part in optimizer.part_lr:
        if part not in tuning.parts:
            values: dict[str, Value] = {"part": part, "trained": " + ".join(tuning.parts)}
            yield Finding("SF143", "error", f"optimizer.part_lr.{part}", values)
    if not optimizer.part_lr:
        return
    if isinstance(optimizer, AdafactorConfig) and optimizer.relative_step:
        yield Finding("SF144", "error", "optimizer.part_lr")
    if facts_of(optimizer).finds_rate:
        yield Finding("SF145", "error", "optimizer.part_lr", {"kind": optimizer.kind})


OPTIMIZER_RULES = (
    rate_instead_of_factor,
    found_rate_never_falls,
    clipped_before,
    warmup_without_safeguard,
    average_and_schedule,
    averaged_twice,
    rate_of_a_schedule,
    found_rate_stays_small,
    memory_kept_in_32_bits,
    goes_on_otherwise,
    rates_of_parts,
)
