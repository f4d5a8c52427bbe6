"""The weights of a whole model by the names of its loaded parts, wherever they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from torch import Tensor

from surefoot.families.facts import FAMILIES, FamilyName
from surefoot.finding import Finding, Refused
from surefoot.formats.original import UnetLayout, loaded_names
from surefoot.formats.settings import Fault, read_or_note
from surefoot.formats.streamed import TensorFile
from surefoot.language import N_
from surefoot.survey import locate_model

Layout: TypeAlias = Literal["folder", "single_file"]
_FIRST_RESNETS = "unet.down_blocks.0.resnets."
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.ckpt", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx*")
"""Files of a part's folder that may hold its weights."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies."""

    file: TensorFile
    name: str


@dataclass(frozen=True)
class ModelWeights:
    """An opened model.

    Attributes:
        name: What it was called by whoever asked for it.
        path: A diffusers folder or an original checkpoint.
        layout: Which of the two.
        family: None if neither the file nor model_index.json tells one that is known.
        tensors: `<part>.<name in the loaded part>`, such as `unet.conv_in.weight`, to its place.
        files: Everything that holds weights of the parts, each once.
    """

    name: str
    path: Path
    layout: Layout
    family: FamilyName | None
    tensors: dict[str, Place]
    files: tuple[TensorFile, ...]

    def has(self, layer: str) -> bool:
        """Whether there is a layer of this path, such as `unet.conv_in`, that has a weight."""
        return f"{layer}.weight" in self.tensors

    def shape(self, layer: str) -> tuple[int, ...]:
        """The shape of a layer's weight."""
        place = self.tensors[f"{layer}.weight"]
        return place.file.headers[place.name].shape

    def read(self, layer: str) -> Tensor:
        """A layer's weight, on the CPU, in its own dtype."""
        place = self.tensors[f"{layer}.weight"]
        return place.file.read(place.name)

    def unet_layout(self) -> UnetLayout | None:
        """How the UNet numbers its blocks, on which its original names depend; None without one."""
        first = {name.split(".")[4] for name in self.tensors if name.startswith(_FIRST_RESNETS)}
        if not first:
            return None
        ups = [name.split(".") for name in self.tensors if name.startswith("unet.up_blocks.")]
        attentive = {int(words[2]) for words in ups if words[3] == "attentions"}
        bare = {int(words[2]) for words in ups} - attentive
        return UnetLayout(layers=len(first), without_attention=tuple(sorted(bare)))

    def layers_of(self, file: TensorFile) -> dict[str, str]:
        """The names of a file's tensors that are weights of layers, to the layers."""
        return {
            place.name: name.removesuffix(".weight")
            for name, place in self.tensors.items()
            if place.file is file and name.endswith(".weight")
        }


def open_model(given: str) -> ModelWeights:
    """Opens a model without reading its weights.

    Args:
        given: A diffusers folder, a .safetensors file, a hub id of one downloaded, or `builtin`.

    Raises:
        Refused: With every reason.
    """
    path = locate_model(given, Path(given).expanduser())
    if path is None:
        raise Refused([Finding("SF074", "error", "", {"given": given})])
    return _open_file(given, path) if path.is_file() else _open_folder(given, path)


def _open_file(name: str, path: Path) -> ModelWeights:
    faults: list[Fault] = []
    if path.suffix != ".safetensors":
        raise Refused([Finding("SF024", "error", "", {"file": str(path)})])
    file = read_or_note(path, TensorFile, None, faults)
    if file is None:
        raise _refused(faults)
    for family, facts in FAMILIES.items():
        prefixes = {part: found.single_file_prefix for part, found in facts.parts.items()}
        tensors = _with_prefixes(file, prefixes)
        if all(any(name.startswith(f"{part}.") for name in tensors) for part in prefixes):
            return ModelWeights(name, path, "single_file", family, tensors, (file,))
    raise _refused([(path, N_("it is no whole checkpoint of a family that is known here"))])


def _with_prefixes(file: TensorFile, prefixes: Mapping[str, str]) -> dict[str, Place]:
    tensors: dict[str, Place] = {}
    for part, prefix in prefixes.items():
        within = [name.removeprefix(prefix) for name in file.headers if name.startswith(prefix)]
        for old, new in loaded_names(part, within).items():
            tensors[f"{part}.{new}"] = Place(file, prefix + old)
    return tensors


def _open_folder(name: str, folder: Path) -> ModelWeights:
    faults: list[Fault] = []
    tensors: dict[str, Place] = {}
    files: list[TensorFile] = []
    for part in sorted(child for child in folder.iterdir() if child.is_dir()):
        opened = [
            file
            for path in part_files(part, faults)
            if (file := read_or_note(path, TensorFile, None, faults)) is not None
        ]
        places = {name: Place(file, name) for file in opened for name in file.headers}
        for old, new in loaded_names(part.name, places).items():
            tensors[f"{part.name}.{new}"] = places[old]
        files += opened
    if not files and not faults:
        faults.append((folder, N_("none of its folders holds weights as .safetensors")))
    if faults:
        raise _refused(faults)
    return ModelWeights(name, folder, "folder", _family_of(folder), tensors, tuple(files))


def part_files(part: Path, faults: list[Fault]) -> list[Path]:
    """The files of one part that are loaded: not its variants, but all pieces of one cut apart."""
    whole = [file for file in part.glob("*.safetensors") if not _SHARD.search(file.name)]
    if whole:
        # `*.fp16.safetensors` beside the whole one is a variant that is not loaded.
        return [min(whole, key=lambda file: (len(file.name), file.name))]
    indices = sorted(part.glob("*.safetensors.index.json"), key=lambda file: len(file.name))
    if not indices:
        return []
    names = read_or_note(indices[0], _files_of_index, (), faults)
    return [part / name for name in names]


def _files_of_index(index: Path) -> tuple[str, ...]:
    try:
        names = cast(dict[str, dict[str, str]], json.loads(index.read_text(encoding="utf-8")))
        return tuple(sorted(set(names["weight_map"].values())))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(N_("it is not readable as JSON")) from None


def _family_of(folder: Path) -> FamilyName | None:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        pipeline = index.get("_class_name", "")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return next((name for name, facts in FAMILIES.items() if pipeline in facts.pipelines), None)


def _refused(faults: list[Fault]) -> Refused:
    return Refused(
        [
            Finding("SF075", "error", "", {"file": str(file), "reason": reason})
            for file, reason in faults
        ]
    )
