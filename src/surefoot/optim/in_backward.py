"""Adafactor's step inside the backward pass: each gradient is used and freed as it comes."""

from __future__ import annotations

from typing import Any, cast, final

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from surefoot.optim.adafactor import Adafactor
from surefoot.optim.root_mean_square import total_norm


@final
class StepInBackward:
    """Steps a tensor of the optimizer as soon as backward has finished its gradient.

    All gradients together are as large as the weights; here one of them exists at a time. The
    weights come out as from `backward` and then `optimizer.step()`, which must not be called now.

        with StepInBackward(optimizer) as stepping:
            for batch in batches:
                loss(batch).backward()

    Gradients that are accumulated over several backward passes have to be kept until the last:
    set `enabled` to false for all passes but that. Clipping by the norm of all gradients is not
    possible, since that norm is known only when all tensors have moved; Adafactor clips each
    tensor's update itself (`clip_threshold`). For the same reason a gradient that is not finite
    keeps its own weight where it is, and not the others.
    """

    def __init__(self, optimizer: Adafactor) -> None:
        """Tensors that take no gradient now are followed as well: they may be unfrozen later."""
        self.enabled = True
        self._optimizer = optimizer
        self._norms: dict[Tensor, Tensor] = {}
        self._told: dict[Tensor, Tensor] = {}
        self._hooks = [
            self._follow(parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def _follow(self, parameter: Tensor) -> RemovableHandle:
        # torch takes such a hook only from a tensor that is to get a gradient.
        wanted = parameter.requires_grad
        parameter.requires_grad_(True)
        hook = cast(Any, parameter).register_post_accumulate_grad_hook(self._step)
        parameter.requires_grad_(wanted)
        return hook

    def __enter__(self) -> StepInBackward:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leaves the optimizer as it was: gradients stay, and `step` is to be called again."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _step(self, parameter: Tensor) -> None:
        if not self.enabled or parameter.grad is None:
            return
        self._norms[parameter] = total_norm([parameter.grad])
        self._optimizer.step_parameter(parameter)
        parameter.grad = None

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients since this was last asked, before any clipping."""
        self._told, self._norms = self._norms, {}
        return total_norm(list(self._told.values()))

    def not_finite(self) -> list[Tensor]:
        """The weights that stayed, of those whose gradients `gradient_norm` was last about."""
        return [weight for weight, norm in self._told.items() if not norm.isfinite()]
