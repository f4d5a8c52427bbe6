"""Full fine-tuning: every weight moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from surefoot.optim.scaling import TensorKind
from surefoot.tuning.layers import TuningError
from surefoot.tuning.trainable import Trainable, Tuned, root_mean_square


def attach(parts: Mapping[str, nn.Module]) -> Tuned:
    """Make every parameter of the parts trainable, in float32.

    The parts are cast in place, buffers too: a step is about 1e-5 of a weight, and bfloat16 keeps
    a change only from 4e-3 on. Compute in half precision with autocast around the forward pass.

    A parameter that several modules share is trained once, under the first of its names.

    Args:
        parts: Name of a part (`unet`, `text_encoder`) to its network; changed in place.

    Raises:
        TuningError: A part has no parameters, or holds quantised ones.
    """
    problems = list(_problems(parts))
    if problems:
        raise TuningError("\n".join(problems))
    trainables: list[Trainable] = []
    seen: set[int] = set()
    for name, part in parts.items():
        part.float().requires_grad_(True)
        for path, parameter, kind in _parameters(part):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            trainables.append(
                Trainable(
                    name=f"{name}.{path}",
                    parameter=parameter,
                    kind=kind,
                    weight_rms=root_mean_square(parameter),
                    alpha=1.0,
                    rank=0,
                )
            )
    return Tuned(trainables=tuple(trainables), layers=())


def _problems(parts: Mapping[str, nn.Module]) -> Iterator[str]:
    for name, part in parts.items():
        parameters = dict(part.named_parameters())
        if not parameters:
            yield f"{name} has no parameters, so there is nothing to train in it; leave it out."
        quantised = [path for path, value in parameters.items() if not value.is_floating_point()]
        if quantised:
            yield (
                f"{name} holds quantised weights ({quantised[0]} and {len(quantised) - 1} more), "
                "which cannot be trained in full; load it unquantised or use LoRA."
            )


def _parameters(part: nn.Module) -> Iterator[tuple[str, nn.Parameter, TensorKind]]:
    for path, module in part.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            yield (f"{path}.{leaf}" if path else leaf), parameter, _kind(module, leaf, parameter)


def _kind(module: nn.Module, leaf: str, parameter: nn.Parameter) -> TensorKind:
    if isinstance(module, nn.Embedding):
        return "embedding"
    # diffusers and transformers have norm layers of their own (RMSNorm, T5LayerNorm, ...), with
    # no class in common but the word in their name.
    if "norm" in type(module).__name__.lower():
        return "norm"
    if leaf == "bias" or parameter.ndim < 2:
        return "bias"
    return "weight"
