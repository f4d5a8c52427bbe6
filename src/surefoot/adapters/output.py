"""Adapters written by the verbs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from surefoot.adapters.cutting import Cutting, KeptLayer, Tell, Written
from surefoot.adapters.extract import extract, other_differences
from surefoot.adapters.fit import embedding_findings
from surefoot.adapters.model_weights import ModelWeights
from surefoot.adapters.readers import Seen
from surefoot.adapters.resize import resized
from surefoot.config.adapter_format import AdapterFormat
from surefoot.finding import Finding, Refused
from surefoot.formats.adapter_file import LAYOUT_KEY, AdapterFile, layout_metadata, write_adapter
from surefoot.formats.weights import WeightsError
from surefoot.language import _
from surefoot.release import VERSION

_OUTDATED = frozenset(
    {
        "lora_adapter_metadata",
        "modelspec.hash_sha256",
        "sshs_legacy_hash",
        "sshs_model_hash",
        "surefoot_format",
    }
)
"""What is told of the very tensors of a file; of others it would be a lie."""
_RANKS = frozenset({"ss_network_alpha", "ss_network_dim", "surefoot_alpha", "surefoot_rank"})
_MANY = 3
"""So many reasons are told one by one."""
_TOLD = 20
"""So many are in one error of `formats.adapter_file`, and then how many more there are."""


def write_in_format(
    out: Path,
    layers: Iterable[tuple[str, Mapping[str, Tensor]]],
    to: AdapterFormat,
    metadata: Mapping[str, str],
    kept: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Writes an adapter whole or not at all; `kept` as `write_adapter` has it.

    Returns:
        What readers of the format take wrongly.

    Raises:
        Refused: The format cannot hold it, with every reason.
        OSError: The disk is full or not writable.
    """
    seen = Seen()
    try:
        write_adapter(out, seen.noting(layers), to, metadata, kept)
    except WeightsError as error:
        raise Refused(
            [
                Finding("SF080", "error", "", {"format": to, "reason": reason})
                for reason in reasons_of(error, out)
            ]
        ) from None
    return seen.findings(to)


def reasons_of(error: WeightsError, path: Path) -> list[str]:
    """The reasons in an error about a file, without its name; of many the first and a number."""
    told = [line.strip().removeprefix(f"{path}:").strip() for line in str(error).splitlines()]
    reasons = [line.rstrip(".。") for line in told if line]
    if len(reasons) <= _MANY:
        return reasons
    # Where there are too many for the error itself, its last line is another number.
    rest = re.search(r"\d+", reasons[-1]) if len(reasons) > _TOLD else None
    uncounted = int(rest.group()) - 1 if rest else 0
    number = len(reasons) - 1 + uncounted
    return [_("{reason} (and {number} more reasons)").format(reason=reasons[0], number=number)]


def kept_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What is still true of an adapter whose tensors were written anew."""
    return {key: value for key, value in metadata.items() if key not in _OUTDATED}


def layout_of(model: ModelWeights | None) -> dict[str, str]:
    """The metadata by which the formats with original names number a UNet's blocks."""
    layout = None if model is None else model.unet_layout()
    return {} if layout is None else {LAYOUT_KEY: layout_metadata(layout)}


def write_extracted(
    base: ModelWeights,
    tuned: ModelWeights,
    targets: Sequence[str],
    out: Path,
    *,
    to: AdapterFormat,
    cutting: Cutting,
    tell: Tell,
) -> Written:
    """Writes the difference of two models as an adapter.

    Raises:
        Refused: Nothing differs, or the format cannot hold it.
        OSError: The disk is full or not writable.
    """
    kept: list[KeptLayer] = []

    def layers() -> Iterator[tuple[str, dict[str, Tensor]]]:
        yield from extract(base, tuned, targets, cutting, kept=kept, tell=tell)
        if not kept:
            values = {"base": base.name, "tuned": tuned.name}
            raise Refused([Finding("SF082", "error", "", dict(values))])

    metadata = {
        "format": "pt",
        "surefoot_version": VERSION,
        "surefoot_tuning": "lora",
        "surefoot_base": base.name,
        "surefoot_extracted_from": tuned.name,
        **layout_of(base),
    }
    findings = write_in_format(out, layers(), to, metadata)
    others = other_differences(base, tuned, targets)
    if others:
        values = {"count": len(others), "example": others[0]}
        findings.append(Finding("SF612", "warning", "", dict(values)))
    return Written(tuple(kept), tuple(findings))


def write_resized(
    adapter: AdapterFile, out: Path, *, to: AdapterFormat, cutting: Cutting
) -> Written:
    """Writes an adapter at a lower rank.

    Raises:
        Refused: The format cannot hold it.
        OSError: The disk is full or not writable.
    """
    kept: list[KeptLayer] = []
    kept_keys = kept_metadata(adapter.metadata)
    metadata = {key: value for key, value in kept_keys.items() if key not in _RANKS}
    layers = resized(adapter, cutting, kept=kept)
    findings = [
        *embedding_findings(adapter),
        *write_in_format(out, layers, to, metadata, adapter.names(to)),
    ]
    if any("magnitude" in adapter.shapes(layer) for layer in adapter.layers):
        findings.append(Finding("SF615", "note", ""))
    return Written(tuple(kept), tuple(findings))
