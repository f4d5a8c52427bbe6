"""`LoopReview` and `TrainerReview` in loops of Accelerate and transformers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from surefoot import LoopReview, TrainerReview
from tests.optim.outside import WIDTH, adapted
from tests.optim.test_in_trainers import Pairs, SmallConfig, SmallModel


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [item for item in model.parameters() if item.requires_grad]


def accelerated(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: int, scale: float = 1.0
) -> tuple[LoopReview, list[str]]:
    """A loop that accumulates two batches for a step; the loss grows by `scale` with each."""
    said: list[str] = []
    looking_on = LoopReview(said.append)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    prepared, wrapped = accelerator.prepare(model, optimizer)
    looking_on.begin(prepared, wrapped, batches)
    generator = torch.Generator().manual_seed(0)
    for number in range(batches):
        with accelerator.accumulate(prepared):
            x = torch.randn(8, WIDTH, generator=generator)
            loss = prepared(x).square().mean() * scale**number
            accelerator.backward(loss)
            wrapped.step()
            wrapped.zero_grad()
        looking_on.after_step(loss)
    looking_on.end()
    return looking_on, said


def test_a_sound_loop_of_accelerate_has_nothing_but_its_sheet() -> None:
    model = adapted(use_dora=True)
    looking_on, said = accelerated(model, torch.optim.AdamW(trained(model), lr=1e-3), 24)
    assert looking_on.findings == []
    assert len(said) == 1
    assert "lora_up: 1 tensors" in said[0]


def test_tensors_without_a_gradient_and_tensors_that_rest_are_told_apart() -> None:
    model = adapted()
    model.spare = nn.Parameter(torch.ones(3, 3))  # of no use to the model
    moving = [item for name, item in model.named_parameters() if "lora" in name]
    optimizer = torch.optim.AdamW(
        [
            {"params": moving},
            {"params": [model.spare]},
            {"params": [item for n, item in model.named_parameters() if "norm" in n], "lr": 0.0},
        ],
        lr=1e-3,
        weight_decay=0.0,
    )
    for item in model.parameters():
        held = any(item is one for group in optimizer.param_groups for one in group["params"])
        item.requires_grad_(held and (item.requires_grad or item is model.spare))
    held = [item for item in model.parameters() if item.requires_grad]
    for group in optimizer.param_groups:
        group["params"] = [one for one in group["params"] if any(one is item for item in held)]
    looking_on, _said = accelerated(model, optimizer, 6)
    found = {item.code: item.values for item in looking_on.findings}
    assert found.keys() == {"SF532", "SF501"}
    assert (found["SF532"]["example"], found["SF532"]["steps"]) == ("spare", 3)
    assert found["SF501"]["count"] == 2
    assert "norm" in str(found["SF501"]["example"])


def test_a_loss_that_rises_is_said_once() -> None:
    model = adapted()
    looking_on, said = accelerated(model, torch.optim.AdamW(trained(model), lr=1e-4), 60, 1.1)
    assert [item.code for item in looking_on.findings] == ["SF548"]
    assert sum("SF548" in text for text in said) == 1


def test_a_loss_that_is_not_finite_is_found_in_tensors_and_numbers() -> None:
    for losses in (torch.tensor([1.0, torch.nan]).unbind(), (1.0, float("nan"))):
        looking_on = LoopReview(lambda _text: None)
        for loss in losses:
            looking_on.after_step(cast(Any, loss))
        looking_on.end()
        assert [(item.code, item.values["step"]) for item in looking_on.findings] == [("SF549", 2)]


class Rising(SmallModel):
    """Its loss grows whatever it learns."""

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.calls = 0

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        found = super().forward(x, labels)
        return {**found, "loss": found["loss"] * 1.2**self.calls}


def trainer_of(model: SmallModel, folder: Path, callback: TrainerReview, lr: float) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=40,
        warmup_steps=2,
        learning_rate=lr,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    return Trainer(model=model, args=arguments, train_dataset=Pairs(), callbacks=[callback])


def test_the_callback_of_trainer_reviews_and_looks_on(tmp_path: Path) -> None:
    said: list[str] = []
    callback = TrainerReview(said.append)
    trainer_of(SmallModel(SmallConfig()), tmp_path, callback, 1e-3).train()
    assert callback.findings == []
    assert len(said) == 1
    assert "step 1.0e-03" in said[0]  # not that of the warm-up


@pytest.mark.parametrize(("asked", "steps"), [("warn", 40), ("stop", 21)])
def test_the_callback_ends_the_training_where_that_is_asked(
    asked: Any, steps: int, tmp_path: Path
) -> None:
    callback = TrainerReview(lambda _text: None, on_trouble=asked)
    trainer = trainer_of(Rising(SmallConfig()), tmp_path, callback, 1e-5)
    trainer.train()
    assert [item.code for item in callback.findings] == ["SF548"]
    assert trainer.state.global_step <= steps
    assert (trainer.state.global_step == 40) == (asked == "warn")


def test_importing_surefoot_stays_light() -> None:
    code = (
        "import sys, surefoot; print(sorted({'torch', 'transformers'} & set(sys.modules)));"
        "surefoot.TrainerReview; print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True"]


def snippets(page: str) -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


# The page is written for a GPU; transformers pins memory and finds none.
@pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
def test_the_page_shows_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(snippets("check-any-loop.md")) == 3
    assert snippets("check-any-loop.md") == snippets("check-any-loop.zh-CN.md")
    tokens = torch.arange(8)
    for snippet in snippets("check-any-loop.md"):
        torch.manual_seed(0)
        model = adapted()
        tiny = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=8)
        names: dict[str, Any] = {
            "model": model,
            "optimizer": torch.optim.AdamW(trained(model), lr=1e-3),
            "batches": [(torch.randn(4, WIDTH), torch.randn(4, 4)) for _ in range(4)],
            "language_model": cast(Any, GPT2LMHeadModel)(tiny),
            "train_dataset": [{"input_ids": tokens, "labels": tokens}] * 8,
        }
        exec(compile(snippet, "check-any-loop.md", "exec"), names)
        assert getattr(names.get("review"), "findings", []) == []
        assert "tensors, RMS" in capsys.readouterr().out
