"""What a parameter group of Adafactor says, and whether it can mean it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TypedDict, cast, get_args

import torch
from torch import Tensor
from torch.optim.optimizer import StateDict

from surefoot.optim.rounding import Rounding
from surefoot.optim.scaling import ScaleParameter, TensorKind

_SMALLEST_EPS1 = 1e-30
"""The numbers of a tensor divided by it, a square on the way to RMS(U), are a float32 number."""


class AdafactorGroup(TypedDict):
    """One parameter group; all but `params`, `kind`, `weight_rms`, `alpha` are the options."""

    params: list[Tensor]
    lr: float | Tensor
    relative_step: bool
    warmup_init: bool
    scale_parameter: ScaleParameter
    clip_threshold: float
    decay_rate: float
    beta1: float
    eps1: float
    eps2: float
    weight_decay: float
    maximize: bool
    rounding: Rounding
    seed: int
    kind: TensorKind
    weight_rms: list[float]
    fan_in: list[int]
    alpha: float


def check_state(state_dict: StateDict) -> None:
    """Raises ValueError if it is the state of another optimizer."""
    states = cast(Mapping[object, Mapping[str, object]], state_dict["state"])
    for state in states.values():
        if not ({"step", "row", "column"} <= state.keys() or {"step", "square"} <= state.keys()):
            raise ValueError(
                f"this is the state of another optimizer: it holds {', '.join(sorted(state))} for "
                "a tensor, and Adafactor's holds step and row and column, or square"
            )


def warn_of_zeros(group: AdafactorGroup) -> None:
    """A group of which nothing is known is stepped by the tensors' own sizes."""
    zeros = [
        tensor
        for tensor in group["params"]
        if tensor.ndim >= 2 and not tensor.is_meta and not tensor.any()
    ]
    if zeros and group["scale_parameter"] is not False:
        warnings.warn(
            f"{len(zeros)} of the matrices of a parameter group are zero, as a new adapter has "
            f"them, and would move by {group['eps2']:g} times the learning rate only; say what "
            "they are: Adafactor(surefoot.parameter_groups(model))",
            stacklevel=4,
        )


def read_as_transformers(group: dict[str, object]) -> None:
    """There, `lr=None` goes with `relative_step`, and `beta1=None` means no momentum."""
    if group["lr"] is None and group["relative_step"]:
        group["lr"] = 1e-2
    if group["beta1"] is None:
        group["beta1"] = 0.0


def check_options(group: AdafactorGroup) -> None:
    """Raises ValueError, naming it, for an option out of its range."""
    for name in ("lr", "eps2", "weight_decay"):
        value = cast(object, group[name])
        if not isinstance(value, (int, float, Tensor)) or not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number from 0 on, but is {group[name]}")
    if not _SMALLEST_EPS1 <= group["eps1"] < math.inf:
        raise ValueError(f"eps1 must be at least {_SMALLEST_EPS1:g}, but is {group['eps1']}")
    if not group["clip_threshold"] > 0:
        raise ValueError(f"clip_threshold must be greater than 0, but is {group['clip_threshold']}")
    if not group["decay_rate"] < 0:
        raise ValueError(f"decay_rate must be less than 0, but is {group['decay_rate']}")
    if not 0 <= group["beta1"] < 1:
        raise ValueError(f"beta1 must be in [0, 1), but is {group['beta1']}")
    if group["rounding"] not in get_args(Rounding):
        known = ", ".join(f'"{word}"' for word in get_args(Rounding))
        raise ValueError(f"rounding must be one of {known}, but is {group['rounding']!r}")
    if group["warmup_init"] and not group["relative_step"]:
        raise ValueError("warmup_init needs relative_step: it is the ramp of its rate")


def check_layers(group: AdafactorGroup) -> None:
    """Raises ValueError if what the group says of its tensors does not fit them."""
    scaling = group["scale_parameter"]
    # Not `in (True, False, ...)`, which takes 1 and 0 for them.
    if not isinstance(scaling, bool) and scaling != "weight":
        raise ValueError(f'scale_parameter must be True, False or "weight", but is {scaling!r}')
    if group["kind"] not in get_args(TensorKind):
        known = ", ".join(f'"{word}"' for word in get_args(TensorKind))
        raise ValueError(f"kind must be one of {known}, but is {group['kind']!r}")
    if not 0 < group["alpha"] < math.inf:
        raise ValueError(f"alpha must be greater than 0, but is {group['alpha']}")
    if not all(0 <= rms < math.inf for rms in group["weight_rms"]):
        raise ValueError(f"weight_rms must be numbers from 0 on, but are {group['weight_rms']}")
    for name in ("weight_rms", "fan_in"):
        given = len(group[name])
        if given and given != len(group["params"]):
            raise ValueError(f"a group of {len(group['params'])} tensors has {given} {name}")
        if not given and group["scale_parameter"] == "weight" and group["kind"] == "lora_up":
            raise ValueError(f'scale_parameter="weight" needs the {name} of each lora_up')


def check_dtypes(group: AdafactorGroup) -> None:
    """Raises ValueError for numbers that cannot be stepped."""
    for parameter in group["params"]:
        if not parameter.is_floating_point():
            raise ValueError(f"Adafactor takes real floating-point tensors, not {parameter.dtype}")
        if parameter.dtype == torch.float16 and group["rounding"] == "stochastic":
            raise ValueError(
                'rounding="stochastic" is for bfloat16: take "kahan" for float16 weights'
            )
