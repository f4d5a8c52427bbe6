"""No false alarms: what people rightly do, by method and optimizer, is never called an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sane_settings import METHODS, OPTIMIZERS, SANE
from tests.run_files import look, write_run


@pytest.mark.parametrize(("method", "optimizer"), SANE)
def test_sane_run_has_no_error(method: str, optimizer: str, tmp_path: Path) -> None:
    overrides = (*METHODS[method], *OPTIMIZERS[optimizer], "data.flip=true", "train.steps=1500")
    findings = look(write_run(tmp_path), *overrides)[2]
    assert [item.code for item in findings if item.level == "error"] == []


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw", "prodigy", "schedule-free"])
@pytest.mark.parametrize("method", ["full", "lora", "dora"])
def test_usual_run_has_no_finding_at_all(method: str, optimizer: str, tmp_path: Path) -> None:
    overrides = (*METHODS[method], *OPTIMIZERS[optimizer], "train.steps=1500")
    assert look(write_run(tmp_path), *overrides)[2] == []
