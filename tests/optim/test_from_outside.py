"""Adafactor in the hands of other programs: loops, trainers, schedulers, savers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
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
from torch.utils.data import Dataset
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from surefoot.optim import Adafactor, parameter_groups

WIDTH = 12


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, 24)
        self.norm = nn.LayerNorm(24)
        self.last = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())


def adapted(use_dora: bool = False) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=4, target_modules=["first"], modules_to_save=["norm"], use_dora=use_dora
    )
    return cast(nn.Module, get_peft_model(cast(Any, Network()), config))


def gradients(model: nn.Module, seed: int) -> None:
    """The same for the same seed and the same weights."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, WIDTH, generator=generator)
    model(x).square().sum().backward()


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        gradients(model, seed)
        optimizer.step()


def optimizer_of(model: nn.Module, **options: Any) -> Adafactor:
    return Adafactor(parameter_groups(model), lr=1e-2, **options)


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_state_of_half_precision_weights_is_restored_unrounded(dtype: torch.dtype) -> None:
    model = adapted().to(dtype)
    optimizer = optimizer_of(model)
    for seed in range(2):
        gradients(model.to(torch.float32), seed)
        model.to(dtype)
        optimizer.step()
    other = optimizer_of(copy.deepcopy(model))
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


# Accelerate and transformers


def test_accelerate_accumulates_and_schedules() -> None:
    torch.manual_seed(0)
    plain = adapted()
    model = copy.deepcopy(plain)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = optimizer_of(model)
    scheduler = LambdaLR(optimizer, lambda step: 1 / (step + 1))
    prepared, wrapped, wrapped_scheduler = accelerator.prepare(model, optimizer, scheduler)
    batches = torch.randn(6, 8, WIDTH)
    for x in batches:
        with accelerator.accumulate(prepared):
            accelerator.backward(prepared(x).square().mean())
            accelerator.clip_grad_norm_(prepared.parameters(), 1e9)
            wrapped.step()
            wrapped_scheduler.step()
            wrapped.zero_grad()

    reference = optimizer_of(plain)
    for index in range(3):
        for group in reference.param_groups:
            group["lr"] = 1e-2 / (index + 1)
        for x in batches[2 * index : 2 * index + 2]:
            (plain(x).square().mean() / 2).backward()
        reference.step()
        reference.zero_grad()
    for name, value in trained(model).items():
        torch.testing.assert_close(value, trained(plain)[name], rtol=1e-4, atol=1e-6)


def test_accelerate_saves_and_loads_it(tmp_path: Path) -> None:
    model = adapted()
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, optimizer_of(model))
    steps(prepared, optimizer, range(2))
    accelerator.save_state(str(tmp_path))
    steps(prepared, optimizer, range(2, 4))
    expected = trained(model)
    accelerator.load_state(str(tmp_path))
    assert not same(trained(model), expected)
    steps(prepared, optimizer, range(2, 4))
    assert same(trained(model), expected)


class SmallConfig(PreTrainedConfig):
    model_type = "small"


class SmallModel(PreTrainedModel):
    config_class = SmallConfig

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.network = Network()
        self.post_init()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        answer = self.network(x)
        return {"loss": (answer - labels).square().mean(), "logits": answer}


class Pairs(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(16, WIDTH, generator=generator)
        self.labels = torch.randn(16, 4, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


def trainer_of(folder: Path, steps_in_all: int) -> Trainer:
    torch.manual_seed(0)
    model = SmallModel(SmallConfig())
    optimizer = optimizer_of(model)
    scheduler = LambdaLR(optimizer, lambda step: 1 / (step + 1))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps_in_all,
        save_steps=2,
        logging_steps=1,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=Pairs(),
        optimizers=(optimizer, scheduler),
    )


def test_the_trainer_of_transformers_trains_and_resumes_with_it(tmp_path: Path) -> None:
    whole = trainer_of(tmp_path / "whole", 4)
    whole.train()
    rates = [row["learning_rate"] for row in whole.state.log_history if "learning_rate" in row]
    assert rates == pytest.approx([1e-2 / step for step in range(1, 5)])
    before = trained(cast(nn.Module, trainer_of(tmp_path / "new", 4).model))
    after = trained(cast(nn.Module, whole.model))
    assert not any(torch.equal(value, before[name]) for name, value in after.items())

    resumed = trainer_of(tmp_path / "whole", 4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert same(trained(cast(nn.Module, resumed.model)), after)
