"""Which arithmetic a step is done by: compiled loops, or blocks on the tensors' device."""

# torch's multi-tensor operations have private names only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from surefoot.optim.blocks import step_blocks
from surefoot.optim.rounding import loses_digits, step_keys
from surefoot.optim.stacks import Run, members_of
from surefoot.optim.update import Members, Rule, sizes

_BLOCK_ON_CPU = 1 << 21
"""Numbers stepped at once: two blocks of float32 stay in a CPU's last cache."""
_BLOCK_ELSEWHERE = 1 << 24
"""A GPU pays for each operation: fewer and larger blocks, of 64 MiB."""


def step_runs(found: Sequence[Run], rule: Rule) -> list[Tensor]:
    """Steps tensors that share a rule; returns, by block, whose gradients were finite."""
    compiled = [run for run in found if _suits_compiled(run)]
    finite = _step_compiled(compiled, rule) if compiled else []
    left = [run for run in found if run not in compiled] if compiled else found
    for device in dict.fromkeys(run.stack.floor.device for run in left):
        finite += _step_blocks([run for run in left if run.stack.floor.device == device], rule)
    return finite


def block_on(device: torch.device) -> int:
    """Numbers that are stepped at once."""
    return _BLOCK_ON_CPU if device.type == "cpu" else _BLOCK_ELSEWHERE


_allowed = True


def use_compiled(allowed: bool) -> None:
    """Lets this process take the compiled loops where they suit, which is the default, or never."""
    global _allowed
    _allowed = allowed


@cache
def _has_numba() -> bool:
    if find_spec("numba") is None:
        return False
    try:
        import_module("surefoot.optim.native")
    # A numba that does not suit this numpy, or that finds no folder to keep what it compiles.
    except (ImportError, RuntimeError) as error:
        warnings.warn(f"Adafactor goes on without numba: {error}", stacklevel=2)
        return False
    return True


def _suits_compiled(run: Run) -> bool:
    if not (_allowed and run.stack.floor.is_cpu and _has_numba()):
        return False
    from surefoot.optim.native import suits

    return suits(run.stack.parameters[run.first : run.last]) and suits(run.gradients)


def _step_compiled(found: Sequence[Run], rule: Rule) -> list[Tensor]:
    from surefoot.optim.native import step_compiled

    finite = [torch.empty(run.last - run.first, dtype=torch.bool) for run in found]
    floors = [run.stack.floor[run.first : run.last] for run in found]
    # float32 is not rounded: no random numbers.
    works = [members_of(run, rule, run.stack.positions[run.first : run.last]) for run in found]
    step_compiled(works, floors, finite, rule)
    # torch has not seen these writes, by which others know that a tensor holds something else.
    for run in found:
        torch.autograd.graph.increment_version(run.stack.parameters[run.first : run.last])
    return finite


def _step_blocks(found: Sequence[Run], rule: Rule) -> list[Tensor]:
    block = block_on(found[0].stack.floor.device)
    per_root = _joined([run.stack.per_root[run.first : run.last] for run in found])
    keys = _joined([run.stack.positions[run.first : run.last] for run in found])
    if rule.rounding == "stochastic" and any(loses_digits(_dtype(run)) for run in found):
        keys = step_keys(keys, rule.seed, found[0].step)
    works: list[Members] = []
    first = 0
    for run in found:
        last = first + run.last - run.first
        works.append(members_of(run, rule, keys[first:last]))
        first = last
    return step_blocks(works, _sizes(found, per_root, rule), per_root, rule, block)


def _sizes(found: Sequence[Run], per_root: Tensor, rule: Rule) -> Tensor:
    """The factor on the update of each tensor of the runs."""
    floor = _joined([run.stack.floor[run.first : run.last] for run in found])
    if rule.slope == 0:
        return sizes(None, floor, rule)
    tensors = [tensor for run in found for tensor in run.stack.parameters[run.first : run.last]]
    # Not in fewer digits than a tensor's own, which torch refuses.
    wide = torch.float64 if any(_dtype(run) is torch.float64 for run in found) else torch.float32
    rms = torch.stack(torch._foreach_norm(tensors, dtype=wide)).float().mul_(per_root)
    return sizes(rms, floor, rule)


def _joined(numbers: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(numbers)) if len(numbers) > 1 else numbers[0]


def _dtype(run: Run) -> torch.dtype:
    return run.stack.parameters[0].dtype
