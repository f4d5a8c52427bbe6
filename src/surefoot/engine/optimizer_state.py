"""What an optimizer remembers, by the names of the trained tensors instead of by position."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from surefoot.tuning.trainable import Trainable

Number = int | float | bool | str | dict[str, Any] | None
"""Also a list, a tuple and the like: a dict says which, and where the tensors in it are."""
Memory = Tensor | Number

# The loop sets the learning rate of every step.
_NOT_ITS_OWN = frozenset({"params", "lr"})


@dataclass(frozen=True)
class GroupMemory:
    """What the optimizer itself has changed in one parameter group, such as Prodigy's `d`."""

    names: tuple[str, ...]
    values: dict[str, Memory]


@dataclass(frozen=True)
class OptimizerState:
    """All that an optimizer remembers.

    Attributes:
        kind: Its package and class, such as `surefoot.Adafactor`.
        version: Of what its entries mean; see `kind_and_version`.
        tensors: Name of a trained tensor to the entries of its state.
        groups: Those parameter groups in which the optimizer has changed something.
    """

    kind: str
    version: int
    tensors: dict[str, dict[str, Memory]]
    groups: tuple[GroupMemory, ...] = ()


def kind_and_version(optimizer: Optimizer) -> tuple[str, int]:
    """Package and class, and the class's `STATE_VERSION`, 1 if it has none.

    An optimizer whose state entries come to mean something else says so by a higher number.
    """
    found = type(optimizer)
    version: int = getattr(found, "STATE_VERSION", 1)
    return f"{found.__module__.partition('.')[0]}.{found.__qualname__}", version


@final
class OptimizerMemory:
    """Takes an optimizer's memory out and puts it back, and leaves its options alone.

    An optimizer may keep numbers of its own among the options of a parameter group. They are told
    from the options by having changed since the optimizer was built.
    """

    def __init__(self, optimizer: Optimizer, trainables: Sequence[Trainable]) -> None:
        """Remembers the groups as they are now, right after the optimizer was built."""
        self._optimizer = optimizer
        self._names = {id(item.parameter): item.name for item in trainables}
        self._built = [_values(group) for group in optimizer.param_groups]

    def read(self) -> OptimizerState:
        """The memory as it is now; tensors are those of the optimizer, not copies.

        Raises:
            TypeError: If it remembers something that is neither a tensor nor plain.
        """
        kind, version = kind_and_version(self._optimizer)
        tensors: dict[str, dict[str, Memory]] = {}
        groups: list[GroupMemory] = []
        for group, built in zip(self._optimizer.param_groups, self._built, strict=True):
            names = self._names_in(group)
            changed = {
                key: value
                for key, value in _values(group).items()
                if key not in built or not _same(value, built[key])
            }
            if changed:
                groups.append(GroupMemory(names, changed))
            for name, parameter in zip(names, group["params"], strict=True):
                if parameter in self._optimizer.state:
                    tensors[name] = _packed(self._optimizer.state[parameter])
        return OptimizerState(kind, version, tensors, tuple(groups))

    def fits(self, state: OptimizerState) -> bool:
        """Whether a state is of this optimizer's class and version."""
        return (state.kind, state.version) == kind_and_version(self._optimizer)

    def restore(self, state: OptimizerState) -> None:
        """Puts a state back by the optimizer's own `load_state_dict`; its options stay as built."""
        whole = self._optimizer.state_dict()
        by_first = {name: group.values for group in state.groups for name in group.names}
        entries: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        for group, live in zip(whole["param_groups"], self._optimizer.param_groups, strict=True):
            names = self._names_in(live)
            device = live["params"][0].device
            groups.append({**group, **_unpacked(by_first.get(names[0], {}), device)})
            for name, position in zip(names, group["params"], strict=True):
                if name in state.tensors:
                    entries[position] = _unpacked(state.tensors[name], device)
        self._optimizer.load_state_dict({**whole, "state": entries, "param_groups": groups})
        # torch has cast what is no float32, such as Prodigy's bfloat16 samples.
        for group in self._optimizer.param_groups:
            for name, parameter in zip(self._names_in(group), group["params"], strict=True):
                if name in state.tensors:
                    restored = _unpacked(state.tensors[name], parameter.device)
                    self._optimizer.state[parameter].update(restored)

    def _names_in(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(self._names[id(parameter)] for parameter in group["params"])


def _values(group: Mapping[str, object]) -> dict[str, Memory]:
    """The numbers of a group; tensors as copies, since an optimizer changes them in place."""
    return {
        key: value.detach().clone() if isinstance(value, Tensor) else cast(Number, value)
        for key, value in group.items()
        if key not in _NOT_ITS_OWN and isinstance(value, Tensor | int | float)
    }


def _same(first: Memory, second: Memory) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    return type(first) is type(second) and first == second


def _packed(values: Mapping[str, object]) -> dict[str, Memory]:
    tensors: dict[str, Tensor] = {}
    entry: dict[str, Memory] = {}
    for key, value in values.items():
        if isinstance(value, Tensor) and value.is_contiguous():
            entry[key] = value
        else:
            entry[key] = _plain(value, f"{key}/", tensors)
    return {**entry, **tensors}


def _plain(value: object, place: str, tensors: dict[str, Tensor]) -> Number:
    """A value without tensors in it; these go into `tensors`, by their place."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            # A file holds tensors row by row; others come back as they lay in memory, since that
            # decides in which order products are added up, and so the last bit.
            axes = sorted(range(value.dim()), key=value.stride, reverse=True)
            tensors[place] = value.permute(axes)
            return {"tensor": place, "axes": axes}
        case tuple() | list() | deque():
            items = [_plain(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
            length = {"longest": value.maxlen} if isinstance(value, deque) else {}
            return {type(value).__name__: items, **length}
        case dict():
            pairs = [[key, _plain(item, f"{place}/{key}", tensors)] for key, item in value.items()]
            return {"dict": pairs}
        case _:
            raise TypeError(f"{place} is a {type(value).__name__}, which no checkpoint can hold")


def _unpacked(entry: Mapping[str, Memory], device: torch.device) -> dict[str, Any]:
    return {key: _live(value, entry, device) for key, value in entry.items() if "/" not in key}


def _live(value: Any, entry: Mapping[str, Memory], device: torch.device) -> Any:  # noqa: ANN401
    match value:
        case Tensor():
            # A copy of its own: within a file's bytes it might not lie where vector instructions
            # want it, and then products are added up in another order.
            return value.to(device, copy=True)
        case {"tensor": str(place), "axes": list(axes)}:
            stored = _live(entry[place], entry, device)
            return stored.permute([axes.index(axis) for axis in range(len(axes))])
        case {"tuple": list(items)}:
            return tuple(_live(item, entry, device) for item in items)
        case {"list": list(items)}:
            return [_live(item, entry, device) for item in items]
        case {"deque": list(items), "longest": longest}:
            return deque((_live(item, entry, device) for item in items), maxlen=longest)
        case {"dict": list(pairs)}:
            return {key: _live(item, entry, device) for key, item in pairs}
        case _:
            return value
