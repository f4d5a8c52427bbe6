"""The plan in words: what `surefoot plan` prints."""

from __future__ import annotations

from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.optimizer_libraries import NamedOptimizerConfig
from surefoot.config.tuning import FullConfig, WeightsDtype, weights_dtype
from surefoot.language import _
from surefoot.plan import Plan, span

_MEGABYTE = 1e6
_SHOWN_BUCKETS = 6


def describe(plan: Plan) -> list[tuple[str, str]]:
    """Pairs of a name and what will happen."""
    config, sizes = plan.config, plan.bytes
    return [
        (_("model"), f"{config.model.family}, {plan.model_path.name}, {plan.prediction}"),
        (_("device"), f"{plan.device}, {config.train.precision}"),
        (_("tuning"), _tuning(plan)),
        (_("optimizer"), _optimizer(plan)),
        (_("pictures"), _pictures(plan)),
        (_("sizes"), _sizes(plan)),
        (
            _("steps"),
            _("{steps} steps of {batch} pictures = {epochs:.1f} epochs").format(
                steps=plan.steps,
                batch=config.train.batch_size * config.train.gradient_accumulation,
                epochs=plan.epochs,
            ),
        ),
        (
            _("every"),
            _("validation {validate}, preview {preview}, checkpoint {save} steps").format(
                validate=plan.validate_every if plan.validation_pictures else "-",
                preview=plan.preview_every if config.preview.prompts else "-",
                save=plan.save_every,
            )
            + _saves(plan),
        ),
        (
            _("memory"),
            _(
                "weights {trained}, gradients {gradients}, optimizer {optimizer}, ema {ema} MB"
            ).format(
                trained=_megabytes(sizes.trained),
                gradients=_megabytes(sizes.gradients),
                optimizer=_megabytes(sizes.optimizer),
                ema=_megabytes(sizes.ema),
            ),
        ),
        (
            _("disk"),
            _("checkpoints {keep} x {checkpoint}, export {export}, cache {cache} MB").format(
                keep=config.save.keep,
                checkpoint=_megabytes(sizes.checkpoint),
                export=_megabytes(sizes.export),
                cache=_megabytes(sizes.cache),
            ),
        ),
        (_("folder"), str(plan.run_folder)),
    ]


def _saves(plan: Plan) -> str:
    """What else asks for a checkpoint."""
    save, texts = plan.config.save, ""
    if save.every_minutes != "off":
        texts += _(", also every {minutes:g} minutes").format(minutes=save.every_minutes)
    if save.every_epochs != "off":
        texts += _(", also every {epochs:g} epochs").format(epochs=save.every_epochs)
    return texts


def _tuning(plan: Plan) -> str:
    tuning = plan.config.tuning
    parts = " + ".join(tuning.parts)
    if isinstance(tuning, FullConfig):
        return _("full, {parts}, {numbers:,} numbers in {dtype}").format(
            parts=parts, numbers=plan.trained_numbers, dtype=weights_dtype(tuning)
        )
    given = [target for layers in plan.targets.values() for target in layers.values()]
    template = _(
        "{kind} rank {rank} alpha {alpha}, {layers} layers of {parts}, {numbers:,} numbers"
    )
    return template.format(
        kind=tuning.kind,
        rank=span(target.rank for target in given),
        alpha=span(target.alpha for target in given),
        layers=len(given),
        parts=parts,
        numbers=plan.trained_numbers,
    )


def _optimizer(plan: Plan) -> str:
    optimizer, schedule = plan.config.optimizer, plan.schedule
    if isinstance(optimizer, AdafactorConfig):
        name = _adafactor(optimizer, weights_dtype(plan.config.tuning))
        if optimizer.relative_step:
            return name
    else:
        name = optimizer.name if isinstance(optimizer, NamedOptimizerConfig) else optimizer.kind
    warmup = _(", warm-up {steps}").format(steps=schedule.warmup_steps)
    rates = [f"{plan.lr:g}", *(f"{part} {lr:g}" for part, lr in optimizer.part_lr.items())]
    shape = f"{schedule.kind}{warmup if schedule.warmup_steps else ''}"
    return f"{name}, lr {', '.join(rates)} {shape}"


def _adafactor(optimizer: AdafactorConfig, weights: WeightsDtype) -> str:
    scale = optimizer.scale_parameter
    word = f'"{scale}"' if isinstance(scale, str) else str(scale).lower()
    options = [f"adafactor scale_parameter = {word}"]
    if weights == "bf16":
        options.append(f'rounding = "{optimizer.rounding}"')
    if optimizer.step_in_backward:
        options.append("step_in_backward")
    if optimizer.relative_step:
        options.append("relative_step")
    return ", ".join(options)


def _pictures(plan: Plan) -> str:
    return _("{pictures} ({epoch} in an epoch), {held_out} held out").format(
        pictures=plan.pictures,
        epoch=plan.pictures_in_epoch,
        held_out=plan.validation_pictures,
    )


def _sizes(plan: Plan) -> str:
    """The buckets with the most pictures, and how many others there are."""
    ordered = sorted(plan.buckets, key=lambda item: -item.pictures)
    shown = ", ".join(
        f"{item.width}x{item.height}: {item.pictures}" for item in ordered[:_SHOWN_BUCKETS]
    )
    rest = ordered[_SHOWN_BUCKETS:]
    if rest:
        shown += _(", {count} more sizes: {pictures}").format(
            count=len(rest), pictures=sum(item.pictures for item in rest)
        )
    return shown or "-"


def _megabytes(size: int) -> str:
    megabytes = size / _MEGABYTE
    return f"{megabytes:.0f}" if megabytes >= 10 else f"{megabytes:.2g}"
