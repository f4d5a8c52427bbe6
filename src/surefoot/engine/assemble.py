"""Plan to Session: the only module that knows every part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor
from torch.optim import Optimizer

from surefoot.config.data import DataConfig
from surefoot.config.optimizer import AdafactorConfig
from surefoot.data.batches import Batches
from surefoot.data.cache import LatentCache
from surefoot.data.encoded import EncodedPictures
from surefoot.data.views import View, validation_views
from surefoot.engine.attach import attach
from surefoot.engine.checkpoint import Checkpoints, State
from surefoot.engine.conditioning import Conditioning
from surefoot.engine.ema import MovingAverage
from surefoot.engine.events import Events
from surefoot.engine.feed import Feed
from surefoot.engine.loss_scale import LossScale
from surefoot.engine.offload import Offload
from surefoot.engine.optimizer import build_optimizer
from surefoot.engine.optimizer_state import OptimizerMemory, kind_and_version
from surefoot.engine.save_points import SavePoints
from surefoot.engine.schedule_free import ScheduleFreeAverage
from surefoot.engine.session import Session
from surefoot.engine.stride import Strides
from surefoot.engine.validation import Validation
from surefoot.engine.watch import Watch
from surefoot.engine.wiring import check_wiring
from surefoot.families import sd15
from surefoot.families.family import Family
from surefoot.finding import Finding, Refused
from surefoot.optim.adafactor import Adafactor
from surefoot.optim.facts import facts_of
from surefoot.optim.in_backward import StepInBackward
from surefoot.plan import Plan, planned_views
from surefoot.survey import Survey
from surefoot.tuning.dora import zero_rows
from surefoot.tuning.trainable import Tuned


def assemble(plan: Plan, survey: Survey, events: Events, state: State | None) -> Session:
    """Builds every part of a run, and puts a checkpoint's state into them.

    Raises:
        Refused: If the device is not there, or a class does not take its arguments.
    """
    device = open_device(plan.device)
    family = load_family(plan, device)
    tuned = attach(plan, family)
    train = plan.config.train
    optimizer = build_optimizer(plan.config.optimizer, plan.lr, tuned.trainables, plan.config.seed)
    memory = OptimizerMemory(optimizer, tuned.trainables)
    average = _average(plan, tuned, optimizer)
    scale = LossScale() if train.precision == "fp16" else None
    if train.gradient_checkpointing:
        family.enable_gradient_checkpointing()
    if train.offload:
        Offload(family.blocks(), train.offload, device)
    conditioning = Conditioning(family, "text_encoder" in plan.config.tuning.parts)
    cache = _open_cache(plan, family, events)
    views = planned_views(plan.config, survey)
    pictures = encoded(plan.config.data, family, cache, views.views)
    batches = Batches(views.sources, train.batch_size, plan.config.seed)
    findings = list(_zero_rows(tuned))
    strides = Strides(tuned.trainables)  # as they are at the start, whatever is loaded below
    if state is not None:
        load_trained(tuned, state.tensors)
        findings += _restore_optimizer(state, optimizer, memory)
        _restore_average(state, tuned, average)
        if scale is not None:
            scale.restore(state.loss_scale)
    check_wiring(tuned, optimizer)
    return Session(
        plan=plan,
        device=device,
        family=family,
        tuned=tuned,
        optimizer=optimizer,
        in_backward=_in_backward(plan, optimizer),
        memory=memory,
        average=average,
        scale=scale,
        pictures=pictures,
        feed=Feed(plan.config, pictures, batches),
        conditioning=conditioning,
        validation=_validation(plan, survey, family, conditioning, cache),
        strides=strides,
        watch=Watch(plan, strides, events, 0 if state is None else state.step),
        save_points=SavePoints(plan),
        checkpoints=open_checkpoints(plan),
        best=open_best(plan),
        events=events,
        first_step=0 if state is None else state.step,
        findings=tuple(findings),
    )


def _in_backward(plan: Plan, optimizer: Optimizer) -> StepInBackward | None:
    config = plan.config.optimizer
    asked = isinstance(config, AdafactorConfig) and config.step_in_backward
    return StepInBackward(optimizer) if asked and isinstance(optimizer, Adafactor) else None


def _average(
    plan: Plan, tuned: Tuned, optimizer: torch.optim.Optimizer
) -> MovingAverage | ScheduleFreeAverage | None:
    parameters = [item.parameter for item in tuned.trainables]
    if facts_of(plan.config.optimizer).averages:
        return ScheduleFreeAverage(optimizer, parameters)
    train = plan.config.train
    if train.ema == "off":
        return None
    return MovingAverage(
        parameters, train.ema, torch.device("cpu") if train.ema_device == "cpu" else None
    )


def open_device(name: str) -> torch.device:
    """The device, tried with one number.

    Raises:
        Refused: If torch cannot use it.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        values = {"device": name, "reason": str(error).splitlines()[0]}
        raise Refused([Finding("SF045", "error", "train.device", dict(values))]) from None
    return torch.device(name)


def load_family(plan: Plan, device: torch.device) -> Family:
    """The base model, frozen."""
    match plan.config.model.family:
        case "sd15":
            family = sd15.load(
                plan.model_path,
                single_file=plan.single_file,
                config=plan.model_config,
                prediction=plan.prediction,
                zero_terminal_snr=plan.zero_terminal_snr,
                device=device,
            )
        case _:
            assert_never(plan.config.model.family)
    for part in family.parts.values():
        part.requires_grad_(False)
    return family


def open_checkpoints(plan: Plan) -> Checkpoints:
    """The run's checkpoints."""
    folder = plan.run_folder / "checkpoints"
    return Checkpoints(folder, plan.fingerprint, plan.config.save.keep)


def open_best(plan: Plan) -> Checkpoints:
    """The checkpoint with the lowest validation loss, if the run keeps one."""
    return Checkpoints(plan.run_folder / "best", plan.fingerprint, 1)


@torch.no_grad()
def load_trained(tuned: Tuned, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors into the trained ones, by name; in place, so that the wiring stays."""
    for item in tuned.trainables:
        item.parameter.copy_(tensors[item.name])
    for name, buffer in tuned.starts().items():
        buffer.copy_(tensors[name])


def _restore_optimizer(
    state: State, optimizer: Optimizer, memory: OptimizerMemory
) -> Iterator[Finding]:
    """Another optimizer, or one whose memory has another meaning, begins with none."""
    if memory.fits(state.optimizer):
        memory.restore(state.optimizer)
        return
    kind, version = kind_and_version(optimizer)
    saved = f"{state.optimizer.kind} {state.optimizer.version}"
    values = {"saved": saved, "present": f"{kind} {version}"}
    yield Finding("SF511", "warning", "optimizer.kind", dict(values))


def _zero_rows(tuned: Tuned) -> Iterator[Finding]:
    """Source: PEFT issue 2049, where such rows of Llama 3.1 made DoRA give NaN."""
    counts = zero_rows(tuned)
    if counts:
        path = max(counts, key=lambda path: counts[path])
        values = {"rows": sum(counts.values()), "layers": len(counts), "path": path}
        yield Finding("SF512", "warning", "tuning.kind", dict(values))


@torch.no_grad()
def _restore_average(
    state: State, tuned: Tuned, average: MovingAverage | ScheduleFreeAverage | None
) -> None:
    """A moving average that was not kept before begins at the weights as they are now."""
    if isinstance(average, MovingAverage):
        for item, mean in zip(tuned.trainables, average.averages, strict=True):
            mean.copy_(state.averages.get(item.name, item.parameter))


def _open_cache(plan: Plan, family: Family, events: Events) -> LatentCache | None:
    if plan.config.data.cache == "off":
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(family.vae_weights().items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    report: Callable[[Path], None] = lambda path: events.write("cache_damaged", file=str(path))  # noqa: E731
    return LatentCache(plan.cache_folder, digest.hexdigest(), report)


def encoded(
    data: DataConfig, family: Family, cache: LatentCache | None, views: Sequence[View]
) -> EncodedPictures:
    """Pictures that are encoded by the family's own autoencoder."""

    def encode(pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = family.encode_images(pixels)
        return posterior.mean, posterior.std

    return EncodedPictures(views, data, encode, cache)


def validation_pictures(
    plan: Plan, survey: Survey, family: Family, cache: LatentCache | None
) -> EncodedPictures:
    """Held-out pictures, as they are seen without chance."""
    data = plan.config.data.without_chance()
    views = validation_views(
        survey.validation.examples, data, resolution=plan.resolution, step=plan.bucket_step
    )
    return encoded(data, family, cache, views)


def _validation(
    plan: Plan,
    survey: Survey,
    family: Family,
    conditioning: Conditioning,
    cache: LatentCache | None,
) -> Validation | None:
    if not survey.validation.examples:
        return None
    return Validation(
        validation_pictures(plan, survey, family, cache),
        family,
        conditioning,
        plan.config.captions,
        draws=plan.config.validation.draws,
        batch_size=plan.config.train.batch_size,
        seed=plan.config.seed,
    )
