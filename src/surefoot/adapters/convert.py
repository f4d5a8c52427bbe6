"""An adapter in the names and shapes of another program."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from surefoot.adapters.casting import Cast
from surefoot.adapters.comfyui import bend, straightened
from surefoot.adapters.figures import shapes_of
from surefoot.adapters.fit import embedding_findings, finite_findings, fit_findings
from surefoot.adapters.model_weights import ModelWeights
from surefoot.adapters.output import kept_metadata, layout_of, write_in_format
from surefoot.config.adapter_format import AdapterFormat
from surefoot.finding import Finding, Refused
from surefoot.formats.adapter_file import LAYOUT_KEY, AdapterFile
from surefoot.formats.headers import TensorHeader, read_header
from surefoot.formats.leaf_names import folded
from surefoot.formats.leaves import MAGNITUDES, axis_of
from surefoot.formats.module_names import FAMILY_NAMES
from surefoot.language import _

_ORIGINAL = ("comfyui", "comfyui-compat", "onetrainer-original")
_BLOCK = re.compile(
    r"unet\.(?P<side>down|up)_blocks\.(?P<stage>\d+)\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)"
)
_KEPT = MAGNITUDES | {"alpha"}
_MAGNITUDES = (
    ".dora_scale",
    ".lora_magnitude_vector",
    ".lora_magnitude_vector.weight",
    ".magnitude",
)


@dataclass(frozen=True)
class Converted:
    """What was done.

    Attributes:
        changes: In words.
        findings: What should be known about the result.
    """

    changes: tuple[str, ...]
    findings: tuple[Finding, ...]


def convert(
    adapter: AdapterFile,
    model: ModelWeights | None,
    out: Path,
    *,
    to: AdapterFormat,
    dtype: torch.dtype | None,
) -> Converted:
    """Writes an adapter in another format.

    Args:
        adapter: What to convert.
        model: The model that it was made for; needed to and from `comfyui-compat`.
        out: The new file.
        to: Its format.
        dtype: Of its factors; magnitudes, and with None all tensors, keep their own.

    Raises:
        Refused: The adapter holds NaN, the format cannot hold it, or the model is needed or does
            not fit.
        OSError: The disk is full or not writable. Nothing was written then.
    """
    problems = finite_findings(adapter)
    if model is None and _needs_model(adapter, to):
        problems.append(Finding("SF079", "error", "", {"format": "comfyui-compat"}))
    elif model is not None:
        problems += fit_findings(model, adapter)
    if model is None and not _layout_is_known(adapter, to):
        values = {"file": str(adapter.path), "format": to}
        problems.append(Finding("SF089", "error", "", dict(values)))
    if problems:
        raise Refused(problems)
    cast = Cast(dtype)
    layers = _layers(adapter, model, to, cast)
    metadata = {**kept_metadata(adapter.metadata), **layout_of(model)}
    findings = write_in_format(out, layers, to, metadata, adapter.names(to))
    before, after = read_header(adapter.path), read_header(out)
    changes = _changes(adapter, to, before, after)
    told = (*cast.findings(), *embedding_findings(adapter), *findings)
    return Converted(tuple(changes), told)


def _needs_model(adapter: AdapterFile, to: AdapterFormat) -> bool:
    bent = adapter.format == "comfyui-compat"
    if bent == (to == "comfyui-compat"):
        return False
    return any(axis_of(adapter.shapes(layer)) == "output" for layer in adapter.layers)


def _layout_is_known(adapter: AdapterFile, to: AdapterFormat) -> bool:
    """Whether original names, where the format has them, can be told without the model.

    They depend on how many layers a block has and which blocks have attention. A file that does
    not say so is taken to be of the released model of its family, unless its layers belie that.
    """
    names = FAMILY_NAMES.get(adapter.family)
    if names is None or LAYOUT_KEY in adapter.metadata:
        return True
    if to not in _ORIGINAL and not (to == "kohya" and names.kohya_unet == "original"):
        return True
    for match in map(_BLOCK.match, adapter.layers):
        if match is None:
            continue
        extra = 1 if match["side"] == "up" else 0
        if int(match["layer"]) >= names.unet.layers + extra:
            return False
        bare = match["side"] == "up" and int(match["stage"]) in names.unet.without_attention
        if bare and match["kind"] == "attentions":
            return False
    return True


def _layers(
    adapter: AdapterFile, model: ModelWeights | None, to: AdapterFormat, cast: Cast
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    stays_bent = adapter.format == to == "comfyui-compat"
    for layer in adapter.layers:
        weight = None if model is None or stays_bent else model.read(layer)
        leaves = straightened(adapter.read_bent(layer), weight)
        if to == "comfyui-compat" and weight is not None and "magnitude" in leaves:
            output_axis = axis_of(shapes_of(leaves)) == "output"
            leaves = bend(leaves, weight) if output_axis else leaves
        if to == "diffusers" and cast.dtype is not None and "lora_up" in leaves:
            # What the format multiplies in must have room in the dtype too.
            leaves = folded(leaves)
        yield layer, _cast(layer, leaves, cast)


def _cast(layer: str, leaves: Mapping[str, Tensor], cast: Cast) -> dict[str, Tensor]:
    return {
        # A magnitude moves by less than the roundings of 16 bits, and is small in any dtype.
        name: leaf if name in _KEPT else cast(f"{layer}.{name}", leaf, leaf.dtype)
        for name, leaf in leaves.items()
    }


def _changes(
    adapter: AdapterFile,
    to: AdapterFormat,
    before: Mapping[str, TensorHeader],
    after: Mapping[str, TensorHeader],
) -> Iterator[str]:
    yield _("format:  {before} -> {after}").format(before=adapter.format, after=to)
    yield _("tensors: {before} -> {after}").format(before=len(before), after=len(after))
    yield _("names:   {before} -> {after}").format(before=_factor(before), after=_factor(after))
    old, new = _example(before, _MAGNITUDES), _example(after, _MAGNITUDES)
    if old != new:
        yield _("magnitudes: {before} -> {after}").format(before=old, after=new)
    old, new = _example(before, (".alpha",)), _example(after, (".alpha",))
    if old and not new:
        yield _("alpha / rank is multiplied into the up factors")
    elif new and not old:
        yield _("alpha is stored beside each layer's factors")


def _factor(headers: Mapping[str, TensorHeader]) -> str:
    """The name of the first tensor that is neither an alpha nor a magnitude."""
    others = (".alpha", *_MAGNITUDES)
    return min((name for name in headers if not name.endswith(others)), default="")


def _example(headers: Mapping[str, TensorHeader], endings: tuple[str, ...]) -> str:
    """How such a tensor is called, and its shape; "" if there is none."""
    for name, header in sorted(headers.items()):
        for ending in endings:
            if name.endswith(ending):
                return f"{ending.removeprefix('.')} {list(header.shape)}"
    return ""
