"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235), with a scaling that is right for adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TypedDict, cast, get_args, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from surefoot.optim.scaling import ScaleParameter, TensorKind, step_scale
from surefoot.optim.schedules import relative_rate

_SMALLEST_EPS1 = 1e-37
"""Its reciprocal root, and that times the root of the largest float32, are float32 numbers."""


class AdafactorGroup(TypedDict):
    """One parameter group; all but `params`, `kind`, `weight_rms`, `alpha` are the options."""

    params: list[Tensor]
    lr: float
    relative_step: bool
    warmup_init: bool
    scale_parameter: ScaleParameter
    clip_threshold: float
    decay_rate: float
    beta1: float
    eps1: float
    eps2: float
    weight_decay: float
    kind: TensorKind
    weight_rms: list[float]
    alpha: float


class AdafactorState(TypedDict):
    """Per tensor, fp32 whatever the tensor's dtype: row and column, or the whole second moment."""

    step: int
    row: Tensor
    column: Tensor
    square: Tensor
    momentum: Tensor


class Adafactor(Optimizer):
    """Adafactor with transformers' options and meanings, and `scale_parameter="weight"`.

    Args:
        params: Tensors or parameter groups. A group may say what its tensors are: `kind` (a
            `TensorKind`, default `"weight"`), `weight_rms` (one number a tensor: RMS of the frozen
            weight of its layer) and `alpha` (of the LoRA); only `scale_parameter="weight"` asks.
        lr: Learning rate; not used with `relative_step`.
        relative_step: Take `min(1e-2, 1/sqrt(t))` as the learning rate (paper, section 8).
        warmup_init: With `relative_step`, replace 1e-2 by `1e-6 * t`.
        scale_parameter: True multiplies each step by the tensor's own RMS, False does not,
            `"weight"` uses the layer that the tensor changes (`surefoot.optim.scaling`).
        clip_threshold: d of algorithm 4: an update with a larger RMS is scaled down to it.
        decay_rate: beta2 at step t is `1 - t**decay_rate`.
        beta1: Momentum over the updates, 0 for none. It averages the update itself; a learning
            rate of the past never enters.
        eps1: Added to each squared gradient; not 0, since a gradient of 0 would then give NaN.
        eps2: Floor under a tensor's own RMS.
        weight_decay: Decoupled; multiplied by the scaled learning rate.

    Raises:
        ValueError: For a value out of its range, in whichever group; the message names it.

    Convolutions are factored as (out, in*kh*kw); one-dimensional tensors are not factored.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, object]],
        lr: float = 1e-2,
        *,
        relative_step: bool = False,
        warmup_init: bool = False,
        scale_parameter: ScaleParameter = "weight",
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float = 0.0,
        eps1: float = 1e-30,
        eps2: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "relative_step": relative_step,
                "warmup_init": warmup_init,
                "scale_parameter": scale_parameter,
                "clip_threshold": clip_threshold,
                "decay_rate": decay_rate,
                "beta1": beta1,
                "eps1": eps1,
                "eps2": eps2,
                "weight_decay": weight_decay,
                "kind": "weight",
                "weight_rms": [],
                "alpha": 1.0,
            },
        )

    def add_param_group(self, param_group: dict[str, object]) -> None:
        """Adds a group of tensors; what it does not say is as for the others.

        Raises:
            ValueError: For a value out of its range; the group is not added then.
        """
        super().add_param_group(param_group)
        try:
            group = cast(AdafactorGroup, self.param_groups[-1])
            _check_options(group)
            _check_layers(group)
        except ValueError:
            self.param_groups.pop()
            raise

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Takes over what `state_dict` returned; the state stays fp32."""
        super().load_state_dict(state_dict)
        # torch has cast each tensor of the state to its parameter's dtype, which rounds the second
        # moment of a bf16 parameter to 8 bits.
        indices = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        held = dict(zip(indices, parameters, strict=True))
        saved = cast(Mapping[int, Mapping[str, Tensor | int]], state_dict["state"])
        for index, state in saved.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    self.state[held[index]][key] = value.to(held[index].device)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step for every tensor that has a gradient.

        Raises:
            RuntimeError: If a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for untyped in self.param_groups:
            group = cast(AdafactorGroup, untyped)
            weight_rms = group["weight_rms"] or [1.0] * len(group["params"])
            for parameter, layer_rms in zip(group["params"], weight_rms, strict=True):
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, layer_rms, group)
        return loss

    def _step_one(
        self, parameter: Tensor, gradient: Tensor, weight_rms: float, group: AdafactorGroup
    ) -> None:
        if gradient.is_sparse:
            raise RuntimeError("Adafactor takes dense gradients only")
        state = cast(AdafactorState, self.state[parameter])
        if not state:
            _start(state, parameter, group["beta1"])
        state["step"] = step = state["step"] + 1
        gradient = gradient.float()
        values = parameter.float()
        update = _normalised(gradient, state, 1.0 - step ** group["decay_rate"], group["eps1"])
        # Algorithm 4, line 8: U / max(1, RMS(U) / d).
        update.div_((_rms(update) / group["clip_threshold"]).clamp_(min=1.0))
        if group["beta1"] > 0:
            momentum = state["momentum"].lerp_(update, 1.0 - group["beta1"])
            update = momentum.clone()
        scale = step_scale(
            group["kind"],
            group["scale_parameter"],
            weight_rms=weight_rms,
            alpha=group["alpha"],
            eps2=group["eps2"],
        )
        rate = group["lr"]
        if group["relative_step"]:
            rate = relative_rate(step, warmup_init=group["warmup_init"])
        size = (_rms(values) * scale.slope).clamp_(min=scale.floor) * rate
        if group["weight_decay"] > 0:
            update.add_(values, alpha=group["weight_decay"])
        # `values` is the parameter itself when that is fp32, and a rounded-back copy otherwise.
        values.addcmul_(update, size, value=-1.0)
        if values is not parameter:
            parameter.copy_(values)


def _start(state: AdafactorState, parameter: Tensor, beta1: float) -> None:
    state["step"] = 0
    if parameter.dim() >= 2:
        matrix = parameter.flatten(1)
        state["row"] = matrix.new_zeros(matrix.shape[0], dtype=torch.float32)
        state["column"] = matrix.new_zeros(matrix.shape[1], dtype=torch.float32)
    else:
        state["square"] = torch.zeros_like(parameter, dtype=torch.float32)
    if beta1 > 0:
        state["momentum"] = torch.zeros_like(parameter, dtype=torch.float32)


def _normalised(gradient: Tensor, state: AdafactorState, beta2: float, eps1: float) -> Tensor:
    """The gradient over the root of its second moment (algorithm 4, lines 4 to 7)."""
    square = gradient.square().add_(eps1)
    if "square" in state:
        moment = state["square"].lerp_(square, 1.0 - beta2)
        return gradient * moment.rsqrt()
    matrix = square.flatten(1)
    row = state["row"].lerp_(matrix.mean(dim=1), 1.0 - beta2)
    column = state["column"].lerp_(matrix.mean(dim=0), 1.0 - beta2)
    # V = row column^T / mean(row): equation 7 with means instead of sums.
    # Two roots rather than the root of a quotient, which float32 would round to 0 for a row without
    # gradients beside large ones.
    row_root = row.rsqrt() * row.mean().sqrt()
    update = gradient.flatten(1) * row_root[:, None]
    return update.mul_(column.rsqrt()).view_as(gradient)


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def _check_options(group: AdafactorGroup) -> None:
    for name in ("lr", "eps2", "weight_decay"):
        if not 0 <= group[name] < math.inf:
            raise ValueError(f"{name} must be a number from 0 on, but is {group[name]}")
    if not _SMALLEST_EPS1 <= group["eps1"] < math.inf:
        raise ValueError(f"eps1 must be at least {_SMALLEST_EPS1:g}, but is {group['eps1']}")
    if not group["clip_threshold"] > 0:
        raise ValueError(f"clip_threshold must be greater than 0, but is {group['clip_threshold']}")
    if not group["decay_rate"] < 0:
        raise ValueError(f"decay_rate must be less than 0, but is {group['decay_rate']}")
    if not 0 <= group["beta1"] < 1:
        raise ValueError(f"beta1 must be in [0, 1), but is {group['beta1']}")
    if group["warmup_init"] and not group["relative_step"]:
        raise ValueError("warmup_init needs relative_step: it is the ramp of its rate")


def _check_layers(group: AdafactorGroup) -> None:
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
    if group["weight_rms"] and len(group["weight_rms"]) != len(group["params"]):
        raise ValueError(
            f"a group of {len(group['params'])} tensors has {len(group['weight_rms'])} weight_rms"
        )
    needs_layer = group["scale_parameter"] == "weight" and group["kind"] == "lora_up"
    if needs_layer and not group["weight_rms"]:
        raise ValueError('scale_parameter="weight" needs the weight_rms of each lora_up')
