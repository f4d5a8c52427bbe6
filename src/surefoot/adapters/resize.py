"""An adapter at a lower rank, from its factors alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from surefoot.adapters.casting import narrowed
from surefoot.adapters.cutting import Cutting, KeptLayer
from surefoot.adapters.fit import finite_findings
from surefoot.adapters.spectrum import cut, kept_share, spectrum_of_product
from surefoot.finding import Finding
from surefoot.formats.adapter_file import AdapterFile
from surefoot.formats.leaves import kind_of


def resize_findings(adapter: AdapterFile) -> list[Finding]:
    """What keeps an adapter from being resized: kinds without a rank of the update, NaN."""
    findings = finite_findings(adapter)
    kinds: dict[str, int] = {}
    for layer in adapter.layers:
        kind = kind_of(adapter.shapes(layer))
        kinds[kind] = kinds.get(kind, 0) + 1
    if adapter.format == "comfyui-compat":
        findings.append(Finding("SF088", "error", "", {"file": str(adapter.path)}))
    for kind, name in (("loha", "LoHa"), ("lokr", "LoKr")):
        if kind in kinds:
            values = {"file": str(adapter.path), "kind": name, "count": kinds[kind]}
            findings.append(Finding("SF084", "error", "", dict(values)))
    return findings


def resized(
    adapter: AdapterFile, cutting: Cutting, *, kept: list[KeptLayer]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The layers of the adapter at their new ranks.

    `alpha / rank` stays what it was, so that a rate that suited the adapter still does; alpha
    changes with the rank. A rank is never raised. Of a DoRA the update of the direction is cut and
    the magnitude kept: rows keep their lengths, their directions change by what is cut.

    Args:
        adapter: Without findings of `resize_findings`.
        cutting: Down to which rank.
        kept: Takes what each layer keeps.
    """
    for layer in adapter.layers:
        leaves = adapter.read(layer)
        down, up = _two_factors(leaves)
        stored = leaves["lora_up"].dtype
        whole = spectrum_of_product(up.flatten(1), down.flatten(1))
        rank = min(cutting(whole.values), down.shape[0])
        scale = float(leaves["alpha"]) / leaves["lora_down"].shape[0]
        new_down, new_up = cut(whole, rank, scale=1.0)
        squared = scale**2 * float(whole.values.square().sum())
        kept.append(KeptLayer(layer, rank, kept_share(whole.values, rank), squared))
        others = {"magnitude": leaves["magnitude"]} if "magnitude" in leaves else {}
        yield (
            layer,
            {
                "lora_down": narrowed(new_down.reshape(rank, *down.shape[1:]), stored),
                "lora_up": narrowed(new_up.reshape(-1, rank, *up.shape[2:]), stored),
                "alpha": torch.tensor(scale * rank, dtype=torch.float64),
                **others,
            },
        )


def _two_factors(leaves: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Down (rank, in, *kernel) and up (out, rank, *ones), with a Tucker core put into the down."""
    down, up = leaves["lora_down"], leaves["lora_up"]
    if "lora_mid" in leaves:
        core = leaves["lora_mid"].double()
        down = torch.einsum("ij...,jk->ik...", core, down.double().flatten(1))
    return down, up
