"""Adapters added to the weights of a model, layer by layer, into a model of the same layout."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from surefoot.adapters.casting import Cast
from surefoot.adapters.comfyui import straightened
from surefoot.adapters.cutting import Tell
from surefoot.adapters.destination import replacing_folder
from surefoot.adapters.fit import embedding_findings, finite_findings, fit_findings, viewed
from surefoot.adapters.model_weights import WEIGHT_FILES, ModelWeights
from surefoot.finding import Finding, Refused
from surefoot.formats.adapter_file import AdapterFile
from surefoot.formats.finite import all_finite
from surefoot.formats.leaves import MAGNITUDES
from surefoot.formats.streamed import Slot, TensorFile, write_streamed
from surefoot.tuning.delta import adapted_weight


@dataclass(frozen=True)
class Weighted:
    """An adapter and how much of it is added: `W + weight * (W' - W)`, for a LoRA `weight * dW`."""

    adapter: AdapterFile
    weight: float


@dataclass(frozen=True)
class Merged:
    """What was done.

    Attributes:
        layers: How many layers were changed.
        findings: What should be known about the result.
    """

    layers: int
    findings: tuple[Finding, ...]


def merge(
    model: ModelWeights,
    adapters: Sequence[Weighted],
    out: Path,
    *,
    dtype: torch.dtype | None,
    tell: Tell,
) -> Merged:
    """Writes the model with the adapters in it.

    They are added in the order given, each to what those before it have left; with LoRA alone the
    order makes no difference, with DoRA, which scales the whole row, it does. The sums are in
    float32 and rounded once, at the end.

    Args:
        model: What they are added to; it is left as it is.
        adapters: At least one.
        out: A folder if the model is one, else a file; may be replaced.
        dtype: Of every floating tensor of the result; None keeps each tensor's own.
        tell: Progress.

    Raises:
        Refused: A layer of an adapter is not in the model or has another shape, a number does
            not fit the dtype, or a changed layer holds NaN or infinity.
        OSError: The disk is full or not writable. Nothing was written then.
    """
    problems = [
        finding
        for item in adapters
        for finding in (*fit_findings(model, item.adapter), *finite_findings(item.adapter))
    ]
    if problems:
        raise Refused(problems)
    cast = Cast(dtype)
    adapted = {layer for item in adapters for layer in item.adapter.layers}
    if model.layout == "single_file":
        _write(model, model.files[0], adapters, cast, out, tell)
        return Merged(len(adapted), tuple(_notes(adapters, [], cast)))
    parts = {layer.partition(".")[0] for layer in adapted}
    left_out = _write_folder(model, adapters, parts, cast, out, tell)
    return Merged(len(adapted), tuple(_notes(adapters, left_out, cast)))


def _write(
    model: ModelWeights,
    file: TensorFile,
    adapters: Sequence[Weighted],
    cast: Cast,
    out: Path,
    tell: Tell,
) -> None:
    slots = {name: _slot(file.slot(name), cast.dtype) for name in file.headers}
    tensors = _merged_tensors(model, file, adapters, cast, tell)
    write_streamed(out, slots, tensors, _metadata(file.metadata, adapters))


def _slot(slot: Slot, dtype: torch.dtype | None) -> Slot:
    if dtype is None or not slot.dtype.is_floating_point:
        return slot
    return Slot(dtype, slot.shape)


def _merged_tensors(
    model: ModelWeights, file: TensorFile, adapters: Sequence[Weighted], cast: Cast, tell: Tell
) -> Iterator[tuple[str, Tensor]]:
    layers = model.layers_of(file)
    for name in file.headers:
        tensor = file.read(name)
        slot, layer = file.slot(name), layers.get(name, "")
        added = [item for item in adapters if layer in item.adapter.layers]
        for item in added:
            leaves = item.adapter.read_bent(layer)
            # A bent magnitude was bent for the weights of the model as it is.
            leaves = straightened(leaves, file.read(name))
            tensor = adapted_weight(viewed(tensor, leaves), leaves, item.weight)
        if added and not all_finite(tensor):
            raise Refused([Finding("SF096", "error", "", {"name": name})])
        yield name, cast(name, tensor.reshape(slot.shape), slot.dtype)
        tell(1)


def _metadata(metadata: dict[str, str], adapters: Sequence[Weighted]) -> dict[str, str]:
    """The model's own, without the hash, which is of other weights now, and what was merged."""
    kept = {key: value for key, value in metadata.items() if "hash" not in key}
    merged = [[item.adapter.path.name, item.weight] for item in adapters]
    return {"format": "pt", **kept, "surefoot_merged": json.dumps(merged, ensure_ascii=False)}


def _write_folder(
    model: ModelWeights,
    adapters: Sequence[Weighted],
    parts: set[str],
    cast: Cast,
    out: Path,
    tell: Tell,
) -> list[str]:
    """Writes the folder; returns which files were left out, as their weights would be the old."""
    streamed = {file.path: file for file in model.files}
    copied = [path for path in model.path.rglob("*") if path.is_file() and path not in streamed]
    changed = parts if cast.dtype is None else {file.path.parent.name for file in model.files}
    stale = [path for path in copied if _holds_old_weights(path, model.path, changed)]
    _require_room(model, cast.dtype, [path for path in copied if path not in stale], out)
    with replacing_folder(out) as folder:
        for path in [*streamed, *copied]:
            target = folder / path.relative_to(model.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            file = streamed.get(path)
            if file is not None and path.parent.name in changed:
                _write(model, file, adapters, cast, target, tell)
            elif path not in stale:
                shutil.copyfile(path, target)
    return sorted(path.relative_to(model.path).as_posix() for path in stale)


def _holds_old_weights(path: Path, folder: Path, changed: set[str]) -> bool:
    """Whether a file is another variant of the weights that are changed, or a file of them all."""
    relative = path.relative_to(folder)
    weights = any(relative.match(pattern) for pattern in WEIGHT_FILES)
    return weights and (len(relative.parts) == 1 or relative.parts[0] in changed)


def _require_room(
    model: ModelWeights, dtype: torch.dtype | None, copied: Sequence[Path], out: Path
) -> None:
    needed = sum(path.stat().st_size for path in copied)
    needed += sum(
        _slot(file.slot(name), dtype).size for file in model.files for name in file.headers
    )
    if needed > shutil.disk_usage(out.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))


def _notes(adapters: Sequence[Weighted], left_out: list[str], cast: Cast) -> list[Finding]:
    findings = cast.findings()
    for item in adapters:
        findings += embedding_findings(item.adapter)
    if left_out:
        findings.append(Finding("SF613", "note", "", {"names": ", ".join(left_out)}))
    with_magnitude = [
        item.adapter
        for item in adapters
        if any(MAGNITUDES & item.adapter.shapes(layer).keys() for layer in item.adapter.layers)
    ]
    if with_magnitude and len(adapters) > 1:
        findings.append(Finding("SF614", "note", "", {"file": str(with_magnitude[0].path)}))
    return findings
