"""Adafactor against a float64 reference and against transformers, where the two mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor as TransformersAdafactor

from surefoot.optim.adafactor import Adafactor
from tests.reference.adafactor_numpy import AdafactorNumpy, Options, rms

# Of the RMS of a tensor. float32 rounds a number by up to 6e-8 of itself at every step. Numbers of
# thrice the RMS so lose 6e-6 over 1,000 steps at random, and 2e-4 at worst.
FLOAT32_TOLERANCE = 1e-5

SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "vector": (7,),
    "tall": (12, 5),
    "wide": (5, 12),
    "one row": (1, 9),
    "one column": (9, 1),
    "3x3": (6, 4, 3, 3),
    "1x1": (6, 4, 1, 1),
    "thin": (40, 16),
    "long vector": (300,),
}

OPTIONS: dict[str, Options] = {
    "scaled by itself": Options(),
    "not scaled": Options(scale_parameter=False),
    "by weight: weight": Options(scale_parameter="weight"),
    "by weight: lora_down": Options(scale_parameter="weight", kind="lora_down"),
    "by weight: lora_up": Options(
        scale_parameter="weight", kind="lora_up", weight_rms=0.03, fan_in=300, alpha=4.0
    ),
    "by weight: magnitude": Options(scale_parameter="weight", kind="magnitude", weight_rms=0.03),
    "relative": Options(relative_step=True),
    "relative, unscaled": Options(relative_step=True, scale_parameter=False),
    # From zero, since float32 would hide the first steps of 1e-6 beside numbers of size 1.
    "relative with warm-up": Options(
        relative_step=True, warmup_init=True, scale_parameter=False, kind="lora_up"
    ),
    "clipped hard": Options(clip_threshold=0.3),
    "hardly clipped": Options(clip_threshold=20.0),
    "fast decay": Options(decay_rate=-0.4),
    "momentum": Options(beta1=0.9),
    "momentum, decayed": Options(beta1=0.5, weight_decay=0.1, scale_parameter=False),
    "large eps1": Options(eps1=0.5),
    "large eps2": Options(eps2=5.0),
    "weight decay": Options(weight_decay=0.3),
    "maximize": Options(maximize=True),
    "maximize with momentum, decayed": Options(maximize=True, beta1=0.9, weight_decay=0.1),
}

pytestmark = pytest.mark.usefixtures("arithmetic")


def noisy_gradients(shape: tuple[int, ...], steps: int) -> Iterator[npt.NDArray[np.float32]]:
    """A weak constant direction under noise, with rows and columns of very different size."""
    generator = np.random.default_rng(1)
    size = np.ones(shape)
    for axis, length in enumerate(shape):
        sizes = 10.0 ** generator.uniform(-2, 1, length)
        size *= sizes.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    direction = generator.normal(size=shape)
    for _ in range(steps):
        noise = generator.normal(size=shape)
        yield np.asarray(size * (0.3 * direction + noise), dtype=np.float32)


def start_values(shape: tuple[int, ...], kind: str = "weight") -> npt.NDArray[np.float32]:
    drawn = np.random.default_rng(0).normal(size=shape)
    return np.asarray(0.0 * drawn if kind == "lora_up" else drawn, dtype=np.float32)


def our_optimizer(parameters: list[Tensor], options: Options, lr: float) -> Adafactor:
    keywords = asdict(options)
    layer = {"kind": keywords.pop("kind"), "alpha": keywords.pop("alpha")}
    for name in ("weight_rms", "fan_in"):
        layer[name] = [keywords.pop(name)] * len(parameters)
    return Adafactor([{"params": parameters, **layer}], lr, **keywords)


def assert_same(ours: Tensor, theirs: npt.NDArray[np.floating]) -> None:
    error = np.abs(ours.detach().numpy() - theirs).max()
    assert error <= FLOAT32_TOLERANCE * rms(np.asarray(theirs, dtype=np.float64))


COMPARED = (1, 2, 3, 10, 30, 100, 300, 600, 1000)


def rate(step: int) -> float:
    """As a schedule does it: another learning rate at each step, counted from 1."""
    return 0.02 * (1 - step / 1200)


@cache
def reference_run(option: str, shape: str, steps: int) -> dict[int, npt.NDArray[np.float64]]:
    """The numbers after each of the steps of `COMPARED`."""
    options, found = OPTIONS[option], dict[int, npt.NDArray[np.float64]]()
    start = start_values(SHAPES[shape], options.kind).astype(np.float64)
    reference = AdafactorNumpy(start, options)
    for step, gradient in enumerate(gradients(shape, steps), start=1):
        reference.step(gradient.astype(np.float64), rate(step))
        if step in COMPARED:
            found[step] = reference.values
    assert rms(reference.values - start) > 0.05 * rms(reference.values)
    return found


@cache
def gradients(shape: str, steps: int) -> list[npt.NDArray[np.float32]]:
    return list(noisy_gradients(SHAPES[shape], steps))


@pytest.mark.parametrize("option", OPTIONS)
def test_a_thousand_steps_equal_the_float64_reference(option: str, arithmetic: str) -> None:
    steps = 1000 if arithmetic != "parts" else 100
    starts = [start_values(shape, OPTIONS[option].kind) for shape in SHAPES.values()]
    parameters = [nn.Parameter(torch.from_numpy(start.copy())) for start in starts]
    optimizer = our_optimizer(list[Tensor](parameters), OPTIONS[option], lr=1.0)
    given = [gradients(shape, 1000) for shape in SHAPES]
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = rate(step)
        for parameter, gradient in zip(parameters, given, strict=True):
            parameter.grad = torch.from_numpy(gradient[step - 1])
        optimizer.step()
        if step in COMPARED:
            for parameter, shape in zip(parameters, SHAPES, strict=True):
                assert_same(parameter, reference_run(option, shape, 1000)[step])


def test_the_reference_tells_the_options_apart() -> None:
    # Otherwise the test above could pass for an optimizer that ignores an option.
    ends: list[npt.NDArray[np.float64]] = []
    for options in OPTIONS.values():
        reference = AdafactorNumpy(start_values((5, 12)).astype(np.float64), options)
        for step, gradient in enumerate(noisy_gradients((5, 12), 30)):
            reference.step(gradient.astype(np.float64), 0.02 * (1 - step / 400))
        ends.append(reference.values)
    alike = {
        frozenset({first, second})
        for (first, one), (second, other) in product(zip(OPTIONS, ends, strict=True), repeat=2)
        if first != second and np.abs(one - other).max() < 100 * FLOAT32_TOLERANCE
    }
    # Kinds that the weight rule treats as the paper treats everything.
    same = ("scaled by itself", "by weight: weight", "by weight: magnitude")
    assert alike == {frozenset(pair) for pair in combinations(same, 2)}


RATES = {
    "constant": Options(),
    "relative": Options(relative_step=True),
    "ramp": Options(relative_step=True, warmup_init=True),
}


def their_optimizer(parameters: list[Tensor], options: Options, lr: float) -> TransformersAdafactor:
    return TransformersAdafactor(
        parameters,
        lr=None if options.relative_step else lr,
        eps=(options.eps1, options.eps2),
        clip_threshold=options.clip_threshold,
        decay_rate=options.decay_rate,
        beta1=options.beta1 or None,
        weight_decay=options.weight_decay,
        scale_parameter=options.scale_parameter is True,
        relative_step=options.relative_step,
        warmup_init=options.warmup_init,
    )


def end_of_both(
    shape: tuple[int, ...], options: Options, lrs: list[float]
) -> tuple[Tensor, npt.NDArray[np.float32]]:
    """Ours and theirs after as many steps as there are learning rates, from the same start."""
    start = start_values(shape)
    mine, other = (nn.Parameter(torch.from_numpy(start.copy())) for _ in range(2))
    ours, theirs = our_optimizer([mine], options, 0.0), their_optimizer([other], options, 0.0)
    for lr, gradient in zip(lrs, noisy_gradients(shape, len(lrs)), strict=True):
        for parameter, optimizer in ((mine, ours), (other, theirs)):
            if not options.relative_step:
                optimizer.param_groups[0]["lr"] = lr
            parameter.grad = torch.from_numpy(gradient.copy())
            optimizer.step()
    assert not np.array_equal(other.detach().numpy(), start)
    return mine, other.detach().numpy()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("pace", RATES)
@pytest.mark.parametrize("shape", ["vector", "tall", "wide", "one row"])
def test_vectors_and_matrices_move_as_in_transformers(shape: str, pace: str, scale: bool) -> None:
    for clip, eps, decay in product((1.0, 0.3), ((1e-30, 1e-3), (0.5, 5.0)), (0.0, 0.1)):
        options = replace(
            RATES[pace],
            scale_parameter=scale,
            clip_threshold=clip,
            eps1=eps[0],
            eps2=eps[1],
            weight_decay=decay,
        )
        assert_same(*end_of_both(SHAPES[shape], options, [0.02 / (1 + t) for t in range(8)]))


@pytest.mark.parametrize("pace", ["constant", "relative"])
@pytest.mark.parametrize("shape", ["vector", "tall", "wide", "one row"])
def test_momentum_at_a_constant_rate_is_that_of_transformers(shape: str, pace: str) -> None:
    # relative_step is constant for 10,000 steps, and nothing is scaled: lr passes through the mean.
    for clip, decay in product((1.0, 0.3), (0.0, 0.1)):
        options = replace(
            RATES[pace],
            scale_parameter=False,
            beta1=0.9,
            clip_threshold=clip,
            weight_decay=decay,
        )
        assert_same(*end_of_both(SHAPES[shape], options, [0.02] * 12))


def test_momentum_holds_no_past_rate_while_that_of_transformers_does() -> None:
    # Ours is lr times the mean of the updates, theirs the mean of lr times the updates: once lr
    # has come down to 0, theirs goes on moving.
    options = Options(scale_parameter=False, beta1=0.9)
    moving, stopped = [0.02] * 5, [0.02] * 5 + [0.0] * 5
    ours_before, theirs_before = end_of_both((5, 12), options, moving)
    ours_after, theirs_after = end_of_both((5, 12), options, stopped)
    assert torch.equal(ours_before, ours_after)
    assert np.abs(theirs_after - theirs_before).max() > 1e-3


def test_momentum_of_scaled_steps_differs_from_transformers() -> None:
    # At 0.2 a step the RMS changes a lot, and the size of a step with it; theirs averages old ones.
    ours, theirs = end_of_both((5, 12), Options(beta1=0.9), [0.2] * 30)
    assert np.abs(ours.detach().numpy() - theirs).max() > 0.01 * rms(theirs.astype(np.float64))


@pytest.mark.parametrize("shape", ["vector", "tall", "wide", "one row", "thin"])
def test_vectors_and_matrices_move_as_in_torch(shape: str) -> None:
    """The options that both have.

    torch adds eps1 under another root: it takes `max(V, eps1^2)`, which for gradients far above is
    nothing here and there. Its rate is `min(lr, 1/sqrt(t))`, and its decay is not scaled by RMS.
    """
    for d, decay_rate, maximize in product((1.0, 1.5), (-0.8, -1.0), (False, True)):
        start, lrs = start_values(SHAPES[shape]), [0.02 / t for t in range(1, 20)]
        mine, other = (nn.Parameter(torch.from_numpy(start.copy())) for _ in range(2))
        options = Options(clip_threshold=d, decay_rate=decay_rate, maximize=maximize)
        theirs = torch.optim.Adafactor(
            [other],
            lrs[0],
            beta2_decay=decay_rate,
            eps=(1e-30, options.eps2),
            d=d,
            weight_decay=0.0,
            maximize=maximize,
        )
        optimizers = (our_optimizer([mine], options, lrs[0]), theirs)
        for lr, gradient in zip(lrs, noisy_gradients(SHAPES[shape], len(lrs)), strict=True):
            for parameter, optimizer in zip((mine, other), optimizers, strict=True):
                optimizer.param_groups[0]["lr"] = lr
                parameter.grad = torch.from_numpy(gradient.copy())
                optimizer.step()
        assert_same(mine, other.detach().numpy())


def test_a_convolution_is_the_matrix_that_transformers_does_not_see() -> None:
    # transformers factors the last two axes, which are the kernel's: another second moment for
    # each pair of channels. Given the matrix (out, in * kh * kw), it does what we do.
    start, lr = start_values((6, 4, 3, 3)), 0.02
    ours, as_matrix, as_kernel = (
        nn.Parameter(torch.from_numpy(start.copy()).reshape(shape))
        for shape in ((6, 4, 3, 3), (6, 36), (6, 4, 3, 3))
    )
    optimizers = (
        our_optimizer([ours], Options(), lr),
        their_optimizer([as_matrix, as_kernel], Options(), lr),
    )
    for gradient in noisy_gradients((6, 4, 3, 3), 20):
        for parameter in (ours, as_matrix, as_kernel):
            parameter.grad = torch.from_numpy(gradient.copy()).reshape(parameter.shape)
        for optimizer in optimizers:
            optimizer.step()
    assert_same(ours, as_matrix.detach().numpy().reshape(start.shape))
    moved = rms((as_kernel.detach().numpy() - start).astype(np.float64))
    assert rms((ours - as_kernel).detach().double().numpy()) > 0.05 * moved


@pytest.mark.parametrize("option", ["scaled by itself", "momentum, decayed", "large eps1"])
@pytest.mark.parametrize("shape", ["tall", "one row"])
def test_a_transposed_matrix_with_transposed_gradients_moves_transposed(
    shape: str, option: str
) -> None:
    start = torch.from_numpy(start_values(SHAPES[shape]))
    matrix, transposed = nn.Parameter(start.clone()), nn.Parameter(start.T.clone())
    optimizers = [our_optimizer([item], OPTIONS[option], 0.02) for item in (matrix, transposed)]
    for gradient in noisy_gradients(SHAPES[shape], 50):
        matrix.grad = torch.from_numpy(gradient)
        transposed.grad = matrix.grad.T
        for optimizer in optimizers:
            optimizer.step()
    assert_same(transposed.T, matrix.detach().numpy())
