"""Adafactor in Accelerate and in transformers' Trainer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    LambdaLR,
)
from torch.utils.data import Dataset
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from tests.optim.outside import (
    WIDTH,
    Network,
    adapted,
    optimizer_of,
    same,
    steps,
    trained,
)


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
