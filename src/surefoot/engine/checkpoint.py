"""The whole state of a run, written so that nothing is lost whenever it is killed.

A checkpoint is a folder `step-000100` with safetensors files and a `manifest.json` that is written
last and holds their hashes: without it, or with other hashes, the folder does not count.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from torch import Tensor

from surefoot.engine.optimizer_state import GroupMemory, Memory, Number, OptimizerState
from surefoot.finding import Finding, Refused
from surefoot.formats.files import sync_folder, write_whole
from surefoot.formats.weights import read_safetensors, write_safetensors

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class State:
    """What a checkpoint holds, by the names of the trained tensors.

    `settings` are those of the plan that was trained by, as `surefoot.plan.settings` gives them;
    `loss_scale` is the factor on the loss of a run in float16, and empty for others.
    """

    step: int
    tensors: dict[str, Tensor]
    optimizer: OptimizerState
    averages: dict[str, Tensor]
    settings: dict[str, object]
    loss_scale: dict[str, float] = field(default_factory=dict[str, float])


@final
class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, fingerprint: str, keep: int) -> None:
        """`fingerprint` is the plan's; `keep` the number that stay."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._keep = keep

    def write(self, state: State) -> Path:
        """Writes a checkpoint and removes the oldest ones beyond `keep`.

        Raises:
            OSError: If the disk is full; earlier checkpoints are whole.
        """
        target = self._folder / f"step-{state.step:06d}"
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        numbers, moments = _flatten(state.optimizer)
        hashes = {
            name: write_safetensors(part / name, tensors, {})
            for name, tensors in (
                ("trained.safetensors", state.tensors),
                ("optimizer.safetensors", moments),
                ("average.safetensors", state.averages),
            )
            if tensors
        }
        manifest = {
            "format": FORMAT,
            "step": state.step,
            "fingerprint": self._fingerprint,
            "settings": state.settings,
            "loss_scale": state.loss_scale,
            "optimizer": {
                "class": state.optimizer.kind,
                "state_version": state.optimizer.version,
                "numbers": numbers,
                "groups": [list(group.names) for group in state.optimizer.groups],
            },
            "sha256": hashes,
        }
        manifest["manifest_sha256"] = _digest(manifest)
        write_whole(part / _MANIFEST, json.dumps(manifest, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        sync_folder(self._folder)
        # Folders of later steps are damaged ones that a resumed run passed over: they must not
        # count among those that are kept.
        ours = [path for path in self.steps() if _step_of(path) <= state.step]
        for old in set(self.steps()) - set(ours[-self._keep :]):
            shutil.rmtree(old, ignore_errors=True)
        return target

    def steps(self) -> list[Path]:
        """The finished checkpoint folders, oldest first."""
        found = self._folder.glob("step-*")
        finished = (path for path in found if path.name.removeprefix("step-").isdecimal())
        return sorted(finished, key=_step_of)

    def read_last(self, damaged: list[Finding]) -> State | None:
        """The newest whole checkpoint, `None` if there is none.

        Args:
            damaged: Gets a finding for each checkpoint that was passed over.

        Raises:
            Refused: If the newest whole one belongs to another run.
        """
        for folder in reversed(self.steps()):
            try:
                return self._read(folder)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                values = {"file": str(folder), "reason": str(error) or type(error).__name__}
                damaged.append(Finding("SF044", "warning", "", dict(values)))
        return None

    def _read(self, folder: Path) -> State:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("manifest_sha256") != _digest(manifest):
            raise ValueError(f"{_MANIFEST} is not what was written")
        for name, expected in manifest["sha256"].items():
            with (folder / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise ValueError(f"{name}: SHA-256 mismatch")
        if manifest["fingerprint"] != self._fingerprint:
            values = {"file": str(folder), "differences": "fingerprint"}
            raise Refused([Finding("SF043", "error", "name", dict(values))])
        tensors = {name: read_safetensors(folder / name)[0] for name in manifest["sha256"]}
        return State(
            step=manifest["step"],
            tensors=tensors["trained.safetensors"],
            optimizer=_unflatten(manifest["optimizer"], tensors.get("optimizer.safetensors", {})),
            averages=tensors.get("average.safetensors", {}),
            settings=manifest["settings"],
            loss_scale=manifest["loss_scale"],
        )


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _digest(manifest: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


# Entries of a parameter group stand among those of the tensors under this name and its number; no
# tensor's name has a space.
_GROUP = "group "


def _flatten(
    state: OptimizerState,
) -> tuple[dict[str, dict[str, Number]], dict[str, Tensor]]:
    numbers: dict[str, dict[str, Number]] = {}
    tensors: dict[str, Tensor] = {}
    groups = {f"{_GROUP}{index}": group.values for index, group in enumerate(state.groups)}
    for name, values in (state.tensors | groups).items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{name}:{key}"] = value
            else:
                numbers.setdefault(name, {})[key] = value
    return numbers, tensors


def _unflatten(manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> OptimizerState:
    found: dict[str, dict[str, Memory]] = {
        name: dict(values) for name, values in manifest["numbers"].items()
    }
    for place, tensor in tensors.items():
        name, _, key = place.rpartition(":")
        found.setdefault(name, {})[key] = tensor
    return OptimizerState(
        kind=manifest["class"],
        version=manifest["state_version"],
        groups=tuple(
            GroupMemory(tuple(names), found.pop(f"{_GROUP}{index}"))
            for index, names in enumerate(manifest["groups"])
        ),
        tensors=found,
    )
