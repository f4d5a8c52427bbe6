"""No false alarms: what people rightly do, by method and optimizer, is never called an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.run_files import look, write_run

BF16 = ("tuning.weights=bf16", "train.precision=bf16")
METHODS: dict[str, tuple[str, ...]] = {
    "full": ("tuning.kind=full",),
    "full in bf16": ("tuning.kind=full", *BF16),
    "full with text encoder": ("tuning.kind=full", "tuning.parts=['unet', 'text_encoder']"),
    "lora": ("tuning.kind=lora", "tuning.rank=8"),
    "lora on everything": ("tuning.kind=lora", "tuning.targets=all", "tuning.alpha=16"),
    "dora": ("tuning.kind=dora",),
}
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adafactor": (),
    "adafactor by 1e-2": ("optimizer.lr=1e-2", "schedule.warmup_fraction=0.05"),
    "adafactor unscaled": ("optimizer.scale_parameter=false",),
    "adafactor with momentum": ("optimizer.beta1=0.9",),
    "adamw": ("optimizer.kind=adamw",),
    "adamw clipped": ("optimizer.kind=adamw", "train.clip_grad_norm=1.0"),
    "adamw in 8 bits": ("optimizer.kind=adamw_8bit",),
    "lion": ("optimizer.kind=lion",),
    "came": ("optimizer.kind=came",),
    "stable adamw": ("optimizer.kind=stable_adamw",),
    "adan": ("optimizer.kind=adan",),
    "muon": ("optimizer.kind=muon",),
    "soap": ("optimizer.kind=soap",),
    "prodigy": ("optimizer.kind=prodigy",),
    "d-adaptation": ("optimizer.kind=d_adaptation",),
    "schedule-free": ("optimizer.kind=schedule_free_adamw",),
    "prodigy plus": ("optimizer.kind=prodigy_plus",),
    "by name": ("optimizer.kind=pytorch_optimizer", "optimizer.name=AdaBelief"),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_sane_run_has_no_error(method: str, optimizer: str, tmp_path: Path) -> None:
    overrides = (*METHODS[method], *OPTIMIZERS[optimizer], "data.flip=true", "train.steps=1500")
    findings = look(write_run(tmp_path), *overrides)[2]
    assert [item.code for item in findings if item.level == "error"] == []


def test_there_are_enough_of_them() -> None:
    assert len(METHODS) * len(OPTIMIZERS) >= 40


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw", "prodigy", "schedule-free"])
@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_usual_run_has_no_finding_at_all(method: str, optimizer: str, tmp_path: Path) -> None:
    overrides = (*METHODS[method], *OPTIMIZERS[optimizer], "train.steps=1500")
    assert look(write_run(tmp_path), *overrides)[2] == []
