"""Which tensors Adafactor steps together: those of one shape, in one group, on one device."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from surefoot.optim.matrix_shape import matrix_shape
from surefoot.optim.rounding import compensates
from surefoot.optim.update import Members, Rule

State = MutableMapping[str, Tensor | int]
"""Of one tensor: `step`; `row` and `column`, or `square`; `momentum`; `compensation`."""


def is_sharded(tensor: Tensor) -> bool:
    """Whether processes hold a part of it each; by name, since not every torch has the class."""
    return type(tensor).__name__ == "DTensor"


@dataclass(eq=False)
class Stack:
    """Tensors of one shape; the state of each is a view of one tensor that holds all of theirs."""

    parameters: list[Tensor]
    positions: Tensor
    """(n,), int32: the place of each tensor in the optimizer, which its random numbers follow."""
    floor: Tensor
    """(n,), float32: of the step scale of each (`surefoot.optim.scaling`)."""
    per_root: Tensor
    """(n,), float32: 1 / sqrt(numbers) of each, by which a norm is an RMS."""
    moment: Tensor
    rows: int
    registry: MutableMapping[Tensor, State]
    """The optimizer's state; a tensor's entry comes with its first step."""
    states: list[State] = field(default_factory=list[State])


@dataclass(eq=False)
class Run:
    """Neighbours in a stack that have a gradient and as many steps behind them."""

    stack: Stack
    first: int
    last: int
    gradients: list[Tensor]
    step: int
    """This step's number, counted from 1."""


def build_stacks(
    parameters: Sequence[Tensor],
    floors: Sequence[float],
    first_position: int,
    states: MutableMapping[Tensor, State],
) -> list[Stack]:
    """Stacks of one group's tensors, with the state that they already have.

    Args:
        parameters: The tensors; empty and sharded ones are left out.
        floors: The floor of the step scale of each.
        first_position: Place of the first tensor in the optimizer.
        states: Of the optimizer; the entries of these tensors become views of the stacks.
    """
    places: dict[object, list[int]] = {}
    for place, parameter in enumerate(parameters):
        if parameter.numel() > 0 and not is_sharded(parameter):
            key = (parameter.shape, parameter.dtype, parameter.device)
            places.setdefault(key, []).append(place)
    stacks: list[Stack] = []
    for found in places.values():
        members = [parameters[place] for place in found]
        device, (rows, columns) = members[0].device, matrix_shape(members[0].shape)
        stack = Stack(
            parameters=members,
            positions=torch.tensor(found, dtype=torch.int32, device=device) + first_position,
            floor=torch.tensor([floors[place] for place in found], device=device),
            per_root=torch.full((len(found),), members[0].numel() ** -0.5, device=device),
            moment=torch.zeros(len(found), rows + columns, device=device),
            rows=rows,
            registry=states,
        )
        _adopt(stack)
        stacks.append(stack)
    return stacks


def _adopt(stack: Stack) -> None:
    for moment, parameter in zip(stack.moment, stack.parameters, strict=True):
        # Not by subscript, with which a defaultdict makes an entry.
        state = stack.registry.get(parameter, {})
        stack.states.append(state)
        if not state:
            continue
        views = _moment_views(moment, stack.rows, parameter)
        for name, view in views.items():
            view.copy_(torch.as_tensor(state[name]))
            state[name] = view


def _moment_views(moment: Tensor, rows: int, parameter: Tensor) -> dict[str, Tensor]:
    if rows:
        return {"row": moment[:rows], "column": moment[rows:]}
    return {"square": moment.view(parameter.shape)}


def runs(stack: Stack, gradients: Sequence[Tensor | None]) -> Iterator[Run]:
    """The tensors of a stack that have a gradient, in runs as long as possible; counts the step."""
    first = 0
    while first < len(gradients):
        if gradients[first] is None:
            first += 1
            continue
        before = _steps(stack, first)
        found: list[Tensor] = []
        for gradient in gradients[first:]:
            if gradient is None or _steps(stack, first + len(found)) != before:
                break
            found.append(gradient)
        last = first + len(found)
        yield Run(stack, first, last, found, before + 1)
        first = last


def _steps(stack: Stack, index: int) -> int:
    step = stack.states[index].get("step", 0)
    return int(step)


def begin(run: Run, rule: Rule) -> None:
    """Counts the step; a tensor's first one makes its state."""
    stack = run.stack
    for index in range(run.first, run.last):
        state, parameter = stack.states[index], stack.parameters[index]
        if not state:
            state.update(_moment_views(stack.moment[index], stack.rows, parameter))
            stack.registry[parameter] = state
        keep_further_state(state, parameter, rule)
        state["step"] = run.step


def keep_further_state(state: State, parameter: Tensor, rule: Rule) -> None:
    """Makes what a tensor's state has beside its second moment, or drops it.

    What an option that was on left behind says nothing about the steps since it is off.
    """
    if rule.beta1 <= 0:
        state.pop("momentum", None)
    elif "momentum" not in state:
        state["momentum"] = torch.zeros_like(parameter, dtype=torch.float32)
    if not compensates(parameter.dtype, rule.rounding):
        state.pop("compensation", None)
    elif "compensation" not in state:
        state["compensation"] = torch.zeros_like(parameter)


def members_of(run: Run, rule: Rule, keys: Tensor) -> Members:
    """A run with its state and (n,) keys of its random numbers, for the arithmetic."""
    stack, states = run.stack, run.stack.states[run.first : run.last]
    dtype = stack.parameters[0].dtype

    def tensors(name: str, wanted: bool) -> list[Tensor]:
        return [torch.as_tensor(state[name]) for state in states] if wanted else []

    return Members(
        parameters=stack.parameters[run.first : run.last],
        gradients=run.gradients,
        moment=stack.moment[run.first : run.last],
        rows=stack.rows,
        momentum=tensors("momentum", rule.beta1 > 0),
        compensation=tensors("compensation", compensates(dtype, rule.rounding)),
        keys=keys,
    )
