"""Parameter groups that a caller edits after the first step."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from surefoot.optim.adafactor import Adafactor


def adapter(rms: float = 1.0) -> tuple[Adafactor, dict[str, Any]]:
    parameters = [nn.Parameter(torch.zeros(4, 3)) for _ in range(3)]
    group: dict[str, object] = {
        "params": parameters,
        "kind": "lora_up",
        "weight_rms": [rms] * 3,
        "fan_in": [100] * 3,
    }
    optimizer = Adafactor([group], 1e-3)
    return optimizer, cast(dict[str, Any], optimizer.param_groups[0])


def step(optimizer: Adafactor) -> list[float]:
    """How far each tensor of the group went."""
    parameters = optimizer.param_groups[0]["params"]
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    pairs = zip(parameters, before, strict=True)
    return [float((start - parameter.detach()).mean()) for parameter, start in pairs]


def test_the_size_of_a_layer_that_changes_counts(arithmetic: str) -> None:
    optimizer, group = adapter()
    first = step(optimizer)
    group["weight_rms"][1] = 10.0
    assert step(optimizer) == pytest.approx([first[0], 10 * first[1], first[2]], rel=1e-4)


def test_a_tensor_that_takes_anothers_place_moves_and_the_other_does_not(arithmetic: str) -> None:
    optimizer, group = adapter()
    step(optimizer)
    old = group["params"][2]
    group["params"][2] = nn.Parameter(torch.zeros(4, 3))
    old.grad = torch.ones(4, 3)
    kept = old.detach().clone()
    moved = step(optimizer)
    assert moved[2] == pytest.approx(moved[0], rel=1e-4)
    assert torch.equal(old, kept)


def test_a_tensor_too_many_is_said_in_words(arithmetic: str) -> None:
    optimizer, group = adapter()
    step(optimizer)
    group["params"].append(nn.Parameter(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="a group of 4 tensors has 3 weight_rms"):
        step(optimizer)


def test_options_may_be_written_as_for_transformers() -> None:
    optimizer = Adafactor([nn.Parameter(torch.ones(2, 2))], lr=None, relative_step=True, beta1=None)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["beta1"]) == (1e-2, 0.0)


@pytest.mark.parametrize("lr", [None, "0.1"])
def test_a_learning_rate_that_is_no_number_is_said_in_words(lr: Any) -> None:
    with pytest.raises(ValueError, match="lr must be a number from 0 on, but is"):
        Adafactor([nn.Parameter(torch.ones(2, 2))], lr=lr)


@pytest.mark.parametrize("scale", [True, "weight"])
def test_an_adapter_of_which_nothing_is_said_is_warned_of(scale: Any) -> None:
    up, down = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.ones(3, 4))
    with pytest.warns(UserWarning, match=r"1 of the matrices .*surefoot.parameter_groups"):
        Adafactor([up, down], scale_parameter=scale)
    Adafactor([up, down], scale_parameter=False)
    Adafactor([{"params": [up], "kind": "weight"}], scale_parameter=scale)


def test_the_state_of_another_optimizer_is_refused_in_words() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    other = torch.optim.AdamW([weight])
    other.step()
    ours = Adafactor([weight])
    with pytest.raises(ValueError, match="another optimizer: it holds exp_avg, exp_avg_sq, step"):
        ours.load_state_dict(other.state_dict())
    ours.step()


def test_a_state_with_fewer_options_takes_the_present_ones() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    ours = Adafactor([weight], rounding="kahan")
    ours.step()
    state = ours.state_dict()
    del state["param_groups"][0]["rounding"], state["param_groups"][0]["fan_in"]
    ours.load_state_dict(state)
    ours.step()
    assert ours.param_groups[0]["rounding"] == "kahan"
