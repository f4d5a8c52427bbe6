# pyright: basic, reportPrivateImportUsage=false, reportCallIssue=false
# ruff: noqa: ANN001, ANN202 - numba infers the types of what it compiles
"""`blocks.py` again for float32 tensors in main memory, compiled by numba for this CPU.

Torch needs a dozen passes over a tensor, and tells its threads about each. Compiled, the same
arithmetic takes three passes over a gradient that stays in a core's own cache, a thread for each
tensor; so the result does not depend on the number of threads, or on what is stepped together.
Installed by the extra `cpu`.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

import numba
import numpy as np
import torch
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from surefoot.optim.update import Members, Rule

_NUMBERS_IN_TASK = 1 << 18
# Others, such as DTensor, need not hold their numbers where they say.
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def suits(tensors: Sequence[Tensor]) -> bool:
    """Whether these lie in main memory as the compiled loops read them."""
    return all(
        type(tensor) in _PLAIN
        and tensor.dtype is torch.float32
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_neg()  # whose numbers lie there with the other sign
        for tensor in tensors
    )


def step_compiled(
    works: Sequence[Members], floors: Sequence[Tensor], finite: Sequence[Tensor], rule: Rule
) -> None:
    """One step, on as many threads as torch uses.

    Args:
        works: Tensors of one shape each.
        floors: For each work, (n,), float32: the floor of each tensor's step scale.
        finite: For each work, (n,), booleans: set to whether a gradient was finite.
        rule: What all share.
    """
    tasks = [
        task for work in zip(works, floors, finite, strict=True) for task in _tasks(*work, rule)
    ]
    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) == 1:
        for kernel, *arguments in tasks:
            kernel(*arguments)
        return
    # The longest first, so that none is left over at the end.
    tasks.sort(key=lambda task: (task[-2] - task[-1]) * task[-3])
    futures = [_pool(threads).submit(*task) for task in tasks]
    try:
        for future in futures:
            future.result()
    finally:
        # Interrupted: tasks read memory that may be freed once this returns.
        for future in futures:
            future.cancel()
        wait(futures)


def _tasks(members: Members, floor: Tensor, finite: Tensor, rule: Rule) -> list[tuple]:
    count, numbers = len(members.parameters), members.parameters[0].numel()
    arguments = (
        _addresses(members.parameters),
        _addresses(members.gradients),
        _addresses(members.momentum),
        members.moment.numpy(),
        floor.numpy(),
        finite.numpy(),
        float(rule.rate),
        rule.slope,
        rule.new,
        rule.eps1,
        rule.clip_threshold,
        rule.beta1,
        rule.weight_decay,
        -1.0 if rule.maximize else 1.0,
        members.rows,
        numbers,
    )
    kernel = _step_factored if members.rows else _step_whole
    at_once = max(1, _NUMBERS_IN_TASK // numbers)
    edges = [*range(0, count, at_once), count]
    return [(kernel, *arguments, first, last) for first, last in pairwise(edges)]


def _addresses(tensors: Sequence[Tensor]) -> np.ndarray:
    return np.array([tensor.data_ptr() for tensor in tensors], dtype=np.int64)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="adafactor")


if sys.platform != "win32":
    # The threads stay with the parent; a child that waited for them would wait for ever.
    os.register_at_fork(after_in_child=_pool.cache_clear)


@intrinsic
def _pointer(_, address):
    """The address of a tensor's first number as a pointer; numba has no such cast of its own."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


# Sums may be taken in any order, which vector instructions need; not-a-number stays what it is.
_summing = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp"}
)
# Not here: a root may be 1e15, so that only gradient times factor, which is 0 where the gradient
# is, may come first.
_moving = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_summing
def _step_factored(
    parameters, gradients, momentum, moment, floor, finite, rate, slope, new, eps1, clip_threshold,
    beta1, weight_decay, sign, rows, numbers, first, last,
):  # fmt: skip
    shape = (rows, numbers // rows)
    by_row = np.empty(shape[0], np.float32)
    by_column = np.empty(shape[1], np.float32)
    for index in range(first, last):
        gradient = numba.carray(_pointer(gradients[index]), shape, np.float32)
        parameter = numba.carray(_pointer(parameters[index]), shape, np.float32)
        _sum_squares(gradient, by_row, by_column)
        mean = _follow_squares(moment[index, :rows], by_row, shape[1], eps1, new)
        finite[index] = math.isfinite(mean)
        if not finite[index]:
            continue
        _follow_squares(moment[index, rows:], by_column, shape[0], eps1, new)
        _keep_and_invert(moment[index, :rows], by_row)
        _keep_and_invert(moment[index, rows:], by_column)
        rms = math.sqrt(mean * _square_of_update(gradient, by_row, by_column) / numbers)
        size = rate * _scale(parameter.reshape(numbers), slope, floor[index])
        factor = sign * math.sqrt(mean) / max(1.0, rms / clip_threshold)
        decay = np.float32(size * weight_decay)
        if beta1 > 0.0:
            average = numba.carray(_pointer(momentum[index]), shape, np.float32)
            _move_on_average(
                parameter, average, gradient, factor, by_row, by_column, beta1, size, decay
            )
        else:
            _move(parameter, gradient, size * factor, by_row, by_column, decay)


@_summing
def _step_whole(
    parameters, gradients, momentum, moment, floor, finite, rate, slope, new, eps1, clip_threshold,
    beta1, weight_decay, sign, rows, numbers, first, last,
):  # fmt: skip
    shape = (1, numbers)
    root = np.empty(numbers, np.float32)
    of_row = np.ones(1, np.float32)
    for index in range(first, last):
        gradient = numba.carray(_pointer(gradients[index]), shape, np.float32)
        parameter = numba.carray(_pointer(parameters[index]), shape, np.float32)
        for j in range(numbers):
            root[j] = gradient[0, j] * gradient[0, j]
        mean = _follow_squares(moment[index], root, 1, eps1, new)
        finite[index] = math.isfinite(mean)
        if not finite[index]:
            continue
        _keep_and_invert(moment[index], root)
        square = _square_of_update(gradient, of_row, root)
        size = rate * _scale(parameter.reshape(numbers), slope, floor[index])
        factor = sign / max(1.0, math.sqrt(square / numbers) / clip_threshold)
        decay = np.float32(size * weight_decay)
        if beta1 > 0.0:
            average = numba.carray(_pointer(momentum[index]), shape, np.float32)
            _move_on_average(parameter, average, gradient, factor, of_row, root, beta1, size, decay)
        else:
            _move(parameter, gradient, size * factor, of_row, root, decay)


@_summing
def _sum_squares(gradient, by_row, by_column):
    by_column[:] = np.float32(0.0)
    for i in range(gradient.shape[0]):
        line = gradient[i]
        total = np.float32(0.0)
        for j in range(line.size):
            square = line[j] * line[j]
            total += square
            by_column[j] += square
        by_row[i] = total


@_summing
def _follow_squares(state, sums, count, eps1, new):
    """Overwrites sums of squares by the moments that follow from them; returns their mean."""
    total = 0.0
    for j in range(sums.size):
        square = np.float32(sums[j] / np.float32(count) + eps1)
        sums[j] = state[j] + np.float32(new) * (square - state[j])
        total += sums[j]
    return total / sums.size


@_summing
def _keep_and_invert(state, moments):
    for j in range(moments.size):
        state[j] = moments[j]
        moments[j] = np.float32(1.0) / np.sqrt(moments[j])


@_summing
def _square_of_update(gradient, by_row, by_column):
    total = 0.0
    for i in range(gradient.shape[0]):
        line = gradient[i]
        of_row = np.float32(0.0)
        for j in range(line.size):
            scaled = line[j] * by_column[j]
            of_row += scaled * scaled
        total += np.float64(of_row) * by_row[i] * by_row[i]
    return total


@_summing
def _scale(parameter, slope, floor):
    if slope == 0.0:
        return np.float64(floor)
    total = 0.0
    for first in range(0, parameter.size, 4096):  # so that float32 sums stay short
        total += _sum_of_squares(parameter[first : first + 4096])
    return max(slope * math.sqrt(total / parameter.size), np.float64(floor))


@_summing
def _sum_of_squares(values):
    total = np.float32(0.0)
    for j in range(values.size):
        total += values[j] * values[j]
    return total


# Both loops in one function: a call for each row costs ten times as much where rows are short.
@_moving
def _move(parameter, gradient, factor, by_row, by_column, decay):
    for i in range(parameter.shape[0]):
        of_row = np.float32(factor * by_row[i])
        for j in range(parameter.shape[1]):
            step = (of_row * gradient[i, j]) * by_column[j]
            parameter[i, j] -= step + decay * parameter[i, j]


@_moving
def _move_on_average(parameter, average, gradient, factor, by_row, by_column, beta1, size, decay):
    new = np.float32(1.0 - beta1)
    rate = np.float32(size)
    for i in range(parameter.shape[0]):
        of_row = np.float32(factor * by_row[i])
        for j in range(parameter.shape[1]):
            update = (of_row * gradient[i, j]) * by_column[j]
            average[i, j] += new * (update - average[i, j])
            parameter[i, j] -= rate * average[i, j] + decay * parameter[i, j]
