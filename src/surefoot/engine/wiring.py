"""Is every trained tensor in the optimizer, and does every one move?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor
from torch.optim import Optimizer

from surefoot.optim.grouping import Trained
from surefoot.optim.rounding import loses_digits
from surefoot.tuning.trainable import Tuned

_SAMPLE = 4096


class WiringError(RuntimeError):
    """The optimizer and the model do not hold the same tensors: a fault of surefoot itself."""


def check_wiring(tuned: Tuned, optimizer: Optimizer) -> None:
    """Compares the trained tensors with the optimizer's, by identity.

    Raises:
        WiringError: Naming the tensors that only one side has.
    """
    trained = {id(item.parameter): item.name for item in tuned.trainables}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for key, name in trained.items() if key not in held]
    strangers = len(held - trained.keys())
    frozen = [item.name for item in tuned.trainables if not item.parameter.requires_grad]
    if missing or strangers or frozen:
        raise WiringError(
            f"not in the optimizer: {missing}; in it but not trained: {strangers}; frozen: {frozen}"
        )


@final
class Movement:
    """Remembers a sample of each trained tensor, to tell later which ones have not moved."""

    def __init__(self, trained: Sequence[Trained], optimizer: Optimizer) -> None:
        """Takes the sample now."""
        self._trained = trained
        self._optimizer = optimizer
        self._before = [_sample(item.parameter) for item in trained]

    def unmoved(self) -> list[str]:
        """Names of tensors whose sample is what it was.

        Rows of an embedding may rest unused, and a small tensor in bfloat16 whose steps are not
        lost may rest for a while.
        """
        moving = {id(parameter) for parameter in _moving_sometimes(self._optimizer)}
        return [
            item.name
            for item, before in zip(self._trained, self._before, strict=True)
            if item.kind != "embedding"
            and id(item.parameter) not in moving
            and torch.equal(_sample(item.parameter), before)
        ]


def _moving_sometimes(optimizer: Optimizer) -> Iterator[Tensor]:
    """Tensors that a gradient came to, and that take a small step later or by chance."""
    for group in optimizer.param_groups:
        if group.get("rounding", "nearest") == "nearest":
            continue
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            moment = state.get("square", state.get("row"))
            # Without any gradient it is eps1.
            came = moment is not None and moment.max() > 10 * group["eps1"]
            if came and loses_digits(parameter.dtype):
                yield parameter


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().flatten()
    return flat[:: max(1, len(flat) // _SAMPLE)].clone()
