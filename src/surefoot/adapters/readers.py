"""What other programs will make of an adapter, told while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from surefoot.adapters.figures import shapes_of
from surefoot.config.adapter_format import AdapterFormat
from surefoot.finding import Finding
from surefoot.formats.abilities import taken_wrongly
from surefoot.formats.leaves import Axis, axis_of, kind_of


@dataclass
class Seen:
    """What the layers of an adapter have that readers take wrongly.

    Attributes:
        axes: Of their magnitudes.
        alphas: Those of the LoRAs in each part.
    """

    axes: set[Axis] = field(default_factory=set[Axis])
    alphas: dict[str, set[float]] = field(default_factory=dict[str, set[float]])

    def noting(
        self, layers: Iterable[tuple[str, Mapping[str, Tensor]]]
    ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The layers as they come."""
        for layer, leaves in layers:
            axis = axis_of(shapes_of(leaves))
            if axis != "none":
                self.axes.add(axis)
            if kind_of(leaves) == "lora":
                part = layer.partition(".")[0]
                self.alphas.setdefault(part, set()).add(float(leaves["alpha"]))
            yield layer, leaves

    def findings(self, to: AdapterFormat) -> list[Finding]:
        """What is to be known of a file in this format."""
        findings: list[Finding] = []
        if any(taken_wrongly(to, axis) for axis in self.axes):
            findings.append(Finding("SF183", "warning", "", {"formats": to}))
        unequal = [alphas for alphas in self.alphas.values() if len(alphas) > 1]
        if to == "kohya" and unequal:
            values = {"least": min(map(min, unequal)), "most": max(map(max, unequal))}
            findings.append(Finding("SF618", "note", "", {"format": to, **values}))
        return findings
