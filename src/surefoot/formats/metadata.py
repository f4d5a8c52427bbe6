"""What the header of an adapter says besides its tensors. No torch.

Three vocabularies: `modelspec.` (the Stability AI model metadata standard, 1.0.1), `ss_` as kohya's
scripts write it and AUTOMATIC1111, Forge and ComfyUI show it, and our own `surefoot_`.
There is no date: the same run gives the same file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from surefoot.formats.leaves import Axis

TuningKind = Literal["lora", "dora", "loha", "lokr"]
BaseVersion = Literal["sd_v1", "sd_v2"]

_ARCHITECTURES: Mapping[BaseVersion, Mapping[str, str]] = {
    "sd_v1": {"epsilon": "stable-diffusion-v1", "v_prediction": "stable-diffusion-v1"},
    "sd_v2": {"epsilon": "stable-diffusion-v2-512", "v_prediction": "stable-diffusion-v2-768-v"},
}
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass(frozen=True)
class AdapterFacts:
    """One trained adapter.

    Attributes:
        axis: What has a length in DoRA; `none` without it.
        ranks: Canonical path of each layer to its rank.
        alphas: The same to its alpha.
        convolutions: Paths whose layers are convolutions with a kernel larger than 1.
        base_hashes: Trained part to the SHA-256 of the file that held its weights.
        base_file_hash: The same where one file holds the whole model, else empty.
        tags: Folder of pictures to how often each tag of its captions comes.
        run_toml: The text that was asked for.
    """

    name: str
    version: str
    kind: TuningKind
    axis: Axis | Literal["none"]
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    convolutions: frozenset[str]
    base: str
    base_version: BaseVersion
    base_hashes: Mapping[str, str]
    base_file_hash: str
    prediction: Literal["epsilon", "v_prediction"]
    resolution: int
    steps: int
    epochs: float
    pictures: int
    batch_size: int
    gradient_accumulation: int
    lr: float
    optimizer: str
    scheduler: str
    precision: str
    seed: int
    tags: Mapping[str, Mapping[str, int]]
    run_toml: str


def adapter_metadata(facts: AdapterFacts) -> dict[str, str]:
    """Everything that the header says, in all three vocabularies."""
    return {"format": "pt", **_modelspec(facts), **_kohya(facts), **_own(facts)}


def tag_frequency(captions: Iterable[str]) -> dict[str, int]:
    """How often each tag comes in captions; tags are parted by commas."""
    tags = (tag.strip() for caption in captions for tag in caption.split(","))
    return dict(sorted(Counter(tag for tag in tags if tag).items()))


def _modelspec(facts: AdapterFacts) -> dict[str, str]:
    side = f"{facts.resolution}x{facts.resolution}"
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{_ARCHITECTURES[facts.base_version][facts.prediction]}/lora",
        "implementation": "diffusers",
        "title": facts.name,
        "resolution": side,
        "prediction_type": _PREDICTIONS[facts.prediction],
    }
    return {f"modelspec.{key}": value for key, value in values.items()}


def _kohya(facts: AdapterFacts) -> dict[str, str]:
    side = facts.resolution
    values: dict[str, object] = {
        "network_module": "networks.lora" if facts.kind == "lora" else "lycoris.kohya",
        "network_dim": _usual(facts.ranks),
        "network_alpha": _usual(facts.alphas),
        "network_args": json.dumps(_network_args(facts), sort_keys=True),
        "base_model_version": facts.base_version,
        "v2": facts.base_version != "sd_v1",
        "sd_model_name": facts.base,
        "output_name": facts.name,
        "resolution": f"({side}, {side})",
        "num_train_images": facts.pictures,
        "num_epochs": round(facts.epochs),
        "steps": facts.steps,
        "max_train_steps": facts.steps,
        "total_batch_size": facts.batch_size,
        "gradient_accumulation_steps": facts.gradient_accumulation,
        "learning_rate": f"{facts.lr:g}",
        "optimizer": facts.optimizer,
        "lr_scheduler": facts.scheduler,
        "mixed_precision": {"fp32": "no"}.get(facts.precision, facts.precision),
        "seed": facts.seed,
        "tag_frequency": json.dumps(facts.tags, ensure_ascii=False),
    }
    if facts.base_file_hash:
        values["new_sd_model_hash"] = facts.base_file_hash
    return {f"ss_{key}": str(value) for key, value in values.items()}


def _network_args(facts: AdapterFacts) -> dict[str, str]:
    """What kohya's `--network_args` would have been."""
    arguments: dict[str, str] = {}
    if facts.kind != "lora":
        arguments["algo"] = {"dora": "lora"}.get(facts.kind, facts.kind)
    if facts.axis != "none":
        arguments |= {"dora_wd": "True", "wd_on_output": str(facts.axis == "output")}
    if facts.convolutions:
        arguments["conv_dim"] = _usual({path: facts.ranks[path] for path in facts.convolutions})
        arguments["conv_alpha"] = _usual({path: facts.alphas[path] for path in facts.convolutions})
    return arguments


def _own(facts: AdapterFacts) -> dict[str, str]:
    return {
        "surefoot_version": facts.version,
        "surefoot_tuning": facts.kind,
        "surefoot_norm_axis": facts.axis,
        "surefoot_rank": _all(facts.ranks),
        "surefoot_alpha": _all(facts.alphas),
        "surefoot_base": facts.base,
        "surefoot_base_sha256": json.dumps(dict(sorted(facts.base_hashes.items()))),
        "surefoot_steps": str(facts.steps),
        "surefoot_run_toml": facts.run_toml,
    }


def _usual(numbers: Mapping[str, float]) -> str:
    """The one value of all layers, or kohya's word for several."""
    return f"{next(iter(numbers.values())):g}" if len(set(numbers.values())) == 1 else "Dynamic"


def _all(numbers: Mapping[str, float]) -> str:
    """The one value of all layers, or the value of each as JSON."""
    if len(set(numbers.values())) == 1:
        return f"{next(iter(numbers.values())):g}"
    return json.dumps({path: float(f"{number:g}") for path, number in sorted(numbers.items())})
