"""What torch asks of every optimizer of its own, asked of Adafactor.

torch's list of inputs for its Adafactor (torch.testing._internal.common_optimizers) cannot be
imported without torch's own test dependencies, and names its options otherwise; what it and
test_optim.py ask stands here.
"""

from __future__ import annotations

import copy
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from surefoot.optim.adafactor import Adafactor

pytestmark = pytest.mark.usefixtures("arithmetic")

INPUTS: dict[str, dict[str, Any]] = {
    "default": {},
    "nonzero weight_decay": {"weight_decay": 0.1, "lr": 0.01},
    "maximize": {"weight_decay": 0.1, "maximize": True},
    "other decay": {"decay_rate": -1.0},
    "other clipping": {"clip_threshold": 1.5},
    "momentum": {"beta1": 0.9},
    "relative step": {"relative_step": True, "warmup_init": True},
    "kahan": {"rounding": "kahan"},
}
inputs = pytest.mark.parametrize("options", INPUTS.values(), ids=INPUTS.keys())


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    shapes = ((10, 5), (10,), (4, 3, 3, 3), (10, 5), ())
    return [nn.Parameter(draw(*s, seed=n).to(dtype)) for n, s in enumerate(shapes)]


def step(optimizer: Adafactor, seed: int) -> None:
    for group in optimizer.param_groups:
        for number, parameter in enumerate(group["params"]):
            gradient = draw(*parameter.shape, seed=100 * seed + number)
            parameter.grad = gradient.to(parameter.dtype)
    optimizer.step()


def assert_equal(first: list[nn.Parameter], second: list[nn.Parameter]) -> None:
    assert all(map(torch.equal, first, second))


@inputs
def test_a_loss_falls(options: dict[str, Any]) -> None:
    weight = nn.Parameter(draw(10, 5, seed=0))
    bias, seen = nn.Parameter(draw(10, seed=1)), draw(5, seed=2)
    sign = -1.0 if options.get("maximize") else 1.0
    given: dict[str, Any] = {"lr": 0.05, **options}
    optimizer = Adafactor([weight, bias], **given)

    def closure() -> float:
        optimizer.zero_grad()
        loss = sign * (weight @ seen + bias).square().sum()
        loss.backward()
        return sign * loss.item()

    first = closure()
    for _ in range(60):
        optimizer.step(closure)
    # The ramp of a relative step is 0.002 in all after 60 steps.
    assert closure() < (1.0 if options.get("warmup_init") else 0.5) * first


@inputs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_deep_copy_and_a_pickle_go_on_alike(options: dict[str, Any], dtype: torch.dtype) -> None:
    parameters = model(dtype)
    optimizer = Adafactor(parameters, **options)
    for seed in range(3):
        step(optimizer, seed)
    # Together with its parameters, which it would lose else.
    copies = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    for seed in range(3, 6):
        for each in (optimizer, *copies):
            step(each, seed)
    for other in copies:
        found = other.param_groups[0]["params"]
        assert found[0] is not parameters[0]
        assert_equal(found, parameters)


@inputs
def test_a_state_dict_is_a_snapshot_after_a_deep_copy(options: dict[str, Any]) -> None:
    parameters = model()
    optimizer = Adafactor(parameters, **options)
    step(optimizer, 0)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(parameters)
    for seed in (1, 2):
        step(optimizer, seed)
    ends = copy.deepcopy(parameters)
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(weight)
    for seed in (1, 2):
        step(optimizer, seed)
    assert_equal(parameters, ends)


def test_a_loaded_state_shares_no_memory_with_what_was_saved() -> None:
    first, second = model(), model()
    one, other = Adafactor(first, beta1=0.9), Adafactor(second, beta1=0.9)
    step(one, 0)
    saved = one.state_dict()
    before = copy.deepcopy(saved["state"])
    other.load_state_dict(saved)
    step(other, 1)
    for index, state in before.items():
        for key, value in state.items():
            now = saved["state"][index][key]
            assert torch.equal(now, value) if isinstance(value, Tensor) else now == value


def test_a_state_dict_of_other_groups_is_refused() -> None:
    parameters = model()
    saved = Adafactor(parameters).state_dict()
    two = Adafactor([{"params": parameters[:2]}, {"params": parameters[2:]}])
    with pytest.raises(ValueError, match="parameter groups"):
        two.load_state_dict(saved)
    with pytest.raises(ValueError, match="size of optimizer's group"):
        Adafactor(parameters[:2]).load_state_dict(saved)


def test_state_dict_hooks_are_called() -> None:
    optimizer = Adafactor(model())
    called: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda _: called.append("saving"))
    optimizer.register_load_state_dict_post_hook(lambda _: called.append("loaded"))
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    optimizer.load_state_dict(optimizer.state_dict())
    step(optimizer, 0)
    assert called == ["saving", "loaded", "before", "after"]


@inputs
def test_a_step_without_gradients_does_nothing(options: dict[str, Any]) -> None:
    parameters = model()
    before = copy.deepcopy(parameters)
    optimizer = Adafactor(parameters, **options)
    optimizer.step()
    assert_equal(parameters, before)
    assert not optimizer.state


@inputs
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zero_gradients_move_only_by_weight_decay(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    parameters = model(dtype)
    before = copy.deepcopy(parameters)
    optimizer = Adafactor(parameters, **options)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for parameter, start in zip(parameters, before, strict=True):
        if options.get("weight_decay"):
            assert bool((parameter.abs() <= start.abs()).all())
        else:
            assert torch.equal(parameter, start)


def test_each_group_has_its_own_options() -> None:
    together = model()
    optimizer = Adafactor(
        [
            {"params": together[:2], "lr": 0.1},
            {"params": together[2:], "beta1": 0.9, "weight_decay": 0.1},
        ],
        lr=0.01,
    )
    apart = model()
    alone = [
        Adafactor(apart[:2], 0.1),
        Adafactor(apart[2:], 0.01, beta1=0.9, weight_decay=0.1),
    ]
    for seed in range(4):
        for each in (optimizer, *alone):
            step(each, seed)
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


def test_a_rate_and_a_schedule_are_followed() -> None:
    scheduled, by_hand = model(), model()
    optimizer, other = Adafactor(scheduled, 0.1), Adafactor(by_hand, 0.1)
    schedule = LambdaLR(optimizer, lambda number: 1 / (1 + number))
    for seed in range(4):
        other.param_groups[0]["lr"] = 0.1 / (1 + seed)
        step(optimizer, seed)
        step(other, seed)
        schedule.step()
    assert_equal(scheduled, by_hand)


def test_a_rate_may_be_a_tensor() -> None:
    numbers, tensors = model(), model()
    first, second = Adafactor(numbers, 0.125), Adafactor(tensors, torch.tensor(0.125))
    for seed in range(3):
        step(first, seed)
        step(second, seed)
    assert_equal(numbers, tensors)


def test_a_group_added_later_begins_with_its_own_first_step() -> None:
    parameters = model()
    optimizer = Adafactor(parameters[:3])
    step(optimizer, 0)
    optimizer.add_param_group({"params": parameters[3:]})
    alone = [nn.Parameter(parameter.detach().clone()) for parameter in parameters[3:]]
    fresh = Adafactor(alone)
    step(optimizer, 1)
    step(fresh, 1)
    torch.testing.assert_close(parameters[3:], alone, rtol=1e-6, atol=1e-6)


def test_options_changed_during_training_are_followed() -> None:
    parameters, plain = model(), model()
    optimizer, other = Adafactor(parameters), Adafactor(plain, beta1=0.9)
    step(optimizer, 0)
    step(other, 0)
    optimizer.param_groups[0]["beta1"] = 0.9
    optimizer.param_groups[0]["scale_parameter"] = False
    step(optimizer, 1)
    assert "momentum" in optimizer.state[parameters[0]]
    before = copy.deepcopy(parameters)
    optimizer.param_groups[0]["lr"] = 0.0
    step(optimizer, 2)
    assert_equal(parameters, before)


def test_a_state_written_from_outside_is_used() -> None:
    """As load_state_dict of a wrapper may write it, entry by entry."""
    parameters, others = model(), model()
    optimizer, other = Adafactor(parameters), Adafactor(others)
    step(optimizer, 0)
    with torch.no_grad():
        for mine, theirs in zip(others, parameters, strict=True):
            mine.copy_(theirs)
    for mine, theirs in zip(others, parameters, strict=True):
        held = cast(dict[str, Any], copy.deepcopy(dict(optimizer.state[theirs])))
        other.state[mine] = held
    step(optimizer, 1)
    step(other, 1)
    assert_equal(parameters, others)


def test_a_weight_whose_storage_was_replaced_is_stepped() -> None:
    parameters, others = model(), model()
    optimizer, other = Adafactor(parameters), Adafactor(others)
    step(optimizer, 0)
    step(other, 0)
    for parameter in parameters:
        parameter.data = parameter.data.clone()
    step(optimizer, 1)
    step(other, 1)
    assert_equal(parameters, others)


def test_stepping_one_by_one_is_stepping_together() -> None:
    together, apart = model(), model()
    optimizer, other = Adafactor(together, beta1=0.9), Adafactor(apart, beta1=0.9)
    for seed in range(3):
        step(optimizer, seed)
        for mine, theirs in zip(apart, together, strict=True):
            mine.grad = theirs.grad
            other.step_parameter(mine)
    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Adafactor([]), ValueError, "empty parameter list"),
        (lambda: Adafactor(torch.ones(2)), TypeError, "iterable"),
        (lambda: Adafactor(cast(Any, ["x"])), TypeError, "Tensors"),
        (lambda: Adafactor([nn.Parameter(torch.ones(2)) * 2]), ValueError, "non-leaf"),
        (lambda: Adafactor([torch.ones(2, dtype=torch.complex64)]), ValueError, "complex64"),
        (lambda: Adafactor([torch.ones(2).half()]), ValueError, "float16"),
    ],
    ids=["empty", "a tensor", "no tensors", "no leaf", "complex", "float16"],
)
def test_what_cannot_be_stepped_is_refused(
    make: Callable[[], Adafactor], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make()


def test_a_tensor_in_two_groups_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Adafactor([parameter])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [parameter]})


def test_the_state_holds_no_tensors_of_untouched_parameters() -> None:
    parameters = model()
    optimizer = Adafactor(parameters)
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    assert isinstance(optimizer.state, defaultdict)
    assert list(optimizer.state) == [parameters[0]]
