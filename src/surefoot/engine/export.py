"""What a run leaves behind: an adapter in every format that was asked for, or a whole model."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from surefoot import __version__
from surefoot.adapters.comfyui import bend
from surefoot.config.adapter_format import AdapterFormat
from surefoot.config.tuning import FullConfig
from surefoot.engine.session import Session
from surefoot.formats.abilities import made_by
from surefoot.formats.adapter_file import LAYOUT_KEY, layout_metadata, write_adapter
from surefoot.formats.files import sync_folder, sync_tree
from surefoot.formats.leaves import axis_of
from surefoot.formats.metadata import (
    AdapterFacts,
    BaseVersion,
    TuningKind,
    adapter_metadata,
    tag_frequency,
)
from surefoot.formats.original import UnetLayout
from surefoot.plan import Plan
from surefoot.survey import ModelSurvey, Survey

Leaves = Mapping[str, Tensor]
_OPEN_CLIP_WIDTH = 1024  # of the captions that SD 2.x is conditioned on


@torch.no_grad()
def export(session: Session, survey: Survey) -> Path:
    """Writes what was trained into the run folder; of several files the first is returned."""
    plan = session.plan
    with session.averaged():
        if isinstance(plan.config.tuning, FullConfig):
            return _export_model(session)
        metadata = _metadata(session, survey)
        paths = [adapter_path(plan, name) for name in plan.formats]
        for path, name in zip(paths, plan.formats, strict=True):
            write_adapter(path, _layers(session, name), name, metadata)
        return paths[0]


def adapter_path(plan: Plan, adapter_format: AdapterFormat) -> Path:
    """Where the adapter in one format goes; the first format has the plain name."""
    other = "" if adapter_format == plan.formats[0] else f"-{adapter_format}"
    return plan.run_folder / f"{plan.config.name}{other}.safetensors"


def _export_model(session: Session) -> Path:
    run_folder = session.plan.run_folder
    target, part = run_folder / "model", run_folder / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    session.family.save(str(part))
    sync_tree(part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    sync_folder(run_folder)
    return target


def _layers(session: Session, adapter_format: AdapterFormat) -> Iterator[tuple[str, Leaves]]:
    tuning = session.plan.config.tuning
    for layer in session.tuned.layers:
        leaves = layer.state()
        bent = adapter_format == "comfyui-compat" and made_by(tuning) == ("lora", "output")
        leaves = bend(leaves, layer.frozen_weight()) if bent else leaves
        yield layer.path, leaves


def _metadata(session: Session, survey: Survey) -> dict[str, str]:
    plan = session.plan
    shapes = {
        layer.path: {leaf: tuple(tensor.shape) for leaf, tensor in layer.state().items()}
        for layer in session.tuned.layers
    }
    model = survey.model
    facts = AdapterFacts(
        name=plan.config.name,
        version=__version__,
        kind=cast(TuningKind, plan.config.tuning.kind),
        axis=next(map(axis_of, shapes.values())),
        ranks={layer.path: layer.rank for layer in session.tuned.layers},
        alphas={layer.path: layer.alpha for layer in session.tuned.layers},
        convolutions=frozenset(
            layer.path for layer in session.tuned.layers if math.prod(layer.weight_shape[2:]) > 1
        ),
        base=plan.config.model.path,
        base_version=_base_version(model),
        base_hashes={part: _sha256(model.parts[part].file) for part in plan.targets},
        base_file_hash=_sha256(plan.model_path) if plan.single_file else "",
        prediction=plan.prediction,
        resolution=plan.resolution,
        steps=plan.steps,
        epochs=plan.epochs,
        pictures=plan.pictures,
        batch_size=plan.config.train.batch_size,
        gradient_accumulation=plan.config.train.gradient_accumulation,
        lr=plan.lr,
        optimizer=plan.config.optimizer.kind,
        scheduler=plan.config.schedule.kind,
        precision=plan.config.train.precision,
        seed=plan.config.seed,
        tags=_tags(plan, survey),
        run_toml=(plan.run_folder / "run.toml").read_text(encoding="utf-8"),
    )
    return {
        **adapter_metadata(facts),
        LAYOUT_KEY: layout_metadata(_layout(session.family.parts["unet"])),
    }


def _base_version(model: ModelSurvey) -> BaseVersion:
    widths = {
        header.shape[1]
        for name, header in model.parts["unet"].headers.items()
        if name.endswith("attn2.to_k.weight")
    }
    return "sd_v2" if _OPEN_CLIP_WIDTH in widths else "sd_v1"


def _layout(unet: nn.Module) -> UnetLayout:
    blocks = {
        number: [name for name, _ in block.named_children()]
        for number, block in enumerate(unet.get_submodule("up_blocks").children())
    }
    layers = len(list(unet.get_submodule("down_blocks.0.resnets").children()))
    bare = tuple(number for number, names in blocks.items() if "attentions" not in names)
    return UnetLayout(layers=layers, without_attention=bare)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tags(plan: Plan, survey: Survey) -> dict[str, dict[str, int]]:
    """By folder, called as kohya's are: the repeats first, as in `10_cat`."""
    folders = plan.config.data.folders
    return {
        f"{folder.repeats}_{Path(folder.path).name}": tag_frequency(
            example.captions[0] for example in scan.examples
        )
        for folder, scan in zip(folders, survey.data, strict=True)
    }
