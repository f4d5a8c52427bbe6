"""What holds of Adafactor for every shape, dtype and gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from surefoot.optim.adafactor import Adafactor

# Hypothesis asks since a fixture lasts for all examples; these only choose the arithmetic.
examples = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# The same sums in another order: a step's few float32 roundings, of numbers of size 1.
TOLERANCE = 5e-6

# Among the examples are matrices of zeros, which nothing says to be no adapter's.
pytestmark = pytest.mark.filterwarnings("ignore:.*matrices of a parameter group are zero")

# Few, so that tensors often share one.
SHAPES = st.sampled_from(
    [(), (1,), (7,), (0,), (3, 0), (4, 5), (5, 4), (1, 6), (6, 1), (30, 3)]
) | (st.lists(st.integers(0, 4), max_size=4).map(tuple))
DTYPES = st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16])
LAYOUTS = ("plain", "transposed", "channels last", "expanded", "strided")
GRADIENTS = st.sampled_from(["none", "zero", "nan", "inf", "huge", *LAYOUTS * 2])
OPTIONS = st.fixed_dictionaries(
    {
        "scale_parameter": st.booleans(),
        "beta1": st.sampled_from([0.0, 0.9]),
        "weight_decay": st.sampled_from([0.0, 0.1]),
        "clip_threshold": st.sampled_from([1.0, 0.5]),
        "maximize": st.booleans(),
        "relative_step": st.booleans(),
        "rounding": st.sampled_from(["kahan", "nearest"]),
    }
)


def draw(shape: Sequence[int], seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def gradient_of(kind: str, like: Tensor, seed: int) -> Tensor | None:
    """A gradient of this kind; `nan`, `inf` and `huge` are not finite, or their squares are not."""
    if kind == "none":
        return None
    values = draw(like.shape, seed)
    if kind in ("nan", "inf", "huge") and values.numel():
        size = {"nan": math.nan, "inf": -math.inf, "huge": 3e38}[kind]
        values.view(-1)[seed % values.numel()] = size
    elif kind == "zero":
        values.zero_()
    return laid_out(values.to(like.dtype), kind)


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same numbers with other strides, as far as the shape has room for it."""
    if layout == "transposed":
        back = tuple(reversed(range(values.dim())))
        values = values.permute(back).contiguous().permute(back)
    elif layout == "channels last" and values.dim() == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    elif layout == "expanded" and values.numel() and values.dim():
        values = values[:1].expand(values.shape)
    elif layout == "strided":
        values = torch.stack([values, values], dim=-1)[..., 0]
    return values


def refuses(kind: str, parameter: Tensor) -> bool:
    return kind in ("nan", "inf", "huge") and parameter.numel() > 0


@dataclass
class Case:
    """Tensors, and for each step the gradient of each."""

    starts: list[Tensor]
    layout: str
    steps: list[list[str]]

    def parameters(self) -> list[nn.Parameter]:
        return [nn.Parameter(laid_out(start.clone(), self.layout)) for start in self.starts]

    def give(self, parameters: Sequence[nn.Parameter], step: int) -> None:
        for number, parameter in enumerate(parameters):
            kind = self.steps[step][number]
            parameter.grad = gradient_of(kind, parameter, seed=97 * step + number)


@st.composite
def cases(draw_one: st.DrawFn, dtypes: st.SearchStrategy[torch.dtype] = DTYPES) -> Case:
    shapes = draw_one(st.lists(SHAPES, min_size=1, max_size=6))
    dtype = draw_one(dtypes)
    starts = [draw(shape, seed).to(dtype) for seed, shape in enumerate(shapes)]
    step = st.lists(GRADIENTS, min_size=len(shapes), max_size=len(shapes))
    layout = draw_one(st.sampled_from(["plain"] * 3 + ["transposed", "channels last", "strided"]))
    return Case(starts, layout, draw_one(st.lists(step, min_size=1, max_size=4)))


def snapshot(optimizer: Adafactor, parameter: Tensor) -> dict[str, Tensor]:
    held = {
        key: value.clone()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
    return {"weight": parameter.detach().clone(), **held}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], bits: bool) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if bits:
            assert torch.equal(found[key], value), key
        elif key != "compensation":  # which follows the weight's last digit
            digits = max(torch.finfo(value.dtype).eps * 2, TOLERANCE)
            torch.testing.assert_close(found[key], value, rtol=digits, atol=TOLERANCE)


def by_compiled_loops(arithmetic: str, case: Case) -> bool:
    plain = {"none", "zero", "nan", "inf", "huge", "plain"}
    return (
        arithmetic == "compiled"
        and case.starts[0].dtype is torch.float32
        and case.layout == "plain"
        and all(kind in plain for kinds in case.steps for kind in kinds)
    )


@examples
@given(case=cases(), options=OPTIONS)
def test_tensors_move_together_as_each_does_by_an_optimizer_of_its_own(
    arithmetic: str, case: Case, options: dict[str, Any]
) -> None:
    """Whatever the others' gradients are, also where a tensor has none for some steps."""
    together, apart = case.parameters(), case.parameters()
    one, each = (
        Adafactor(together, 0.05, **options),
        [Adafactor([p], 0.05, **options) for p in apart],
    )
    for step in range(len(case.steps)):
        case.give(together, step)
        case.give(apart, step)
        one.step()
        for optimizer in each:
            optimizer.step()
        bits = by_compiled_loops(arithmetic, case)
        for mine, other, optimizer in zip(together, apart, each, strict=True):
            assert_close(snapshot(one, mine), snapshot(optimizer, other), bits)
        assert one.refused() == sum(optimizer.refused() for optimizer in each)


@examples
@given(case=cases(), options=OPTIONS)
def test_a_gradient_that_is_not_finite_leaves_weight_and_state_bit_for_bit(
    arithmetic: str, case: Case, options: dict[str, Any]
) -> None:
    parameters = case.parameters()
    optimizer = Adafactor(parameters, 0.05, **options)
    for step, kinds in enumerate(case.steps):
        case.give(parameters, step)
        before = [snapshot(optimizer, parameter) for parameter in parameters]
        optimizer.step()
        for kind, parameter, held in zip(kinds, parameters, before, strict=True):
            after = snapshot(optimizer, parameter)
            if kind == "none" or refuses(kind, parameter):
                # A first step makes the state, of zeros.
                zeros = {key: torch.zeros_like(value) for key, value in after.items()}
                assert_close(after, {**zeros, **held}, bits=True)
            assert all(bool(value.isfinite().all()) for value in after.values())
        refused = map(refuses, kinds, parameters)
        assert optimizer.refused() == sum(refused)


@pytest.mark.parametrize("options", [{}, {"beta1": 0.9, "weight_decay": 0.1}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["nan", "inf", "huge"])
def test_a_first_gradient_that_is_not_finite_waits_for_the_second(
    arithmetic: str, kind: str, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    # The second moment is zero then, and its root infinite.
    shapes = [(4, 5), (4, 5), (30, 3), (7,), (7,)]
    parameters = [nn.Parameter(draw(shape, 0).to(dtype)) for shape in shapes]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = Adafactor(parameters, 0.05, **options)
    for number, parameter in enumerate(parameters):
        parameter.grad = gradient_of(kind if number % 2 else "plain", parameter, seed=number)
    optimizer.step()
    moved = [not torch.equal(*pair) for pair in zip(parameters, before, strict=True)]
    assert moved == [True, False, True, False, True]
    assert optimizer.refused() == 2
    for number, parameter in enumerate(parameters):
        parameter.grad = gradient_of("plain", parameter, seed=number)
    optimizer.step()
    assert optimizer.refused() == 0
    for parameter, start in zip(parameters, before, strict=True):
        assert not torch.equal(parameter, start)
        assert bool(parameter.isfinite().all())


@examples
@given(case=cases(), options=OPTIONS, order=st.randoms(use_true_random=False))
def test_the_order_of_the_tensors_does_not_matter(
    arithmetic: str, case: Case, options: dict[str, Any], order: Any
) -> None:
    straight, mixed = case.parameters(), case.parameters()
    shuffled = order.sample(mixed, len(mixed))
    optimizers = Adafactor(straight, 0.05, **options), Adafactor(shuffled, 0.05, **options)
    for step in range(len(case.steps)):
        for parameters, optimizer in zip((straight, mixed), optimizers, strict=True):
            case.give(parameters, step)
            optimizer.step()
    bits = by_compiled_loops(arithmetic, case)
    for first, second in zip(straight, mixed, strict=True):
        assert_close(snapshot(optimizers[1], second), snapshot(optimizers[0], first), bits)


@examples
@given(case=cases(st.just(torch.float32)), options=OPTIONS)
def test_groups_of_one_tensor_each_move_as_one_group(
    arithmetic: str, case: Case, options: dict[str, Any]
) -> None:
    together, apart = case.parameters(), case.parameters()
    one = Adafactor(together, 0.05, **options)
    groups = Adafactor([{"params": [parameter]} for parameter in apart], 0.05, **options)
    for step in range(len(case.steps)):
        for parameters, optimizer in ((together, one), (apart, groups)):
            case.give(parameters, step)
            optimizer.step()
    bits = by_compiled_loops(arithmetic, case)
    for first, second in zip(together, apart, strict=True):
        assert_close(snapshot(groups, second), snapshot(one, first), bits)


@examples
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), options=OPTIONS)
def test_transposed_matrices_move_transposed(
    arithmetic: str, rows: int, columns: int, options: dict[str, Any]
) -> None:
    start = draw((rows, columns), 0)
    matrix, transposed = nn.Parameter(start.clone()), nn.Parameter(start.T.clone())
    optimizers = [Adafactor([parameter], 0.05, **options) for parameter in (matrix, transposed)]
    for step in range(4):
        matrix.grad = draw((rows, columns), step + 1)
        transposed.grad = matrix.grad.T
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(transposed.T, matrix, rtol=TOLERANCE, atol=TOLERANCE)


@examples
@given(case=cases(st.just(torch.float16)), rounding=st.sampled_from(["kahan", "nearest"]))
def test_float16_weights_stay_within_a_digit_of_float32_ones(
    arithmetic: str, case: Case, rounding: Any
) -> None:
    half = case.parameters()
    whole = [nn.Parameter(parameter.detach().float()) for parameter in half]
    optimizers = (
        Adafactor(half, 0.05, scale_parameter=False, rounding=rounding),
        Adafactor(whole, 0.05, scale_parameter=False, rounding=rounding),
    )
    for step in range(len(case.steps)):
        case.give(half, step)
        for small, large in zip(half, whole, strict=True):
            large.grad = None if small.grad is None else small.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    for small, large in zip(half, whole, strict=True):
        digits = torch.finfo(torch.float16).eps * len(case.steps)
        torch.testing.assert_close(small.float(), large, rtol=digits, atol=digits)


@pytest.mark.parametrize("options", [{}, {"beta1": 0.9, "weight_decay": 0.1}], ids=str)
def test_the_number_of_threads_does_not_show_in_compiled_loops(options: dict[str, Any]) -> None:
    pytest.importorskip("numba")
    shapes = [(64, 48)] * 3 + [(700, 600), (33,), (16, 3, 3, 3)] + [(40, 16)] * 9
    ends: list[list[Tensor]] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            parameters = [nn.Parameter(draw(shape, 0)) for shape in shapes]
            optimizer = Adafactor(parameters, 0.05, **options)
            for step in range(3):
                for number, parameter in enumerate(parameters):
                    parameter.grad = draw(parameter.shape, 100 * step + number)
                optimizer.step()
            ends.append([parameter.detach() for parameter in parameters])
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *ends))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_on_two_devices_move_as_on_one(dtype: torch.dtype) -> None:
    shapes = [(8, 6), (8, 6), (5, 3, 3, 3), (7,)]
    here = [nn.Parameter(draw(shape, 0).to(dtype)) for shape in shapes]
    there = [
        nn.Parameter(parameter.detach().to("cuda" if number % 2 else "cpu", copy=True))
        for number, parameter in enumerate(here)
    ]
    optimizers = [Adafactor(parameters, 0.05, beta1=0.9) for parameters in (here, there)]
    for step in range(5):
        for number, (one, other) in enumerate(zip(here, there, strict=True)):
            one.grad = draw(one.shape, 100 * step + number).to(dtype)
            other.grad = one.grad.to(other.device, copy=True)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(here, there, strict=True):
        torch.testing.assert_close(other.cpu(), one)


def test_the_state_of_a_large_convolution_is_counted_in_rows_and_columns(arithmetic: str) -> None:
    out, into = 32, 24
    shapes = {
        (out, into, 3, 3): out + 9 * into,
        (out, into, 1, 1): out + into,
        (out, into): out + into,
        (1, into): into,
        (out, 1): out,
        (out,): out,
        (): 1,
    }
    parameters = [nn.Parameter(draw(shape, 0)) for shape in shapes]
    optimizer = Adafactor(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sizes = [
        sum(
            value.numel() * value.element_size()
            for value in snapshot(optimizer, parameter).values()
        )
        - parameter.numel() * 4
        for parameter in parameters
    ]
    assert sizes == [4 * numbers for numbers in shapes.values()]
