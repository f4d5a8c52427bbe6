"""Adafactor on tensors of which each process holds some rows (FSDP2's DTensors), exactly.

Row moments, weights and all that has their shape stay where the rows are. The column means,
mean(R), RMS(U) and the RMS of the weights are those of the whole tensors, by two all-reduces for
all tensors of a step together, however many there are.
"""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from surefoot.optim.matrix_shape import matrix_shape
from surefoot.optim.rounding import loses_digits, step_keys
from surefoot.optim.row_parts import RowParts
from surefoot.optim.stacks import State, keep_further_state
from surefoot.optim.stepping import block_on
from surefoot.optim.update import Rule, sizes


@dataclass(eq=False)
class ShardStep:
    """One tensor with a gradient, and what its step needs."""

    parameter: Tensor
    gradient: Tensor
    state: State
    position: int
    """The place of the tensor in the optimizer, which its random numbers follow."""
    floor: float
    """Of its step scale (`surefoot.optim.scaling`)."""
    step: int
    """This step's number, counted from 1."""
    rule: Rule


def step_sharded(found: Sequence[ShardStep]) -> list[Tensor]:
    """Steps all sharded tensors; every process of their mesh has to call it with the same ones.

    Returns:
        For each, whether its gradient was finite, (1,): the same on every process.

    Raises:
        RuntimeError: If a gradient or a state is not divided as its tensor is.
    """
    groups: dict[dist.ProcessGroup, list[_Shard]] = {}
    for one in found:
        shard = _shard_of(one)
        groups.setdefault(shard.group, []).append(shard)
    return [some for group, shards in groups.items() for some in _step_group(group, shards)]


@dataclass(eq=False)
class _Shard:
    """The rows of a tensor that are here."""

    told: ShardStep
    group: dist.ProcessGroup
    """The processes that hold its other rows."""
    weight: Tensor
    work: RowParts


def _step_group(group: dist.ProcessGroup, shards: Sequence[_Shard]) -> list[Tensor]:
    numbers: list[Tensor] = []
    for shard in shards:
        numbers += [*shard.work.squares(), _weight_squares(shard)]
    reduced = iter(_added_up(numbers, group))
    totals: list[Tensor] = []
    roots: list[Tensor] = []
    for shard in shards:
        column, mean, squares = next(reduced), next(reduced), next(reduced)
        totals.append(shard.work.update_squares(column, mean))
        roots.append(squares)
    finite: list[Tensor] = []
    for shard, total, squares in zip(shards, _added_up(totals, group), roots, strict=True):
        told = shard.told
        per_root = torch.full_like(total, told.parameter.numel() ** -0.5)
        rms = squares.sqrt_().mul_(per_root) if told.rule.slope > 0 else None
        size = sizes(rms, torch.full_like(total, told.floor), told.rule)
        finite.append(shard.work.write(total, size, per_root))
    return finite


def _added_up(numbers: Sequence[Tensor], group: dist.ProcessGroup) -> tuple[Tensor, ...]:
    """The sums over the processes, by one message; float32."""
    whole = torch.cat(list(numbers))
    dist.all_reduce(whole, group=group)  # pyright: ignore[reportUnknownMemberType]
    return torch.split(whole, [len(some) for some in numbers])  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _weight_squares(shard: _Shard) -> Tensor:
    """(1,): the sum of squares of the weights here; (0,) where no step is scaled by them."""
    weight = shard.weight
    if shard.told.rule.slope == 0:
        return torch.empty(0, device=weight.device)
    wide = torch.float64 if weight.dtype is torch.float64 else torch.float32
    (norm,) = torch._foreach_norm([weight], dtype=wide)
    return norm.float().square_()[None]


def _shard_of(one: ShardStep) -> _Shard:
    parameter = cast(DTensor, one.parameter)
    dimension = _dimension(parameter)
    mesh, shape = parameter.device_mesh, parameter.shape
    gradient = one.gradient
    if not isinstance(gradient, DTensor) or gradient.placements != parameter.placements:
        raise RuntimeError("the gradient of a sharded tensor has to be divided as the tensor is")
    weight = parameter.to_local()
    before = _rows_before(shape[0], mesh.size(dimension), mesh.get_local_rank(dimension))
    _begin(one, parameter)
    rows, columns = matrix_shape(shape)
    # Each number that is not factored is a row of its own.
    view = None if rows else (-1,)
    state = {
        name: _local(value) if view is None else _local(value).view(view)
        for name, value in one.state.items()
        if isinstance(value, Tensor)
    }
    block = block_on(weight.device)
    key = torch.full((1,), one.position, dtype=torch.int32, device=weight.device)
    if one.rule.rounding == "stochastic" and loses_digits(weight.dtype):
        key = step_keys(key, one.rule.seed, one.step)
    work = RowParts(
        parameter=weight if rows else weight.view(-1),
        gradient=gradient.to_local() if rows else gradient.to_local().reshape(-1),
        row=state["row" if rows else "square"],
        column=state["column"] if rows else None,
        momentum=state.get("momentum"),
        compensation=state.get("compensation"),
        key=key,
        all_rows=rows or columns,
        first_row=before if rows else before * math.prod(shape[1:]),
        rule=one.rule,
        at_once=max(1, block // columns if rows else block),
    )
    return _Shard(one, mesh.get_group(dimension), weight, work)


def _dimension(parameter: DTensor) -> int:
    """The dimension of the mesh along which the rows are divided."""
    divided = [i for i, place in enumerate(parameter.placements) if type(place) is not Replicate]
    if len(divided) == 1:
        place = parameter.placements[divided[0]]
        # A subclass of Shard has its rows in another order.
        if type(place) is Shard and place == Shard(0):
            return divided[0]
    raise RuntimeError(
        "Adafactor takes sharded tensors that are divided along their first axis by one dimension "
        f"of the mesh, as FSDP2 does, but one of shape {tuple(parameter.shape)} is placed as "
        f"{parameter.placements}"
    )


def _rows_before(rows: int, processes: int, rank: int) -> int:
    """Rows that the processes before this one hold: as many as `torch.chunk` gives to each."""
    return min(rows, rank * -(-rows // processes))


def _begin(one: ShardStep, parameter: DTensor) -> None:
    """Counts the step; a tensor's first one makes its state."""
    state, mesh, places = one.state, parameter.device_mesh, parameter.placements
    weight = parameter.to_local()
    rows, columns = matrix_shape(parameter.shape)
    if "step" not in state:
        if rows:
            local = weight.new_zeros(weight.shape[:1], dtype=torch.float32)
            state["row"] = DTensor.from_local(
                local, mesh, places, run_check=False, shape=torch.Size((rows,)), stride=(1,)
            )
            whole = weight.new_zeros(columns, dtype=torch.float32)
            everywhere = [Replicate()] * mesh.ndim
            state["column"] = DTensor.from_local(whole, mesh, everywhere, run_check=False)
        else:
            state["square"] = torch.zeros_like(parameter, dtype=torch.float32)
    keep_further_state(state, parameter, one.rule)
    state["step"] = one.step


def _local(tensor: Tensor) -> Tensor:
    if not isinstance(tensor, DTensor):
        raise RuntimeError(
            "the state of a sharded tensor has to be sharded too; load it by "
            "torch.distributed.checkpoint's set_optimizer_state_dict"
        )
    return tensor.to_local()


def next_step(states: MutableMapping[Tensor, State], parameter: Tensor) -> tuple[State, int]:
    """The state of a tensor, made where it has none, and the number of its next step.

    Raises:
        RuntimeError: If it is not divided along its first axis, by one dimension of its mesh.
    """
    _dimension(cast(DTensor, parameter))
    state = states.setdefault(parameter, {})
    return state, int(state.get("step", 0)) + 1
