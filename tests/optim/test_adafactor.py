"""Adafactor as an optimizer of torch: dtypes, state, errors; its numbers are in tests/reference."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Mapping
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from surefoot.engine.optimizer_state import OptimizerMemory
from surefoot.optim.adafactor import Adafactor
from surefoot.tuning.trainable import Trainable

# A step is a product of about ten float32 numbers, each rounded to 6e-8 of itself.
FLOAT32_TOLERANCE = 1e-6

pytestmark = pytest.mark.usefixtures("arithmetic")


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A matrix, a convolution and a vector."""
    shapes = ((6, 4), (5, 3, 2, 2), (7,))
    return [nn.Parameter(draw(*shape, seed=0).to(dtype)) for shape in shapes]


def give_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    for parameter in parameters:
        parameter.grad = draw(*parameter.shape, seed=seed).to(parameter.dtype)


def train(optimizer: Adafactor, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        give_gradients(parameters, seed=step)
        optimizer.step()


def state_tensors(optimizer: Adafactor, parameter: Tensor) -> dict[str, Tensor]:
    return {
        key: value for key, value in optimizer.state[parameter].items() if isinstance(value, Tensor)
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_step_is_the_float32_step_rounded(dtype: torch.dtype) -> None:
    half, whole = model(dtype), model()
    ours = Adafactor(half, 1e-2, beta1=0.9, weight_decay=0.1, rounding="nearest")
    float32 = Adafactor(whole, 1e-2, beta1=0.9, weight_decay=0.1)
    for step in range(1, 6):
        give_gradients(half, seed=step)
        with torch.no_grad():
            for small, large in zip(half, whole, strict=True):
                large.copy_(small)  # the float32 step begins at the rounded numbers too
                assert small.grad is not None
                large.grad = small.grad.float()
        ours.step()
        float32.step()
        for small, large in zip(half, whole, strict=True):
            # Both are rounded from float32 numbers whose own last digit may differ.
            digits = torch.finfo(dtype).eps
            torch.testing.assert_close(small, large.to(dtype), rtol=digits, atol=0.0)
            for key, value in state_tensors(float32, large).items():
                found = state_tensors(ours, small)[key]
                torch.testing.assert_close(found, value, rtol=1e-6, atol=1e-7)


def test_the_state_of_a_convolution_is_one_row_and_one_column() -> None:
    parameters = model()
    optimizer = Adafactor(parameters)
    train(optimizer, parameters, range(1))
    numbers = [
        sum(tensor.numel() for tensor in state_tensors(optimizer, parameter).values())
        for parameter in parameters
    ]
    assert numbers == [6 + 4, 5 + 3 * 2 * 2, 7]


def test_a_zero_gradient_moves_nothing_and_gives_no_nan() -> None:
    parameters = model()
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = Adafactor(parameters, beta1=0.9)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    assert all(map(torch.equal, parameters, before))


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e12])
def test_zeros_beside_gradients_of_any_size_stay_and_give_no_nan(size: float) -> None:
    matrix, vector = nn.Parameter(torch.ones(5, 4)), nn.Parameter(torch.ones(5))
    optimizer = Adafactor([matrix, vector], 1e-2)
    for step in range(3):
        matrix.grad, vector.grad = draw(5, 4, seed=step) * size, draw(5, seed=step) * size
        matrix.grad[1], matrix.grad[:, 2], vector.grad[1] = 0.0, 0.0, 0.0
        optimizer.step()
    for resting in (matrix[1], matrix[:, 2], vector[1]):
        assert torch.equal(resting, torch.ones_like(resting))
    assert matrix.isfinite().all()
    assert vector.isfinite().all()
    if size > 1e-15:  # the root of eps1, below which a gradient counts for less
        assert not torch.equal(matrix[0], torch.ones(4))


def test_gradients_near_the_root_of_eps1_move_as_they_are_sized(arithmetic: str) -> None:
    # At the first step V is G^2 + eps1, so that a gradient of sqrt(eps1) moves by lr / sqrt(2).
    parameters = [nn.Parameter(torch.zeros(40, 50)), nn.Parameter(torch.zeros(50))]
    optimizer = Adafactor(parameters, 1e-2, scale_parameter=False)
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-15)
    optimizer.step()
    for parameter in parameters:
        expected = torch.full_like(parameter, -1e-2 * 0.5**0.5)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=0.0)


def test_a_tensor_without_gradient_is_left_alone_and_starts_later() -> None:
    first, late = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    alone = nn.Parameter(torch.ones(4))
    optimizer = Adafactor([first, late])
    for _ in range(2):
        first.grad = torch.ones(4)
        optimizer.step()
    assert torch.equal(late, torch.ones(4))
    assert late not in optimizer.state
    fresh = Adafactor([alone])
    late.grad = alone.grad = draw(4, seed=1)
    optimizer.step()
    fresh.step()
    assert torch.equal(late, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_goes_on_identically_from_a_saved_state_dict(dtype: torch.dtype) -> None:
    whole = model(dtype)
    optimizer = Adafactor(whole, 3e-2, beta1=0.9)
    train(optimizer, whole, range(5))
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in whole]
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    continued = Adafactor(resumed)
    continued.load_state_dict(torch.load(file, weights_only=True))
    train(optimizer, whole, range(5, 10))
    train(continued, resumed, range(5, 10))
    assert all(map(torch.equal, whole, resumed))


def test_training_goes_on_from_a_checkpoint_by_name(arithmetic: str) -> None:
    def named(parameters: list[nn.Parameter]) -> tuple[Trainable, ...]:
        return tuple(
            Trainable(f"unet.{number}", parameter, "weight", 1.0, 0, 1.0, 0)
            for number, parameter in enumerate(parameters)
        )

    whole = model()
    optimizer = Adafactor(whole, 3e-2, beta1=0.9)
    train(optimizer, whole, range(5))
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in whole]
    state = copy.deepcopy(OptimizerMemory(optimizer, named(whole)).read())
    # By name: in another order, which compiled loops do not notice.
    continued = Adafactor(resumed[::-1], 3e-2, beta1=0.9)
    OptimizerMemory(continued, named(resumed)).restore(state)
    train(optimizer, whole, range(5, 10))
    train(continued, resumed, range(5, 10))
    assert arithmetic != "compiled" or all(map(torch.equal, whole, resumed))
    torch.testing.assert_close(resumed, whole, rtol=FLOAT32_TOLERANCE, atol=FLOAT32_TOLERANCE)


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = Adafactor([parameter], 0.1, scale_parameter=False)

    def closure() -> float:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(3)]
    assert losses[0] == 13.0
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("rank", [1, 4, 64])
@pytest.mark.parametrize("alpha", [1.0, 16.0])
def test_by_weight_a_fresh_lora_up_steps_400_lr_rms_w_over_alpha(rank: int, alpha: float) -> None:
    """At the first step beta2 is 0, so the second moment is that of one gradient G.

    If its entries have one sign and sizes a_i b_j, the factored moment (algorithm 4, line 7)
        V_ij = (a_i^2 sum b^2) (b_j^2 sum a^2) / (sum a^2 sum b^2) = a_i^2 b_j^2
    is exact and every entry of the update is 1. Its RMS is 1, so that clipping leaves it alone.
    The step is then lr * scale: c_B * lr * RMS(W) / alpha with c_B = 0.7 * 10 inputs,
    whatever the rank.
    The layer changes by (alpha / rank) B A = c_B lr RMS(W) times the mean row of A: alpha is gone.
    """
    lr, weight = 1e-3, 0.04 * draw(24, 10, seed=0)
    rms = math.sqrt(float(weight.double().square().mean()))
    up, down = nn.Parameter(torch.zeros(24, rank)), draw(rank, 10, seed=1)
    group = {
        "params": [up],
        "kind": "lora_up",
        "weight_rms": [rms],
        "fan_in": [10],
        "alpha": alpha,
    }
    optimizer = Adafactor([group], lr, scale_parameter="weight")
    up.grad = torch.outer(1 + draw(24, seed=2).abs(), 1 + draw(rank, seed=3).abs())
    optimizer.step()
    expected = torch.full((24, rank), -7 * lr * rms / alpha)
    torch.testing.assert_close(up.detach(), expected, rtol=FLOAT32_TOLERANCE, atol=0.0)
    change = (alpha / rank) * up.detach() @ down
    expected = (-7 * lr * rms * down.mean(dim=0)).expand(24, 10)
    torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kind", "factor"), [("lora_down", 5.0), ("magnitude", 1.0)])
def test_by_weight_other_tensors_step_by_their_own_rms(kind: str, factor: float) -> None:
    start = draw(6, seed=0) if kind == "magnitude" else draw(6, 20, seed=0)
    rms, lr = math.sqrt(float(start.double().square().mean())), 1e-2
    parameter = nn.Parameter(start.clone())
    # A layer of another RMS, which must not matter here.
    group = {"params": [parameter], "kind": kind, "weight_rms": [123.0], "alpha": 7.0}
    optimizer = Adafactor([group], lr, scale_parameter="weight")
    parameter.grad = torch.ones_like(start)
    optimizer.step()
    step = start.double() - parameter.detach().double()
    expected = torch.full_like(step, factor * lr * rms)
    torch.testing.assert_close(step, expected, rtol=0.0, atol=FLOAT32_TOLERANCE * rms)


WEIGHT = [nn.Parameter(torch.ones(2))]
BAD: dict[str, Mapping[str, object]] = {
    "lr": {"lr": -1e-3},
    "lr not a number": {"lr": math.nan},
    "lr without end": {"lr": math.inf},
    "eps1": {"eps1": 0.0},
    "eps1 too small": {"eps1": 1e-31},
    "eps2": {"eps2": -1e-3},
    "weight_decay": {"weight_decay": -0.1},
    "clip_threshold": {"clip_threshold": 0.0},
    "decay_rate": {"decay_rate": 0.8},
    "beta1": {"beta1": 1.0},
    "beta1 below": {"beta1": -0.1},
    "warmup_init": {"warmup_init": True},
    "scale_parameter": {"scale_parameter": "true"},
    "kind": {"kind": "lora_middle"},
    "alpha": {"alpha": 0.0},
    "weight_rms": {"weight_rms": [math.nan]},
    "weight_rms too many": {"weight_rms": [1.0, 1.0]},
    "fan_in too many": {"fan_in": [1, 1]},
}
GROUP_KEYS = {"kind", "alpha", "weight_rms", "weight_rms too many", "fan_in too many"}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_refused_by_name(case: str) -> None:
    name = case.split(" ")[0]
    with pytest.raises(ValueError, match=name):
        Adafactor([{"params": WEIGHT, **BAD[case]}])
    if case not in GROUP_KEYS:
        make = cast(Callable[..., Adafactor], Adafactor)
        with pytest.raises(ValueError, match=name):
            make(WEIGHT, **BAD[case])


def test_a_lora_up_without_the_rms_of_its_layer_is_refused() -> None:
    def group() -> dict[str, object]:  # torch writes the other options into the one it is given
        return {"params": WEIGHT, "kind": "lora_up", "alpha": 4.0}

    with pytest.raises(ValueError, match="weight_rms of each lora_up"):
        Adafactor([group()], scale_parameter="weight")
    Adafactor([group()], scale_parameter=True)


def test_a_refused_group_is_not_added() -> None:
    optimizer = Adafactor([nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match="beta1"):
        optimizer.add_param_group({"params": WEIGHT, "beta1": 2.0})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": WEIGHT, "beta1": 0.5})
    assert [group["beta1"] for group in optimizer.param_groups] == [0.0, 0.5]


def test_a_sparse_gradient_is_refused_before_anything_is_remembered() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = Adafactor(embedding.parameters())
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="dense"):
        optimizer.step()
    assert torch.equal(embedding.weight, before)
    assert not optimizer.state[embedding.weight]
