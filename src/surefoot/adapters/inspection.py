"""Everything that can be told of an adapter's file, as figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from surefoot.adapters.comfyui import straightened
from surefoot.adapters.figures import LayerFigures, measure
from surefoot.adapters.fit import embedding_findings, fit_findings, viewed
from surefoot.adapters.model_weights import ModelWeights, open_model
from surefoot.adapters.verdict import Verdict, judge, verdict_of
from surefoot.finding import Finding, Refused
from surefoot.formats.adapter_file import AdapterFile

_TOLD = frozenset(
    {
        "surefoot_version",
        "surefoot_tuning",
        "surefoot_base",
        "surefoot_steps",
        "surefoot_extracted_from",
        "modelspec.title",
        "modelspec.architecture",
        "modelspec.date",
        "ss_base_model_version",
        "ss_sd_model_name",
        "ss_network_module",
        "ss_network_args",
        "ss_network_dim",
        "ss_network_alpha",
        "ss_optimizer",
        "ss_learning_rate",
        "ss_unet_lr",
        "ss_text_encoder_lr",
        "ss_steps",
        "ss_num_epochs",
        "ss_output_name",
        "ot_branch",
        "ot_revision",
        "software",
        "training_info",
    }
)
"""Metadata that says where an adapter comes from; trainers store much besides, such as all tags."""
_LONGEST = 200  # characters of one value


@dataclass(frozen=True)
class Inspection:
    """An adapter in figures.

    Attributes:
        path: The file.
        size: Bytes.
        format: Whose names its tensors have.
        family: As guessed by those names.
        dtypes: Dtype of tensors to how many there are; `alpha` is not counted.
        told: What its metadata says of its making.
        base: Name of the model that it was compared with; "" without one.
        layers: In the order of the file.
        findings: What is wrong, worst first.
    """

    path: Path
    size: int
    format: str
    family: str
    dtypes: dict[str, int]
    told: dict[str, str]
    base: str
    layers: tuple[LayerFigures, ...]
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """In a word."""
        return verdict_of(self.findings)

    def as_json(self) -> dict[str, object]:
        """As JSON values, without the findings."""
        layers = [{**asdict(layer), "ratio": layer.ratio} for layer in self.layers]
        # JSON has no NaN.
        whole = [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in layer.items()
            }
            for layer in layers
        ]
        values = {key: value for key, value in asdict(self).items() if key != "findings"}
        return {**values, "path": str(self.path), "verdict": self.verdict, "layers": whole}


def inspect_adapter(adapter: AdapterFile, base: ModelWeights | None) -> Inspection:
    """Measures every layer.

    Args:
        adapter: An opened file.
        base: The model that it was made for. Without one that which the metadata names is taken,
            if it is on this machine and has the layers.

    Raises:
        Refused: The model given has not the adapter's layers.
    """
    notes: list[Finding] = []
    if base is None:
        base = _named_base(adapter, notes)
    elif problems := fit_findings(base, adapter):
        raise Refused(problems)
    dtypes: Counter[str] = Counter()
    layers: list[LayerFigures] = []
    for layer in adapter.layers:
        weight = None if base is None else base.read(layer)
        leaves = straightened(adapter.read_bent(layer, finite=False), weight)
        seen = None if weight is None else viewed(weight, leaves)
        layers.append(measure(layer, leaves, seen))
        dtypes.update(
            str(leaf.dtype).removeprefix("torch.")
            for name, leaf in leaves.items()
            if name != "alpha"
        )
    return Inspection(
        path=adapter.path,
        size=adapter.path.stat().st_size,
        format=adapter.format,
        family=adapter.family,
        dtypes=dict(dtypes.most_common()),
        told=_told(adapter.metadata),
        base="" if base is None else base.name,
        layers=tuple(layers),
        findings=(
            *judge(layers),
            *_alpha_findings(adapter, layers),
            *embedding_findings(adapter),
            *notes,
        ),
    )


def _alpha_findings(adapter: AdapterFile, layers: Sequence[LayerFigures]) -> list[Finding]:
    """What readers will make of an alpha that is not among a layer's tensors."""
    without = [
        layer for layer in layers if layer.rank and "alpha" not in adapter.shapes(layer.path)
    ]
    total = len(layers)
    told = [layer for layer in without if layer.alpha != layer.rank]
    if told:
        ratio = told[0].alpha / told[0].rank
        values = {"count": len(told), "total": total, "ratio": ratio, "example": told[0].path}
        return [Finding("SF610", "warning", "", dict(values))]
    # The names of diffusers and PEFT have no place for it, and what is written there has it folded
    # into the factors.
    if without and adapter.format not in ("diffusers", "peft"):
        values = {"count": len(without), "total": total, "format": adapter.format}
        return [Finding("SF616", "note", "", dict(values))]
    return []


def _named_base(adapter: AdapterFile, notes: list[Finding]) -> ModelWeights | None:
    """The model that the metadata names, where it is at hand and fits."""
    given = adapter.metadata.get("surefoot_base", "")
    if not given:
        return None
    try:
        model = open_model(given)
    except Refused:
        return None
    if not fit_findings(model, adapter):
        return model
    notes.append(Finding("SF609", "note", "", {"base": given}))
    return None


def _told(metadata: Mapping[str, str]) -> dict[str, str]:
    told: dict[str, str] = {}
    for key in sorted(metadata):
        value = " ".join(metadata[key].split())
        if key in _TOLD and value not in ("", "None", "null"):
            told[key] = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
    return told
