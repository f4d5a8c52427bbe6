"""An inspection as lines of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from surefoot.adapters.cutting import KeptLayer, overall
from surefoot.adapters.figures import LayerFigures, WeightSource
from surefoot.adapters.inspection import Inspection
from surefoot.adapters.verdict import Verdict
from surefoot.columns import aligned
from surefoot.language import N_, _

_BAR = 30  # columns of the longest
_KINDS = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr"}
_AXES = {"output": N_("{kind}, output axis"), "input": N_("{kind}, input axis")}
_SOURCES: dict[WeightSource, str] = {
    "base": N_("of the base model"),
    "magnitude": N_("about, from the magnitudes, which began as the norms of its rows"),
    "estimate": N_("a guess by the size of the layer, right within a factor of 4"),
}
VERDICT_LINES: dict[Verdict, str] = {
    "healthy": N_("healthy"),
    "not_finite": N_("broken: numbers that are not finite"),
    "dead": N_("dead: it does nothing"),
    "exploded": N_("exploded"),
    "direction_dead": N_("its directions do nothing"),
    "magnitude_untrained": N_("its magnitudes were never trained"),
    "partly_dead": N_("partly dead"),
}


def summary(inspection: Inspection) -> list[tuple[str, str]]:
    """Names and texts of what is told of the file as a whole."""
    layers = inspection.layers
    dtypes = ", ".join(f"{name} ({count})" for name, count in inspection.dtypes.items())
    parts = Counter(layer.part for layer in layers)
    sources = dict.fromkeys(_SOURCES[layer.weight_source] for layer in layers)
    lines = [
        (_("format"), inspection.format),
        (_("family"), inspection.family or _("unknown")),
        (_("kind"), _counted(kind_words(layer) for layer in layers)),
        (_("parts"), ", ".join(f"{part} ({count})" for part, count in parts.items())),
        (_("layers"), _counted(_layer_type(layer) for layer in layers)),
        (_("rank"), _range([float(layer.rank) for layer in layers])),
        ("alpha", _range([layer.alpha for layer in layers])),
        (
            "alpha / rank",
            _range([layer.alpha / (layer.rank or layer.alpha or 1) for layer in layers]),
        ),
        (_("tensors"), dtypes),
        (_("size"), _("{size:.2f} MB").format(size=inspection.size / 1e6)),
        *((key, value) for key, value in inspection.told.items()),
        ("||W||", ", ".join(map(_, sources))),
    ]
    if inspection.base:
        lines.append((_("base model"), inspection.base))
    return lines


def kind_words(layer: LayerFigures) -> str:
    """Such as `DoRA, output axis`."""
    if layer.axis == "none":
        return _KINDS[layer.kind]
    name = (
        "DoRA"
        if layer.kind == "lora"
        else _("{kind} with magnitudes").format(kind=_KINDS[layer.kind])
    )
    return _(_AXES[layer.axis]).format(kind=name)


def layer_lines(layers: Sequence[LayerFigures], *, most: int = 0) -> list[str]:
    """A line for each layer, with a bar.

    Args:
        layers: Those of an adapter, in its order.
        most: Only so many, the largest ratios first; 0 for all, in their order.
    """
    shown = list(layers)
    if most:
        # A number that is not finite is worse than any other.
        shown.sort(key=lambda layer: (math.isfinite(layer.ratio), -layer.ratio))
        shown = shown[:most]
    finite = [layer.ratio for layer in layers if math.isfinite(layer.ratio)]
    largest = max(finite, default=0.0)
    table = [
        (_("layer"), _("rank"), "||dW||", "||W||", "||dW||/||W||", "", _("stable rank")),
        *(
            (
                layer.path,
                str(layer.rank or "-"),
                f"{layer.update_norm:.3g}",
                f"{layer.weight_norm:.3g}",
                f"{layer.ratio:.3g}",
                _bar(layer.ratio, largest),
                f"{layer.stable_rank:.1f}" if layer.stable_rank else "-",
            )
            for layer in shown
        ),
    ]
    lines = aligned(table)
    if len(shown) < len(layers):
        rest = len(layers) - len(shown)
        lines.append(_("... and {rest} more; `--layers` shows all").format(rest=rest))
    return lines


def _bar(ratio: float, largest: float) -> str:
    if not math.isfinite(ratio):
        return "?" * _BAR
    return "\N{FULL BLOCK}" * round(_BAR * ratio / largest) if largest else ""


def _layer_type(layer: LayerFigures) -> str:
    if not layer.kernel:
        return _("linear")
    return _("convolution {kernel}").format(kernel="x".join(map(str, layer.kernel)))


def _counted(words: Iterable[str]) -> str:
    counts = Counter(words)
    if len(counts) == 1:
        return f"{next(iter(counts))} ({counts.total()})"
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _range(numbers: Sequence[float]) -> str:
    """One number, or the least, the greatest and the most frequent."""
    if not numbers:
        return "-"
    least, greatest = min(numbers), max(numbers)
    if least == greatest:
        return f"{least:g}"
    frequent, count = Counter(numbers).most_common(1)[0]
    return _("{least:g} to {greatest:g}, mostly {frequent:g} ({count} of {total} layers)").format(
        least=least, greatest=greatest, frequent=frequent, count=count, total=len(numbers)
    )


def kept_lines(layers: Sequence[KeptLayer], *, most: int) -> list[str]:
    """What every layer keeps of its update, the least first, and what all keep together."""
    shown = sorted(layers, key=lambda layer: layer.kept)[:most]
    table = [
        (_("layer"), _("rank"), "||dW||", _("kept")),
        *(
            (
                layer.path,
                str(layer.rank),
                f"{math.sqrt(layer.squared_norm):.3g}",
                _share(layer.kept),
            )
            for layer in shown
        ),
    ]
    lines = aligned(table)
    if len(shown) < len(layers):
        rest = len(layers) - len(shown)
        lines.append(_("... and {rest} more, of which more is kept").format(rest=rest))
    ranks = _range([float(layer.rank) for layer in layers])
    lines.append(_("rank: {ranks}").format(ranks=ranks))
    lines.append(_("kept of all updates together: {share}").format(share=_share(overall(layers))))
    return lines


def _share(share: float) -> str:
    """In percent; what is lost stays visible where little is."""
    lost = 1 - share
    if lost <= 1e-12:
        return "100 %"
    return f"{100 * share:.2f} %" if lost > 1e-3 else _("100 % less {lost:.1e}").format(lost=lost)
