"""Putting adapter layers in the place of a model's own layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from surefoot.optim.frozen_weight import frozen_weight
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import TensorKind, usual_rms
from surefoot.tuning.layers import AdaptableLayer, AdapterLayer, TuningError
from surefoot.tuning.trainable import Trainable, Tuned

MakeLayer = Callable[[str, AdaptableLayer], AdapterLayer]
"""Builds an adapter layer from its full path and the layer it takes the place of."""

KINDS: Mapping[str, TensorKind] = {
    "lora_down": "lora_down",
    "lora_up": "lora_up",
    "magnitude": "magnitude",
    "hada_w1_a": "lora_down",
    "hada_w1_b": "lora_down",
    "hada_w2_a": "lora_up",
    "hada_w2_b": "lora_down",
    "lokr_w1": "lora_down",
    "lokr_w1_a": "lora_down",
    "lokr_w1_b": "lora_down",
    "lokr_w2": "lora_up",
    "lokr_w2_a": "lora_down",
    "lokr_w2_b": "lora_up",
}
"""Parameter of an adapter layer to kind of tensor: `lora_up` is what starts at zero."""


def replace_targets(
    parts: Mapping[str, nn.Module],
    targets: Mapping[str, tuple[str, ...]],
    make_layer: MakeLayer,
) -> Tuned:
    """Freeze every part and replace each target by the layer that `make_layer` builds.

    Args:
        parts: Name of a part (`unet`, `text_encoder`) to its network.
        targets: Name of a part to the module paths in it that get an adapter.
        make_layer: Called in the order of `targets`.

    Raises:
        TuningError: Names all targets that cannot carry an adapter. The parts are untouched then.
    """
    problems = list(_problems(parts, targets))
    if problems:
        raise TuningError("\n".join(problems))
    for part in parts.values():
        part.requires_grad_(False)
    layers: list[AdapterLayer] = []
    for name, paths in targets.items():
        for path in paths:
            layer = make_layer(f"{name}.{path}", _adaptable(parts[name].get_submodule(path)))
            parts[name].set_submodule(path, layer)
            layers.append(layer)
    sizes = root_mean_squares(layer.frozen_weight() for layer in layers)
    trainables = tuple(
        trainable
        for layer, weight_rms in zip(layers, sizes, strict=True)
        for trainable in _trainables(layer, weight_rms)
    )
    return Tuned(trainables=trainables, layers=tuple(layers))


def attach_adapters(
    layer: Callable[..., AdapterLayer],
    parts: Mapping[str, nn.Module],
    targets: Mapping[str, tuple[str, ...]],
    **options: object,
) -> Tuned:
    """Freeze the parts and put a layer of one kind, with the same options, in place of each target.

    Every adapter starts without effect, so that the model answers as before.

    Args:
        layer: Which kind, such as `LoraLayer`.
        parts: Name of a part (`unet`, `text_encoder`) to its network; changed in place.
        targets: Name of a part to the paths of its linear and convolution layers to adapt.
        options: What the kind takes beside the path and the frozen layer, such as rank and alpha.

    Raises:
        TuningError: A target cannot carry an adapter; the parts are untouched then.
    """
    return replace_targets(parts, targets, lambda path, base: layer(path, base, **options))


def _trainables(layer: AdapterLayer, weight_rms: float) -> Iterator[Trainable]:
    weight_rms = weight_rms or usual_rms(layer.fan_in)
    for name, parameter in layer.named_parameters(recurse=False):
        yield Trainable(
            name=f"{layer.path}.{name}",
            parameter=parameter,
            kind=KINDS[name],
            weight_rms=weight_rms * (layer.as_lora if KINDS[name] == "lora_up" else 1.0),
            fan_in=layer.fan_in,
            alpha=layer.alpha,
            rank=layer.rank,
        )


def _adaptable(module: nn.Module) -> AdaptableLayer:
    assert isinstance(module, AdaptableLayer), "_problems lets no other pass"
    return module


def _problems(
    parts: Mapping[str, nn.Module], targets: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    if not any(targets.values()):
        yield "No layer is a target, so nothing would be trained; name at least one."
    seen: dict[int, str] = {}
    for name, paths in targets.items():
        if name not in parts:
            yield f"{name} is no part of this model; its parts are: {', '.join(parts)}."
            continue
        modules = dict(parts[name].named_modules(remove_duplicate=False))
        for path in paths:
            where = f"{name}.{path}"
            if path not in modules:
                yield f"{where} is no layer of this model; take it off the targets."
                continue
            module = modules[path]
            if id(module) in seen:
                yield f"{where} is the same layer as {seen[id(module)]}; keep one of the two."
            seen[id(module)] = where
            reason = _unadaptable(module)
            if reason:
                yield f"{where} {reason}; take it off the targets."


def _unadaptable(module: nn.Module) -> str:
    """Why this module cannot carry an adapter; empty if it can."""
    kind = type(module).__name__
    if not isinstance(module, AdaptableLayer):
        return f"is a {kind}, not a linear or convolution layer"
    if isinstance(module, NonDynamicallyQuantizableLinear):
        # torch.nn.MultiheadAttention reads its weight and never calls it.
        return "is the output of torch's MultiheadAttention, which never calls it as a layer"
    try:
        frozen_weight(module, "weight")
    except ValueError as error:
        return str(error)
    return ""
