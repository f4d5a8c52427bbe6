"""Full fine-tuning: every weight moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from surefoot.optim.grouping import fan_in_of, parameter_kind
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import TensorKind, usual_rms
from surefoot.tuning.layers import TuningError
from surefoot.tuning.trainable import Trainable, Tuned


def attach(parts: Mapping[str, nn.Module], dtype: torch.dtype = torch.float32) -> Tuned:
    """Make every parameter of the parts trainable, in a dtype.

    The parts are cast in place, buffers too. A step is about 1e-5 of a weight and bfloat16 rounds a
    change below 2e-3 away: only an optimizer that rounds otherwise trains weights in it. Of float32
    weights, compute in half precision with autocast around the forward pass.

    A parameter that several modules share is trained once, under the first of its names.

    Args:
        parts: Name of a part (`unet`, `text_encoder`) to its network; changed in place.
        dtype: What the parts are kept in.

    Raises:
        TuningError: A part has no parameters, or holds quantised ones.
    """
    problems = list(_problems(parts))
    if problems:
        raise TuningError("\n".join(problems))
    found: dict[int, tuple[str, nn.Parameter, TensorKind, int]] = {}
    for name, part in parts.items():
        nn.Module.to(part, dtype)  # diffusers' own warns of modules to keep in fp32, even of none
        part.requires_grad_(True)
        for path, parameter, kind, fan_in in _parameters(part):
            found.setdefault(id(parameter), (f"{name}.{path}", parameter, kind, fan_in))
    trained = list(found.values())
    sizes = root_mean_squares(parameter for _, parameter, _, _ in trained)
    trainables = tuple(
        Trainable(name, parameter, kind, rms or usual_rms(fan_in), fan_in=0, alpha=1.0, rank=0)
        for (name, parameter, kind, fan_in), rms in zip(trained, sizes, strict=True)
    )
    return Tuned(trainables=trainables, layers=())


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


def _parameters(part: nn.Module) -> Iterator[tuple[str, nn.Parameter, TensorKind, int]]:
    for path, module in part.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            kind = parameter_kind(module, leaf, parameter)
            name = f"{path}.{leaf}" if path else leaf
            yield name, parameter, kind, fan_in_of(module, parameter, kind)
