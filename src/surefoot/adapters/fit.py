"""Whether an adapter belongs to a model: its layers are there, its updates have their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from surefoot.adapters.figures import kernel_of
from surefoot.adapters.model_weights import ModelWeights
from surefoot.finding import Finding
from surefoot.formats.adapter_file import AdapterFile
from surefoot.formats.finite import all_finite
from surefoot.formats.leaves import MAGNITUDES, Shape, Shapes, width_of

_NAMED = 5
"""So many layers are named; whoever has the wrong model sees it by then."""


def fit_findings(model: ModelWeights, adapter: AdapterFile) -> list[Finding]:
    """What keeps an adapter from being added to a model: missing layers and other shapes."""
    values = {
        "file": str(adapter.path),
        "base": model.name,
        "total": len(adapter.layers),
    }
    missing = [layer for layer in adapter.layers if not model.has(layer)]
    unlike: list[tuple[str, str, str]] = []
    for layer in set(adapter.layers).difference(missing):
        shapes, expected = adapter.shapes(layer), model.shape(layer)
        if not _fits(shapes, expected):
            out, inputs = width_of(shapes)
            unlike.append((layer, f"{out} x {inputs}", " x ".join(map(str, expected))))
    findings: list[Finding] = []
    if missing:
        names = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        more = {"count": len(missing), "names": names}
        findings.append(Finding("SF076", "error", "", {**values, **more}))
    if unlike:
        layer, found, expected = min(unlike)
        more = {"count": len(unlike), "layer": layer, "found": found, "wanted": expected}
        findings.append(Finding("SF077", "error", "", {**values, **more}))
    return findings


def finite_findings(adapter: AdapterFile) -> list[Finding]:
    """A finding for every tensor that holds NaN or infinity."""
    return [
        Finding("SF081", "error", "", {"file": str(adapter.path), "name": f"{layer}.{name}"})
        for layer in adapter.layers
        for name, leaf in adapter.read_bent(layer, finite=False).items()
        if not all_finite(leaf)
    ]


def embedding_findings(adapter: AdapterFile) -> list[Finding]:
    """A warning where a file holds trained words too, which the verbs do not carry over."""
    if not adapter.embeddings:
        return []
    words = {key.split(".")[1] for key in adapter.embeddings}
    values = {"file": str(adapter.path), "count": len(words), "example": min(words)}
    return [Finding("SF619", "warning", "", dict(values))]


def viewed(weight: Tensor, leaves: Mapping[str, Tensor]) -> Tensor:
    """The weight with as many dimensions as the adapter was made for.

    A projection is a linear layer in one program and a convolution of 1x1 in the other; a magnitude
    must be broadcast along the dimensions that it knows.
    """
    if "magnitude" not in leaves or math.prod(weight.shape[2:]) > 1:
        return weight
    ones = [1] * (leaves["magnitude"].ndim - 2)
    return weight.reshape(*weight.shape[:2], *ones)


def _fits(shapes: Shapes, weight: Shape) -> bool:
    if len(weight) < 2 or width_of(shapes) != (weight[0], math.prod(weight[1:])):
        return False
    for name in MAGNITUDES & shapes.keys():
        if shapes[name][:2] not in ((weight[0], 1), (1, weight[1])):
            return False
    kernel = kernel_of(shapes)
    # Factors of two dimensions do not tell a kernel from more inputs.
    return math.prod(kernel) == 1 or kernel == weight[2:]
