"""Adafactor in the hands of other programs: loops, schedulers, savers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from surefoot.optim import Adafactor, parameter_groups
from tests.optim.outside import (
    WIDTH,
    Network,
    adapted,
    gradients,
    optimizer_of,
    same,
    steps,
    trained,
)


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_a_plain_loop_learns_with_peft(use_dora: bool) -> None:
    model = adapted(use_dora)
    optimizer = optimizer_of(model)
    x, target = torch.randn(64, WIDTH), torch.randn(64, 4)
    losses: list[float] = []
    before = trained(model)
    for _ in range(60):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert not any(torch.equal(value, before[name]) for name, value in trained(model).items())


# Saved and restored


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_a_restored_optimizer_goes_on_to_the_bit(beta1: float, tmp_path: Path) -> None:
    model = adapted()
    optimizer = optimizer_of(model, beta1=beta1)
    steps(model, optimizer, range(3))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x")
    steps(model, optimizer, range(3, 6))

    saved = torch.load(tmp_path / "x", weights_only=True)
    other = adapted()
    other.load_state_dict(saved["model"])
    restored = optimizer_of(other, beta1=beta1)
    restored.load_state_dict(saved["optimizer"])
    steps(other, restored, range(3, 6))
    assert same(trained(other), trained(model))


@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.bfloat16, "stochastic"), (torch.float16, "kahan")], ids=str
)
def test_the_state_of_half_precision_weights_is_restored_unrounded(
    dtype: torch.dtype, rounding: str
) -> None:
    model = adapted().to(dtype)
    optimizer = optimizer_of(model, rounding=rounding)
    for seed in range(2):
        gradients(model.to(torch.float32), seed)
        model.to(dtype)
        optimizer.step()
    other = optimizer_of(copy.deepcopy(model), rounding=rounding)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for mine, theirs in zip(states(optimizer), states(other), strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)


def states(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    saved = cast(dict[int, dict[str, Any]], optimizer.state_dict()["state"])
    found = [
        value
        for state in saved.values()
        for value in state.values()
        if isinstance(value, Tensor) and value.numel() > 1
    ]
    assert found
    return found


def through_pickle(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


def through_torch_save(pair: Any) -> Any:
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, through_pickle, through_torch_save],
    ids=["deepcopy", "pickle", "save"],
)
def test_a_copy_with_its_model_goes_on_as_the_original(copied: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    model: nn.Module = Network()
    optimizer = optimizer_of(model, beta1=0.5)
    steps(model, optimizer, range(2))
    other, restored = copied((model, optimizer))
    assert restored.param_groups[0]["params"][0] is not optimizer.param_groups[0]["params"][0]
    steps(other, restored, range(2, 4))
    assert not same(trained(other), trained(model))
    steps(model, optimizer, range(2, 4))
    assert same(trained(other), trained(model))


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_the_savers_of_distributed_training_restore_it(beta1: float) -> None:
    model = adapted()
    optimizer = optimizer_of(model, beta1=beta1)
    steps(model, optimizer, range(2))
    weights = copy.deepcopy(model.state_dict())
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
    steps(model, optimizer, range(2, 4))

    other = adapted()
    other.load_state_dict(weights)
    fresh = optimizer_of(other, beta1=beta1)
    set_optimizer_state_dict(other, fresh, saved)
    for before, after in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert before["weight_rms"] == after["weight_rms"]
        assert (before["kind"], before["alpha"]) == (after["kind"], after["alpha"])
    steps(other, fresh, range(2, 4))
    assert same(trained(other), trained(model))


# Groups that change


def test_a_group_added_later_is_trained_and_saved() -> None:
    model = Network()
    optimizer = Adafactor(parameter_groups(model.first), lr=1e-2)
    steps(model, optimizer, range(2))
    for group in parameter_groups(model.last):
        optimizer.add_param_group(group)
    before = trained(model)
    steps(model, optimizer, range(2, 4))
    moved = {name for name, value in trained(model).items() if not value.equal(before[name])}
    assert moved == {"first.weight", "first.bias", "last.weight", "last.bias"}
    other = Adafactor(parameter_groups(model.first), lr=1e-2)
    for group in parameter_groups(model.last):
        other.add_param_group(group)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(states(optimizer), states(other), strict=True))


def test_a_tensor_frozen_for_a_while_stands_still_and_goes_on() -> None:
    model = Network()
    optimizer = optimizer_of(model)
    steps(model, optimizer, range(2))
    model.first.requires_grad_(False)
    frozen = model.first.weight.clone()
    steps(model, optimizer, range(2, 4))
    assert torch.equal(model.first.weight, frozen)
    model.first.requires_grad_(True)
    steps(model, optimizer, range(4, 6))
    assert not torch.equal(model.first.weight, frozen)
    assert all(value.isfinite().all() for value in model.parameters())


# Schedulers of torch

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (step + 1)),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=4),
    "one cycle": lambda optimizer: OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=5, cycle_momentum=False
    ),
    "sequence": lambda optimizer: SequentialLR(
        optimizer,
        [LambdaLR(optimizer, lambda _: 0.5), LambdaLR(optimizer, lambda _: 0.25)],
        milestones=[2],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_torch_sets_the_size_of_a_step(name: str) -> None:
    torch.manual_seed(0)
    model = Network()
    optimizer = optimizer_of(model)
    scheduler: LRScheduler = SCHEDULERS[name](optimizer)
    rates: list[float] = []
    for seed in range(4):
        gradients(model, seed)
        before = model.first.weight.detach().clone()
        rates.append(optimizer.param_groups[0]["lr"])
        twin = copy.deepcopy(model)
        plain = optimizer_of(twin)
        plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for group in plain.param_groups:
            group["lr"] = rates[-1] * 2
        for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            theirs.grad = mine.grad
        optimizer.step()
        plain.step()
        scheduler.step()
        step, double = model.first.weight - before, twin.first.weight - before
        torch.testing.assert_close(double, 2 * step, rtol=1e-3, atol=1e-7)
    assert len(set(rates)) > 1


def test_a_scheduler_that_waits_for_the_loss_lowers_every_group() -> None:
    optimizer = optimizer_of(Network())
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    for _ in range(3):
        scheduler.step(1.0)
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {1e-4}


def test_one_cycle_over_momentum_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="cycle_momentum"):
        OneCycleLR(optimizer_of(Network()), max_lr=1e-2, total_steps=5)


# Half precision


def test_a_gradient_scaler_unscales_and_skips_what_overflowed() -> None:
    torch.manual_seed(0)
    model = Network()
    twin = copy.deepcopy(model)
    optimizer, plain = optimizer_of(model), optimizer_of(twin)
    # A power of two changes no digit.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # pyright: ignore[reportPrivateImportUsage]
    x = torch.randn(8, WIDTH)
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(model(x).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        plain.zero_grad()
        twin(x).square().sum().backward()
        plain.step()
    assert same(trained(model), trained(twin))
    before = trained(model)
    optimizer.zero_grad()
    scaler.scale(model(x * torch.inf).square().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert same(trained(model), before)
    assert scaler.get_scale() == 2.0**9
