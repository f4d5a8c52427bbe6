"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235), with a scaling that is right for adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypedDict, cast, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from surefoot.optim.scaling import ScaleParameter, TensorKind, step_scale
from surefoot.optim.schedules import relative_rate


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
        scale_parameter: `"true"` multiplies each step by the tensor's own RMS, `"false"` does not,
            `"weight"` uses the layer that the tensor changes (`surefoot.optim.scaling`).
        clip_threshold: d of algorithm 4: an update with a larger RMS is scaled down to it.
        decay_rate: beta2 at step t is `1 - t**decay_rate`.
        beta1: Momentum over the updates, 0 for none. It averages the update itself; a learning
            rate of the past never enters.
        eps1: Added to each squared gradient.
        eps2: Floor under a tensor's own RMS.
        weight_decay: Decoupled; multiplied by the scaled learning rate.

    Raises:
        ValueError: For a value out of its range; the message names it.

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
        _check(lr, clip_threshold, decay_rate, beta1, eps1, eps2, weight_decay)
        if warmup_init and not relative_step:
            raise ValueError("warmup_init needs relative_step: it is the ramp of its rate")
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
        for group in self.param_groups:
            _check_group(cast(AdafactorGroup, group))

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
    row_root = (row / row.mean()).rsqrt_()
    update = gradient.flatten(1) * row_root[:, None]
    return update.mul_(column.rsqrt()).view_as(gradient)


def _rms(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def _check(
    lr: float,
    clip_threshold: float,
    decay_rate: float,
    beta1: float,
    eps1: float,
    eps2: float,
    weight_decay: float,
) -> None:
    for name, value in (("lr", lr), ("eps1", eps1), ("eps2", eps2), ("weight_decay", weight_decay)):
        if not value >= 0:
            raise ValueError(f"{name} must not be negative, but is {value}")
    if not clip_threshold > 0:
        raise ValueError(f"clip_threshold must be greater than 0, but is {clip_threshold}")
    if not decay_rate < 0:
        raise ValueError(f"decay_rate must be less than 0, but is {decay_rate}")
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1 must be in [0, 1), but is {beta1}")


def _check_group(group: AdafactorGroup) -> None:
    if group["weight_rms"] and len(group["weight_rms"]) != len(group["params"]):
        raise ValueError(
            f"a group of {len(group['params'])} tensors has {len(group['weight_rms'])} weight_rms"
        )
    needs_layer = group["scale_parameter"] == "weight" and group["kind"] == "lora_up"
    if needs_layer and not group["weight_rms"]:
        raise ValueError('scale_parameter="weight" needs the weight_rms of each lora_up')
