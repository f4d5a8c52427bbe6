"""Optimizers of libraries, built from groups of tensors and plain options.

Each library is imported where it is asked for: all of them are optional.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch.optim import Optimizer

from surefoot.optim.facts import MUONS
from surefoot.optim.memory import is_matrix

Group = dict[str, Any]


@runtime_checkable
class ShowsOtherWeights(Protocol):
    """An optimizer that trains at one point and shows another, an average (Defazio et al. 2024).

    `eval` moves the parameters to the average x, `train` back to the point y of the gradient.
    """

    def eval(self) -> None: ...  # noqa: D102
    def train(self) -> None: ...  # noqa: D102


class BadArgumentsError(ValueError):
    """A class refused the values it was given, such as a decay of 2."""


def named(name: str, groups: Sequence[Group], lr: float, options: Mapping[str, Any]) -> Optimizer:
    """A class of pytorch-optimizer.

    Its classes swallow any argument that they do not know, so that these are compared first.

    Raises:
        BadArgumentsError: If the class does not take these options or their values.
    """
    from pytorch_optimizer.optimizer import OPTIMIZER_LIST

    (kind,) = (item for item in OPTIMIZER_LIST if item.__name__ == name)
    unknown = options.keys() - inspect.signature(kind.__init__).parameters.keys()
    if unknown:
        raise BadArgumentsError(f"{name} takes no {', '.join(sorted(unknown))}")
    if name in MUONS:
        groups = [{"lr": lr} | group for group in by_matrix(groups)]
    arguments: dict[str, Any] = {"lr": lr, **options}
    try:
        return kind(list(groups), **arguments)
    except (ValueError, TypeError, AssertionError, IndexError) as error:
        raise BadArgumentsError(str(error) or type(error).__name__) from None


def by_matrix(groups: Sequence[Group]) -> list[Group]:
    """The groups, each split into tensors that Muon takes and others, which get AdamW's steps."""
    split: list[Group] = []
    for group in groups:
        for matrices in (True, False):
            chosen = [
                parameter
                for parameter in group["params"]
                if is_matrix(group["kind"], tuple(parameter.shape)) == matrices
            ]
            if chosen:
                split.append({**group, "params": chosen, "use_muon": matrices})
    return split


def adamw_8bit(
    groups: Sequence[Group],
    lr: float,
    *,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    min_8bit_size: int,
) -> Optimizer:
    """AdamW of bitsandbytes with its memory in 8 bits."""
    from bitsandbytes.optim.adamw import AdamW8bit

    return AdamW8bit(
        list(groups),
        lr=lr,
        betas=betas,
        eps=eps,
        weight_decay=weight_decay,
        min_8bit_size=min_8bit_size,
    )


def prodigy_plus(groups: Sequence[Group], lr: float, options: Mapping[str, Any]) -> Optimizer:
    """ProdigyPlusScheduleFree, for trained weights in fp32."""
    from prodigyplus import ProdigyPlusScheduleFree  # pyright: ignore[reportMissingTypeStubs]

    # With one group there is nothing to split, and it would print so.
    own = {"split_groups": False} if len(groups) == 1 else {}
    return ProdigyPlusScheduleFree(list(groups), lr, **{**options, **own})
