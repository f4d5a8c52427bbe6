"""What will happen: `resolve(loaded, survey) -> Plan`, with no `auto` left in it. No torch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from pydantic import TypeAdapter

from surefoot.builtin import BUILTIN_MODEL
from surefoot.config.adapter_format import AdapterFormat
from surefoot.config.load import Loaded
from surefoot.config.optimizer import AdafactorConfig
from surefoot.config.run import RunConfig
from surefoot.config.tuning import FullConfig, TuningConfig, weights_dtype
from surefoot.content import content_digest
from surefoot.data.views import Views, resolutions_of, training_views, validation_views
from surefoot.families.facts import FAMILIES, FamilyFacts, Prediction
from surefoot.finding import StepRow
from surefoot.formats.abilities import planned_formats
from surefoot.formats.files import write_whole
from surefoot.optim.facts import facts_of
from surefoot.optim.memory import WIDTHS
from surefoot.optim.schedules import Schedule
from surefoot.placement import planned_targets
from surefoot.sheet import effective_steps, planned_schedule, trained_tensors
from surefoot.sizes import Bytes, bytes_of
from surefoot.survey import ModelSurvey, Survey, cache_folder_of, resolve_path
from surefoot.tuning.targets import Target

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class PlannedBucket:
    """One size in pixels, and how many pictures are trained at it."""

    width: int
    height: int
    pictures: int


@dataclass(frozen=True)
class Plan:
    """The whole run, resolved.

    Attributes:
        config: What was asked; where it says `auto`, the field here of that name holds.
        content: Digest of the model's weights, the pictures and the captions.
        resolution: Of previews and held-out pictures: the largest that is trained at.
        bucket_step: Sides of buckets are multiples of so many pixels.
        buckets: The sizes that are trained at; a picture counts at each of its resolutions.
        formats: The formats in which an adapter is written; nothing for full fine-tuning.
        targets: For each part, the modules that get an adapter and what it is given; nothing for
            full fine-tuning.
        sheet: The effective step of each kind of tensor.
    """

    config: RunConfig
    model_path: Path
    model_config: str
    single_file: bool
    prediction: Prediction
    zero_terminal_snr: bool
    resolution: int
    vae_factor: int
    device: str
    content: str
    targets: dict[str, dict[str, Target]]
    lr: float
    schedule: Schedule
    pictures: int
    pictures_in_epoch: int
    bucket_step: int
    buckets: tuple[PlannedBucket, ...]
    validation_pictures: int
    steps: int
    epochs: float
    validate_every: int
    preview_every: int
    save_every: int
    formats: tuple[AdapterFormat, ...]
    trained_numbers: int
    sheet: tuple[StepRow, ...]
    bytes: Bytes
    run_folder: Path
    cache_folder: Path

    @property
    def watch_every(self) -> int:
        """Steps between two verdicts of the watch."""
        return _every(self.config.watch.every, max(5, self.steps // 20))

    @property
    def keeps_best(self) -> bool:
        """Whether the checkpoint with the lowest validation loss is kept."""
        return self.config.watch.keep_best and self.validation_pictures > 0

    @property
    def disk_needed(self) -> int:
        """Bytes of all that the run writes."""
        return self.bytes.needed_on_disk(self.config.save.keep + self.config.watch.keep_best)

    def whole_epochs(self, done: int) -> int:
        """How often `save.every_epochs` has gone by after `done` steps; 0 where it is off."""
        every = self.config.save.every_epochs
        if every == "off" or not self.pictures_in_epoch:
            return 0
        train = self.config.train
        seen = done * train.batch_size * train.gradient_accumulation
        # In pictures, which are whole numbers: a third of an epoch is rounded to one.
        return seen // max(1, round(every * self.pictures_in_epoch))

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is due after `done` steps, whatever the clock says."""
        return (
            done == self.steps
            or done % self.save_every == 0
            or self.whole_epochs(done) > self.whole_epochs(done - 1)
        )

    @property
    def fingerprint(self) -> str:
        """Equal for two plans exactly if they are of one run: what a checkpoint belongs to."""
        text = json.dumps(_identity(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve(loaded: Loaded, survey: Survey) -> Plan:
    """Fills in every `auto` and computes what follows from the config and the survey."""
    config = loaded.config
    facts = FAMILIES[config.model.family]
    targets = planned_targets(config.tuning, facts, survey.model)
    lr = _lr(config, facts)
    tensors = trained_tensors(config.tuning, survey.model, targets)
    numbers = sum(tensor.numbers for tensor in tensors)
    views = planned_views(config, survey)
    in_epoch = views.in_epoch
    seen = config.train.batch_size * config.train.gradient_accumulation * config.train.steps
    resolution = _resolution(config, survey.model)
    return Plan(
        config=config,
        model_path=survey.model.path,
        model_config=_model_config(loaded, facts),
        single_file=survey.model.source == "single_file",
        prediction=_prediction(config, survey.model),
        zero_terminal_snr=_zero_terminal_snr(config, survey.model),
        resolution=resolution,
        vae_factor=survey.model.vae_factor,
        device=_device(config, survey),
        content=content_digest(survey.model, survey.data),
        targets=targets,
        lr=lr,
        schedule=planned_schedule(config),
        pictures=sum(len(scan.examples) for scan in survey.data),
        pictures_in_epoch=in_epoch,
        bucket_step=bucket_step(config, survey.model),
        buckets=_buckets(views),
        validation_pictures=len(survey.validation.examples),
        steps=config.train.steps,
        epochs=seen / in_epoch if in_epoch else 0.0,
        validate_every=_every(config.validation.every, -(-config.train.steps // 4)),
        preview_every=_every(config.preview.every, -(-config.train.steps // 2)),
        save_every=_save_every(config),
        formats=planned_formats(config.save.formats, config.tuning),
        trained_numbers=numbers,
        sheet=effective_steps(tensors, config, lr),
        bytes=bytes_of(
            config,
            tensors,
            latent_numbers=_latent_numbers(config, survey, views, facts),
            model_bytes=_model_bytes(config.tuning, survey.model),
        ),
        run_folder=survey.run_folder,
        cache_folder=cache_folder_of(survey.run_folder),
    )


def planned_views(config: RunConfig, survey: Survey) -> Views:
    """Which pictures are seen at which sizes; both the plan and the run ask here."""
    return training_views(
        survey.data,
        config.data,
        native=survey.model.sample_size,
        step=bucket_step(config, survey.model),
    )


def size_multiple(model: ModelSurvey) -> int:
    """What sides must be multiples of: every level of the network halves the latents."""
    return max(1, model.vae_factor * 2 ** max(0, model.unet_levels - 1))


def bucket_step(config: RunConfig, model: ModelSurvey) -> int:
    """Sides of buckets are multiples of so many pixels."""
    asked = config.data.bucket_step
    return size_multiple(model) if asked == "auto" else asked


def span(numbers: Iterable[float]) -> str:
    """Numbers that differ from layer to layer, such as ranks, as one text: `16`, or `4..32`."""
    ordered = sorted(set(numbers))
    ends = [ordered[0], ordered[-1]] if len(ordered) > 1 else ordered
    return "..".join(f"{number:g}" for number in ends)


def write_plan(plan: Plan) -> None:
    """Writes plan.json into the run folder."""
    write_whole(plan.run_folder / PLAN_FILE, TypeAdapter(Plan).dump_json(plan, indent=1))


def read_plan(run_folder: Path) -> Plan:
    """Reads the plan of a run folder.

    Raises:
        OSError: If there is none.
        ValueError: If it is not a plan of this version.
    """
    return TypeAdapter(Plan).validate_json((run_folder / PLAN_FILE).read_bytes())


# What only looks or writes may change when a run goes on, and so may the machine.
_LOOKS = ("name", "folder", "preview", "save", "validation", "waive", "watch")
# How it trains from here on may change too; which weights move, and what they are shown, may not.
_SETTINGS = ("optimizer", "schedule", "objective")
_TRAIN_SETTINGS = frozenset(
    {
        "steps",
        "clip_grad_norm",
        "precision",
        "gradient_checkpointing",
        "ema",
        "ema_device",
        "offload",
    }
)


def differences(before: Plan, after: Plan) -> list[str]:
    """The dotted keys in which two plans are different runs."""
    first, second = _flat(_identity(before)), _flat(_identity(after))
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def settings(plan: Plan) -> dict[str, object]:
    """What may change when a run goes on and then makes it train differently; plain JSON values."""
    config = plan.config.model_dump(
        mode="json", include={**dict.fromkeys(_SETTINGS, True), "train": set(_TRAIN_SETTINGS)}
    )
    return {**config, "resolved": {"lr": plan.lr, "schedule": asdict(plan.schedule)}}


def changed_settings(
    before: Mapping[str, object], after: Mapping[str, object]
) -> dict[str, tuple[str, str]]:
    """Dotted keys of `settings` to the old and the new value as text, `-` where there is none."""
    first, second = _flat(before), _flat(after)
    changed = {
        key: (first.get(key, "-"), second.get(key, "-"))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    }
    automatic = '"auto"' in (first.get("optimizer.lr"), second.get("optimizer.lr"))
    return {
        key: values
        for key, values in changed.items()
        if not _implied(key, values, changed) and (key != "resolved.lr" or automatic)
    }


def _implied(key: str, values: tuple[str, str], changed: Mapping[str, object]) -> bool:
    """Keys that only one kind of a section has come and go with it; the schedule's steps follow."""
    other_kind = f"{key.partition('.')[0]}.kind" in changed
    return key.startswith("resolved.schedule.") or (other_kind and "-" in values)


def _identity(plan: Plan) -> dict[str, object]:
    config = plan.config.model_dump(
        mode="json",
        exclude={
            **dict.fromkeys((*_LOOKS, *_SETTINGS), True),
            "train": {*_TRAIN_SETTINGS, "device"},
        },
    )
    resolved: dict[str, object] = {
        "buckets": [[item.width, item.height] for item in plan.buckets],
        "prediction": plan.prediction,
        "zero_terminal_snr": plan.zero_terminal_snr,
        "content": plan.content,
        "targets": {
            # As a list, so that what differs is said of a part and not of each of its layers.
            part: [[path, target.rank, target.alpha] for path, target in layers.items()]
            for part, layers in plan.targets.items()
        },
        "pictures": plan.pictures,
        "pictures_in_epoch": plan.pictures_in_epoch,
    }
    return {**config, "resolved": resolved}


def _flat(values: object, place: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {place: json.dumps(values)}
    flat: dict[str, str] = {}
    for key, value in cast(dict[str, object], values).items():
        flat |= _flat(value, f"{place}.{key}" if place else key)
    return flat


def _every(asked: int | str, otherwise: int) -> int:
    return asked if isinstance(asked, int) else otherwise


def _save_every(config: RunConfig) -> int:
    save, steps = config.save, config.train.steps
    elsewhen = save.every_minutes != "off" or save.every_epochs != "off"
    if save.every == "off" or (save.every == "auto" and elsewhen):
        return steps
    return _every(save.every, min(500, -(-steps // 4)))


def _lr(config: RunConfig, facts: FamilyFacts) -> float:
    optimizer = config.optimizer
    if optimizer.lr != "auto":
        return optimizer.lr
    if isinstance(optimizer, AdafactorConfig) and optimizer.scale_parameter is not False:
        return 1e-2
    known = facts_of(optimizer)
    return 1.0 if known.finds_rate else known.rate * customary_rate(config, facts)


def customary_rate(config: RunConfig, facts: FamilyFacts) -> float:
    """AdamW's usual learning rate for the family and the tuning."""
    return facts.full_lr if isinstance(config.tuning, FullConfig) else facts.adapter_lr


def _prediction(config: RunConfig, model: ModelSurvey) -> Prediction:
    return model.prediction if config.model.prediction == "auto" else config.model.prediction


def _zero_terminal_snr(config: RunConfig, model: ModelSurvey) -> bool:
    asked = config.model.zero_terminal_snr
    return model.zero_snr if asked == "auto" else asked


def _resolution(config: RunConfig, model: ModelSurvey) -> int:
    data = config.data
    return max(
        side for folder in data.folders for side in resolutions_of(folder, data, model.sample_size)
    )


def _buckets(views: Views) -> tuple[PlannedBucket, ...]:
    counts = Counter(view.size for view in views.views)
    return tuple(PlannedBucket(size.width, size.height, counts[size]) for size in views.sizes)


def _latent_numbers(config: RunConfig, survey: Survey, views: Views, facts: FamilyFacts) -> int:
    """Numbers in the latents of all pictures in all their looks, held-out ones too."""
    data = config.data
    looks = data.kept_variants * (2 if data.flip else 1)
    held_out = validation_views(
        survey.validation.examples,
        data,
        resolution=_resolution(config, survey.model),
        step=bucket_step(config, survey.model),
    )
    pixels = looks * sum(view.size.area for view in views.views)
    pixels += sum(view.size.area for view in held_out)
    return facts.latent_channels * pixels // max(1, survey.model.vae_factor) ** 2


def _device(config: RunConfig, survey: Survey) -> str:
    return survey.device if config.train.device == "auto" else config.train.device


def _model_config(loaded: Loaded, facts: FamilyFacts) -> str:
    """Where the configs of a single file come from."""
    asked = loaded.config.model.config
    if asked == "auto":
        return facts.single_file_config
    if asked == "builtin":
        return str(BUILTIN_MODEL)
    local = resolve_path(loaded, asked)
    return str(local) if local.exists() else asked


def _model_bytes(tuning: TuningConfig, model: ModelSurvey) -> int:
    """The whole model as it is exported; the VAE, a tenth of it, is left out."""
    return sum(
        WIDTHS[weights_dtype(tuning) if name in tuning.parts else "fp32"] * header.numbers
        for name, part in model.parts.items()
        for header in part.headers.values()
    )
