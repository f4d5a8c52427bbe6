"""The difference of two models as an adapter, by singular values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from torch import Tensor

from surefoot.adapters.cutting import Cutting, KeptLayer, Tell
from surefoot.adapters.model_weights import ModelWeights, Place
from surefoot.adapters.spectrum import cut, kept_share, spectrum
from surefoot.config.tuning import Preset
from surefoot.families.facts import FAMILIES
from surefoot.finding import Finding, Refused
from surefoot.language import N_
from surefoot.tuning.targets import select_targets, unmatched_patterns

_NOT_TUNED = ("vae", "safety_checker", "image_encoder")
"""Parts to which no program adds an adapter."""
FAMILY_NEEDED = N_("linear, all, or patterns: what else there is depends on the model's family")


def targets_of(base: ModelWeights, tuned: ModelWeights, asked: Sequence[str]) -> tuple[str, ...]:
    """The layers that are compared.

    Args:
        base: The model before.
        tuned: The model after.
        asked: One preset of `tuning.targets`, or patterns of module names.

    Raises:
        Refused: The models have no such layers or differ in shape; a pattern matches none.
    """
    preset = asked[0] if len(asked) == 1 and asked[0] in get_args(Preset) else ""
    chosen: list[str] = []
    everything: dict[str, tuple[int, ...]] = {}
    for part in _parts(base):
        shapes = _shapes(base, part)
        everything |= shapes
        patterns = _preset(base, part, preset) if preset else asked
        if preset == "linear":
            shapes = {path: shape for path, shape in shapes.items() if len(shape) == 2}
        chosen += [f"{part}.{path}" for path in select_targets(shapes, patterns)]
    unmatched = () if preset else unmatched_patterns(everything, asked)
    problems = [
        Finding("SF083", "error", "", {"pattern": pattern, "base": base.name})
        for pattern in unmatched
    ]
    unlike = [layer for layer in chosen if not _alike(base, tuned, layer)]
    if unlike:
        values = {"base": base.name, "tuned": tuned.name, "example": unlike[0]}
        counts = {"count": len(unlike), "total": len(chosen)}
        problems.append(Finding("SF085", "error", "", {**values, **counts}))
    if problems:
        raise Refused(problems)
    return tuple(chosen)


def extract(
    base: ModelWeights,
    tuned: ModelWeights,
    targets: Sequence[str],
    cutting: Cutting,
    *,
    kept: list[KeptLayer],
    tell: Tell,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The layers of the adapter, one after the other; two weights are in memory at a time.

    The decomposition is the full one, in float64: randomised ones (torch.svd_lowrank) are faster
    and miss what is cut off by some percent, which here is the very figure that is reported.

    Args:
        base: The model before.
        tuned: The model after.
        targets: As `targets_of` gives them.
        cutting: Down to which rank.
        kept: Takes what each layer keeps.
        tell: Progress.

    Raises:
        Refused: A weight holds numbers that are not finite.

    Yields:
        Canonical path and leaves, float32, `alpha` equal to the rank; layers without a difference
        are left out.
    """
    for layer in targets:
        weight = base.read(layer)
        difference = tuned.read(layer).double().reshape(weight.shape) - weight.double()
        tell(1)
        if not bool(difference.isfinite().all()):
            values = {"file": f"{base.name} or {tuned.name}", "name": f"{layer}.weight"}
            raise Refused([Finding("SF081", "error", "", dict(values))])
        if not bool(difference.any()):
            continue
        whole = spectrum(difference.flatten(1))
        rank = cutting(whole.values)
        down, up = cut(whole, rank, scale=1.0)
        squared = float(whole.values.square().sum())
        kept.append(KeptLayer(layer, rank, kept_share(whole.values, rank), squared))
        yield (
            layer,
            {
                "lora_down": down.reshape(rank, *weight.shape[1:]).float(),
                "lora_up": up.reshape(-1, rank, *(1 for _ in weight.shape[2:])).float(),
                "alpha": torch.tensor(float(rank), dtype=torch.float64),
            },
        )


def other_differences(base: ModelWeights, tuned: ModelWeights, targets: Sequence[str]) -> list[str]:
    """Tensors of the parts that differ and are not among the targets, such as norms and biases."""
    taken = {f"{layer}.weight" for layer in targets}
    parts = tuple(f"{part}." for part in _parts(base))
    return [
        name
        for name, place in base.tensors.items()
        if name not in taken
        and name.startswith(parts)
        and name in tuned.tensors
        and not _equal(place.file.read(place.name), tuned.tensors[name])
    ]


def _equal(tensor: Tensor, place: Place) -> bool:
    other = place.file.read(place.name)
    return tensor.numel() == other.numel() and torch.equal(
        tensor.double().flatten(), other.double().flatten()
    )


def _parts(model: ModelWeights) -> tuple[str, ...]:
    if model.family is not None:
        return tuple(FAMILIES[model.family].parts)
    found = dict.fromkeys(name.partition(".")[0] for name in model.tensors)
    return tuple(part for part in found if part not in _NOT_TUNED)


def _shapes(model: ModelWeights, part: str) -> dict[str, tuple[int, ...]]:
    """Module path within the part to the shape of its weight."""
    layers = (
        name.removesuffix(".weight")
        for name in model.tensors
        if name.startswith(f"{part}.") and name.endswith(".weight")
    )
    return {layer.removeprefix(f"{part}."): model.shape(layer) for layer in layers}


def _preset(model: ModelWeights, part: str, preset: str) -> tuple[str, ...]:
    if model.family is not None:
        return FAMILIES[model.family].parts[part].presets[preset]
    if preset in ("linear", "all"):
        return ("*",)
    values = {"option": "--targets", "given": preset, "expected": FAMILY_NEEDED}
    raise Refused([Finding("SF078", "error", "", dict(values))])


def _alike(base: ModelWeights, tuned: ModelWeights, layer: str) -> bool:
    return tuned.has(layer) and _inner(tuned.shape(layer)) == _inner(base.shape(layer))


def _inner(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without ones at the end: some models have a linear layer as a convolution of 1 x 1."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
