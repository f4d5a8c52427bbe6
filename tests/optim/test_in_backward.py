"""The step inside backward."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from surefoot.optim.adafactor import Adafactor
from surefoot.optim.in_backward import StepInBackward


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 16, 32), nn.Linear(32, 32)
    )


def loss(model: nn.Module, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    return model(torch.randn(4, 3, 6, 6, generator=generator)).square().mean()


def equal(first: nn.Module, second: nn.Module, *, exactly: bool) -> None:
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        if exactly:
            assert torch.equal(left, right)
        else:
            # Sums over several tensors at once and over one are taken in another order.
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_it_gives_the_weights_of_backward_and_then_step(arithmetic: str, beta1: float) -> None:
    apart, inside = network(), network()
    optimizer = Adafactor(apart.parameters(), 1e-2, beta1=beta1, weight_decay=0.01)
    with StepInBackward(
        Adafactor(inside.parameters(), 1e-2, beta1=beta1, weight_decay=0.01)
    ) as stepping_in:
        for step in range(5):
            loss(apart, step).backward()
            norm = torch.nn.utils.get_total_norm(
                [p.grad for p in apart.parameters() if p.grad is not None]
            )
            optimizer.step()
            optimizer.zero_grad()
            loss(inside, step).backward()
            torch.testing.assert_close(stepping_in.gradient_norm(), norm, rtol=1e-4, atol=0.0)
    equal(apart, inside, exactly=arithmetic == "compiled")


def test_each_gradient_is_freed_before_the_next_layers_is_there(arithmetic: str) -> None:
    model = network()
    held: list[int] = []
    with StepInBackward(Adafactor(model.parameters())):
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda _: held.append(sum(p.grad is not None for p in model.parameters()))
            )
        loss(model, 0).backward()
    assert held == [0] * 6


def test_gradients_of_several_passes_are_kept_until_the_last(arithmetic: str) -> None:
    apart, inside = network(), network()
    optimizer = Adafactor(apart.parameters(), 1e-2)
    with StepInBackward(Adafactor(inside.parameters(), 1e-2)) as stepping_in:
        for step in range(3):
            for part in range(4):
                stepping_in.enabled = part == 3
                (loss(apart, 4 * step + part) / 4).backward()
                (loss(inside, 4 * step + part) / 4).backward()
            optimizer.step()
            optimizer.zero_grad()
    equal(apart, inside, exactly=arithmetic == "compiled")


def test_weights_that_one_backward_does_not_reach_stay(arithmetic: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model[0].state_dict())
    with StepInBackward(Adafactor(model.parameters())):
        loss(model, 0).backward()
    assert all(torch.equal(before[name], value) for name, value in model[0].state_dict().items())


def test_after_it_gradients_stay_again(arithmetic: str) -> None:
    model = network()
    optimizer = Adafactor(model.parameters())
    with StepInBackward(optimizer):
        loss(model, 0).backward()
    loss(model, 1).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {optimizer.state[parameter]["step"] for parameter in model.parameters()} == {1}


def test_a_gradient_that_is_not_finite_leaves_its_weight(arithmetic: str) -> None:
    model = network()
    optimizer = Adafactor(model.parameters())
    before = copy.deepcopy(model.state_dict())
    with StepInBackward(optimizer):
        (loss(model, 0) * float("nan")).backward()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert optimizer.refused() == 6


def test_a_tensor_unfrozen_later_is_followed_too(arithmetic: str) -> None:
    model = network()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model[0].state_dict())
    with StepInBackward(Adafactor(model.parameters())):
        loss(model, 0).backward()
        assert not model[0].weight.requires_grad
        model[0].requires_grad_(True)
        loss(model, 1).backward()
    weight = model.get_parameter("0.weight")
    assert weight.grad is None
    assert not torch.equal(before["weight"], weight)


def test_an_option_that_changes_on_the_way_holds_from_the_next_step_on(arithmetic: str) -> None:
    def first_steps(inside: bool) -> list[torch.Tensor]:
        weight = nn.Parameter(torch.zeros(4, 3))
        optimizer = Adafactor([{"params": [weight], "kind": "lora_up"}], 1.0, scale_parameter=True)
        positions: list[torch.Tensor] = []
        stepping = StepInBackward(optimizer) if inside else None
        for eps2 in (1e-3, 1.0):
            optimizer.param_groups[0]["eps2"] = eps2
            weight.sum().backward()
            if stepping is None:
                optimizer.step()
                optimizer.zero_grad()
            positions.append(weight.detach().clone())
        return positions

    for within, apart in zip(first_steps(True), first_steps(False), strict=True):
        torch.testing.assert_close(within, apart, rtol=1e-5, atol=0.0)


def test_tensors_of_several_groups_are_followed_from_the_first_on(arithmetic: str) -> None:
    apart, inside = network(), network()

    def optimizer_of(model: nn.Sequential) -> Adafactor:
        return Adafactor([{"params": [*layer.parameters()]} for layer in (model[0], model[3])])

    optimizer = optimizer_of(apart)
    loss(apart, 0).backward()
    optimizer.step()
    with StepInBackward(optimizer_of(inside)):
        loss(inside, 0).backward()
    equal(apart, inside, exactly=arithmetic == "compiled")
