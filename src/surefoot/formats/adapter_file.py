"""Adapters in files: opened whatever program wrote them, and written for whichever is to read them.

A file is read layer by layer, by canonical names, and everything that is wrong with it is told at
once. What is written is complete or not there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from surefoot.config.adapter_format import AdapterFormat
from surefoot.formats.abilities import Hindrance, hindrance
from surefoot.formats.faults import (
    all_at_once,
    dtype_faults,
    naming_faults,
    namings_of,
    nothing_of_an_adapter,
    opened,
)
from surefoot.formats.leaf_names import magnitude_shape, split, written_leaves
from surefoot.formats.leaves import Shapes, axis_of, first_factor, kind_of, layer_problems, rank_of
from surefoot.formats.module_names import (
    FAMILY_NAMES,
    FamilyGuess,
    FileFormat,
    Naming,
    canonical,
    comfyui_clip,
    guess_family,
    module_name,
    without_attention,
)
from surefoot.formats.original import UnetLayout
from surefoot.formats.peft_settings import (
    WEIGHTS_FILE,
    PeftSettings,
    SettingsError,
    settings_by_part,
)
from surefoot.formats.streamed import TensorFile, kohya_hashes
from surefoot.formats.weights import WeightsError, write_safetensors
from surefoot.language import N_, _

FORMAT_KEY = "surefoot_format"
LAYOUT_KEY = "surefoot_unet_layout"
_EMBEDDINGS = "bundle_emb."  # what OneTrainer puts in front of them
Leaves = Mapping[str, Tensor]

HINDRANCES: dict[Hindrance, str] = {
    "method": N_("The format {format} holds LoRA and DoRA only; {layer} is another."),
    "input_axis": N_(
        "The format {format} holds no DoRA of the input axis, as {layer} is; write it as kohya or "
        "comfyui."
    ),
    "comfyui_norm": N_(
        "ComfyUI divides by the wrong norm for DoRA of the output axis, as {layer} is; write it as "
        "comfyui-compat, with the base model at hand."
    ),
}


@dataclass(frozen=True)
class _Tensor:
    """Where a leaf is in the file, and the shape that it has canonically."""

    key: str
    shape: tuple[int, ...]


@dataclass
class _Layer:
    """One layer in the file.

    Attributes:
        name: The file's name for the module.
        tensors: By leaf.
        scalar: Name of the tensor of one number that multiplies the update; "" if there is none.
    """

    name: str
    tensors: dict[str, _Tensor]
    scalar: str = ""


@final
class AdapterFile:
    """The adapter in a file.

    Attributes:
        path: Where it is.
        format: Whose names it has.
        family: Of what it was trained on, guessed from its layers.
        metadata: What its header says besides.
        layers: Canonical paths, in the order of the file.
        embeddings: Names of trained words that OneTrainer puts beside the layers; never read.
    """

    def __init__(
        self,
        file: TensorFile,
        file_format: FileFormat,
        layers: Mapping[str, _Layer],
        settings: Mapping[str, PeftSettings],
    ) -> None:
        """`open_adapter` makes them."""
        self.path = file.path
        self.format: FileFormat = file_format
        self.metadata = file.metadata
        self._file = file
        self._layers = layers
        self._settings = settings
        self.layers = tuple(layers)
        self.embeddings = tuple(key for key in file.headers if key.startswith(_EMBEDDINGS))
        shapes = {path: self.shapes(path) for path in layers}
        self.family: FamilyGuess = guess_family(shapes, file.metadata)

    def names(self, adapter_format: AdapterFormat) -> Mapping[str, str]:
        """What the file calls its layers, if that is what the format calls them; else nothing.

        Names tell less than the file does: `lora_te1` and `lora_te` are the same text encoder to a
        reader of one family and not to that of another. diffusers has names of several ages, of
        which the newest is written.
        """
        kept = adapter_format == self.format and adapter_format != "diffusers"
        return {path: layer.name for path, layer in self._layers.items()} if kept else {}

    def shapes(self, layer: str) -> dict[str, tuple[int, ...]]:
        """Leaf to canonical shape of a layer's tensors, without reading them."""
        return {leaf: tensor.shape for leaf, tensor in self._layers[layer].tensors.items()}

    def read(self, layer: str, *, finite: bool = True) -> dict[str, Tensor]:
        """The tensors of one layer by canonical leaf, on the CPU, in the dtypes of the file.

        `alpha` is always there, in float64. A factor that LyCORIS's `scalar` multiplies is given
        in float32.

        Args:
            layer: One of `layers`.
            finite: Refuse weights that are no numbers.

        Raises:
            WeightsError: Weights are NaN or infinite. Or they were bent for ComfyUI, so that they
                mean something only together with the base weights; `read_bent` gives them.
        """
        if "comfyui_magnitude" in self._layers[layer].tensors:
            raise WeightsError(
                _(
                    "{file} is of the format comfyui-compat, whose magnitudes are bent for "
                    "ComfyUI and for this base model; take a file of the same run in another "
                    "format."
                ).format(file=self.path)
            )
        return self.read_bent(layer, finite=finite)

    def read_bent(self, layer: str, *, finite: bool = True) -> dict[str, Tensor]:
        """As `read`, with `comfyui_magnitude` in the place of `magnitude` if the file has that.

        Raises:
            WeightsError: Weights are NaN or infinite.
        """
        found = {
            leaf: self._file.read(tensor.key).reshape(tensor.shape)
            for leaf, tensor in self._layers[layer].tensors.items()
        }
        if scalar := self._layers[layer].scalar:
            factor = first_factor(found)
            found[factor] = found[factor].float() * self._file.read(scalar).float()
        # torch asks no eight-bit float whether it is finite.
        broken = [leaf for leaf, each in found.items() if not bool(each.float().isfinite().all())]
        if finite and broken:
            raise WeightsError(
                _("{file}: {names} of {layer} has weights that are NaN or infinite.").format(
                    file=self.path, layer=layer, names=", ".join(broken)
                )
            )
        found["alpha"] = torch.tensor(self._alpha(layer, found.get("alpha")), dtype=torch.float64)
        return found

    def _alpha(self, layer: str, stored: Tensor | None) -> float:
        rank = rank_of(self.shapes(layer))
        if rank is None:
            return 1.0
        if stored is not None:
            # kohya's scripts write 0 for "as the rank".
            return float(stored) or float(rank)
        part, _dot, module = layer.partition(".")
        settings = self._settings.get(part) or self._settings.get("")
        return settings.effective_alpha(module, rank) if settings else float(rank)


def open_adapter(path: Path) -> AdapterFile:
    """Opens the adapter in a file, whichever program wrote it. Weights are not read yet.

    Raises:
        WeightsError: The message names everything that is wrong with it.
        OSError: The file cannot be read.
    """
    file = opened(path)
    faults: list[str] = []
    layers, namings = _found_layers(file, faults)
    if not layers:
        raise WeightsError(nothing_of_an_adapter(file))
    compat = file.metadata.get(FORMAT_KEY) == "comfyui-compat"
    for path_of_layer, layer in layers.items():
        scalar = layer.tensors.get("scalar")
        if scalar is not None and math.prod(scalar.shape) == 1:
            layer.scalar = layer.tensors.pop("scalar").key
        layer.tensors = _with_magnitude(layer.tensors, compat)
        shapes = {leaf: tensor.shape for leaf, tensor in layer.tensors.items()}
        faults += layer_problems(path_of_layer, shapes)
    try:
        peft = "peft" in namings or path.name == WEIGHTS_FILE
        peft = peft and FORMAT_KEY not in file.metadata
        settings = settings_by_part(path, file.metadata, peft=peft)
    except SettingsError as error:
        settings = {}
        faults.append(str(error))
    if faults:
        raise WeightsError(all_at_once(path, faults))
    naming: FileFormat = "comfyui-compat" if compat else next(iter(namings))
    return AdapterFile(file, naming, layers, settings)


def _found_layers(
    file: TensorFile, faults: list[str]
) -> tuple[dict[str, _Layer], dict[Naming, str]]:
    """The layers by canonical path, and whose names the file has; adds what is wrong with them."""
    keys: dict[str, Naming] = {}
    found: dict[str, _Layer] = {}
    unknown: list[str] = []
    blocks = _layout(file.metadata, "sd15").layers
    for key, header in file.headers.items():
        if key.startswith(_EMBEDDINGS):
            continue
        parsed = split(key)
        named = parsed and canonical(parsed[0], blocks)
        if parsed is None or named is None:
            unknown.append(key)
            continue
        keys[key] = named[0]
        tensors = found.setdefault(named[1], _Layer(parsed[0], {})).tensors
        if parsed[1] in tensors:
            values = {"first": tensors[parsed[1]].key, "second": key}
            faults.append(_("{first} and {second} are the same tensor.").format(**values))
        tensors[parsed[1]] = _Tensor(key, header.shape)
        faults += dtype_faults(key, parsed[1], header.dtype)
    namings = namings_of(keys)
    faults += naming_faults(unknown, namings)
    return found, namings


def _with_magnitude(leaves: dict[str, _Tensor], compat: bool) -> dict[str, _Tensor]:
    """The magnitude by its canonical name and shape, where the other tensors are whole."""
    given = [leaf for leaf in ("dora_scale", "peft_magnitude") if leaf in leaves]
    others = {leaf: tensor for leaf, tensor in leaves.items() if leaf not in given}
    shapes = {leaf: tensor.shape for leaf, tensor in others.items()}
    whole = not list(layer_problems("", shapes))
    for leaf in given:
        shape = leaves[leaf].shape
        shape = magnitude_shape(leaf, shape, shapes) if whole else shape
        bent = compat and whole and axis_of({**shapes, "magnitude": shape}) == "output"
        others["comfyui_magnitude" if bent else "magnitude"] = replace(leaves[leaf], shape=shape)
    return others


def write_adapter(
    path: Path,
    layers: Iterable[tuple[str, Leaves]],
    adapter_format: AdapterFormat,
    metadata: Mapping[str, str],
    kept: Mapping[str, str] | None = None,
) -> str:
    """Writes an adapter for the programs that read the format; whole or not at all.

    Args:
        path: Where to; its folder must exist, a file there is replaced.
        layers: Canonical path and leaves of each layer.
        adapter_format: For whom.
        metadata: Stored in the header, with the format. Its `surefoot_unet_layout` tells the
            layout of a UNet that is not of the usual size.
        kept: Names that layers have in a file of the format already, see `AdapterFile.names`.

    Returns:
        SHA-256 of the file, as 64 hexadecimal digits.

    Raises:
        WeightsError: The message names everything that the format cannot hold and everything that
            is no whole adapter. Nothing is written then.
        OSError: The disk is full, the folder is missing or not writable.
    """
    held = {layer: dict(leaves) for layer, leaves in layers}
    shapes = {
        layer: {leaf: tuple(tensor.shape) for leaf, tensor in leaves.items()}
        for layer, leaves in held.items()
    }
    faults = [fault for layer, each in shapes.items() for fault in _layer_faults(layer, each)]
    if not held:
        faults.append(_("There are no layers to write."))
    if faults:
        raise WeightsError(all_at_once(path, faults))
    names = {**_names(shapes, adapter_format, metadata), **(kept or {})}
    faults = [
        fault for layer in held for fault in _refusals(layer, shapes[layer], names, adapter_format)
    ]
    if faults:
        raise WeightsError(all_at_once(path, faults))
    old = without_attention(held)
    tensors = {
        f"{names[layer]}{suffix}": tensor.detach()
        for layer, leaves in held.items()
        for suffix, tensor in written_leaves(
            leaves, adapter_format, old_names=layer.partition(".")[0] in old
        ).items()
    }
    told = {**metadata, FORMAT_KEY: adapter_format, **_hashes(tensors, metadata)}
    return write_safetensors(path, tensors, told)


def _hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The hashes that belong to the vocabularies that the metadata speaks."""
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    specified = any(key.startswith("modelspec.") for key in metadata)
    if not training and not specified:
        return {}
    whole, piece = kohya_hashes(tensors, training)
    hashes = {"sshs_model_hash": whole, "sshs_legacy_hash": piece} if training else {}
    return hashes | ({"modelspec.hash_sha256": f"0x{whole}"} if specified else {})


def _layer_faults(layer: str, shapes: Shapes) -> Iterator[str]:
    yield from layer_problems(layer, shapes)
    if "alpha" not in shapes:
        yield _("The adapter of {layer} lacks {names}.").format(layer=layer, names="alpha")


def _names(
    shapes: Mapping[str, Shapes], adapter_format: AdapterFormat, metadata: Mapping[str, str]
) -> dict[str, str | None]:
    family = guess_family(shapes, metadata)
    layout, clip = _layout(metadata, family), comfyui_clip(shapes)
    row = FAMILY_NAMES[family]
    return {layer: module_name(layer, adapter_format, row, layout, clip) for layer in shapes}


def _refusals(
    layer: str, shapes: Shapes, names: Mapping[str, str | None], adapter_format: AdapterFormat
) -> Iterator[str]:
    values = {"layer": layer, "format": adapter_format}
    if names[layer] is None:
        yield _("The format {format} has no name for {layer}.").format(**values)
    kind, axis = kind_of(shapes), axis_of(shapes)
    assert kind != "none", "told before"
    reason = hindrance(adapter_format, kind, axis)
    if adapter_format == "diffusers" and "lora_mid" in shapes:
        reason = "method"
    if reason != "none":
        yield _(HINDRANCES[reason]).format(**values)
    elif ("comfyui_magnitude" in shapes) != (
        adapter_format == "comfyui-compat" and axis == "output"
    ):
        yield _("The magnitudes of {layer} are not those of the format {format}.").format(**values)


def _layout(metadata: Mapping[str, str], family: FamilyGuess) -> UnetLayout:
    usual = FAMILY_NAMES[family].unet
    try:
        told = json.loads(metadata.get(LAYOUT_KEY, "{}"))
        bare = told.get("without_attention", usual.without_attention)
        layout = UnetLayout(
            layers=int(told.get("layers", usual.layers)), without_attention=tuple(map(int, bare))
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return usual
    return layout if layout.layers >= 1 else usual


def layout_metadata(layout: UnetLayout) -> str:
    """What `surefoot_unet_layout` says of a layout."""
    values = {"layers": layout.layers, "without_attention": list(layout.without_attention)}
    return json.dumps(values, sort_keys=True)
