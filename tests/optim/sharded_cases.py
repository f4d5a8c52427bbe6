"""Sharded Adafactor beside the one on whole tensors; run in each of several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from surefoot.optim import stepping
from surefoot.optim.adafactor import Adafactor

# Rows that are even over two and three processes, uneven, and fewer than the processes; a
# convolution, a vector, and matrices of one row or column, which are not factored.
SHAPES = [(12, 8), (7, 5), (2, 9), (8, 3, 3, 3), (11,), (1,), (1, 6), (6, 1)]
STEPS = 4

CASES: dict[str, dict[str, Any]] = {
    "weight": {"scale_parameter": "weight"},
    "own size": {"scale_parameter": True},
    "no scale": {"scale_parameter": False},
    "momentum and decay": {"beta1": 0.9, "weight_decay": 0.1},
    "relative step, loose clip": {"relative_step": True, "clip_threshold": 1e9},
    "ascent": {"maximize": True},
    "bf16 stochastic": {"dtype": torch.bfloat16, "lr": 1e-3},
    "bf16 kahan": {"dtype": torch.bfloat16, "rounding": "kahan", "beta1": 0.9},
    "not finite in one row": {"broken": 2},
}


def _tensors(seed: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]


def _gradients(step: int, broken: int) -> list[Tensor]:
    """Alike in every process; at step `broken` a number of the first tensor is infinite."""
    found = [gradient * 10.0**-place for place, gradient in enumerate(_tensors(step, torch.float))]
    if step == broken:
        found[0][-1, 3] = torch.inf  # a row of the last process
    return found


def case(name: str, block: int = 1 << 21) -> dict[str, list[Tensor]]:
    """Weights and states after the steps, by "whole" and "sharded"; and what was refused."""
    options = {"lr": 1e-2, **CASES[name]}
    dtype, broken = options.pop("dtype", torch.float32), options.pop("broken", 0)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    whole = [nn.Parameter(tensor) for tensor in _tensors(0, dtype)]
    sharded = [nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in whole]
    stepping._BLOCK_ON_CPU = block
    found: dict[str, list[Tensor]] = {}
    for kind, parameters in (("whole", whole), ("sharded", sharded)):
        optimizer = Adafactor(parameters, **options)
        refused: list[Tensor] = []
        for step in range(1, STEPS + 1):
            for parameter, gradient in zip(parameters, _gradients(step, broken), strict=True):
                own = gradient.to(dtype)
                shared = kind == "sharded"
                parameter.grad = distribute_tensor(own, mesh, [Shard(0)]) if shared else own
            optimizer.step()
            refused.append(torch.tensor(optimizer.refused()))
        found[kind] = [_full(parameter.detach()) for parameter in parameters]
        found[f"{kind} refused"] = refused
        found[f"{kind} state"] = [
            _full(value)
            for parameter in parameters
            for key, value in sorted(optimizer.state[parameter].items())
            if key != "step"
        ]
    return found


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def messages(count: int) -> int:
    """All-reduces in a step of so many tensors."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    tensors = [distribute_tensor(torch.randn(4, 4), mesh, [Shard(0)]) for _ in range(count)]
    parameters = [nn.Parameter(tensor) for tensor in tensors]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = Adafactor(parameters)
    sent: list[int] = []
    plain = dist.all_reduce
    dist.all_reduce = lambda *args, **kwargs: (sent.append(1), plain(*args, **kwargs))[1]
    try:
        optimizer.step()
    finally:
        dist.all_reduce = plain
    return len(sent)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 3))


def _sharded_network() -> nn.Sequential:
    model = _network()
    for layer in (model[0], model[2], model):
        fully_shard(layer)
    return model


def _learn(model: nn.Module, optimizer: Adafactor, inputs: Tensor, steps: int) -> None:
    for _ in range(steps):
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def fsdp() -> tuple[list[Tensor], list[Tensor]]:
    """Weights of a network trained as a whole, and by FSDP2 with a restart in between."""
    inputs = torch.randn(2 * dist.get_world_size(), 6, generator=torch.Generator().manual_seed(1))
    plain = _network()
    _learn(plain, Adafactor(plain.parameters(), beta1=0.5), inputs, 5)
    mine = inputs.chunk(dist.get_world_size())[dist.get_rank()]
    first, second = _sharded_network(), _sharded_network()
    optimizer = Adafactor(first.parameters(), beta1=0.5)
    _learn(first, optimizer, mine, 3)
    whole = StateDictOptions(full_state_dict=True)
    saved = get_optimizer_state_dict(first, optimizer, options=whole)
    again = Adafactor(second.parameters(), beta1=0.5)
    everywhere = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(second, again, saved, options=everywhere)
    with torch.no_grad():
        for old, new in zip(first.parameters(), second.parameters(), strict=True):
            new.copy_(old)
    _learn(second, again, mine, 2)
    return [p.detach() for p in plain.parameters()], [
        _full(p.detach()) for p in second.parameters()
    ]


def refusals() -> list[str]:
    """What is said to tensors that are placed otherwise, and to a step within backward."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    said: list[str] = []
    for place in (Shard(1), Replicate()):
        parameter = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [place]))
        parameter.grad = torch.ones_like(parameter)
        optimizer = Adafactor([parameter])
        try:
            optimizer.step()
        except RuntimeError as error:
            said.append(str(error))
        assert not optimizer.state
    rows = nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
    rows.grad = torch.ones_like(rows)
    try:
        Adafactor([rows]).step_parameter(rows)
    except RuntimeError as error:
        said.append(str(error))
    return said


def work() -> dict[str, Any]:
    """Everything, in one start of the processes, which takes longer than all of it."""
    stepping.use_compiled(False)
    cases = {name: case(name) for name in CASES}
    parts = case("momentum and decay", block=16)
    return {
        "cases": cases | {"a few rows at a time": parts},
        "messages": [messages(1), messages(9)],
        "fsdp": fsdp(),
        "refusals": refusals(),
    }
