"""Run folders of another run, or that cannot be gone on with: refused, and nothing changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from surefoot.engine.checkpoint import Checkpoints, State
from surefoot.engine.optimizer_state import OptimizerState
from surefoot.plan import Plan, settings, write_plan
from tests.run_files import look, surefoot, write_run
from tests.tiny_sd import build_tiny_pipeline

UNUSABLE = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_pipeline(0).save_pretrained(folder)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def started(tmp_path: Path, tiny: Path) -> tuple[Path, Plan]:
    """A run of the tiny model with a checkpoint at its third step."""
    run_file = write_run(tmp_path, {"model.path": str(tiny), "train.steps": 4, "tuning.rank": 2})
    plan, _survey, findings = look(run_file)
    assert findings == []
    plan.run_folder.mkdir(parents=True)
    write_plan(plan)
    checkpoints = Checkpoints(plan.run_folder / "checkpoints", plan.fingerprint, keep=2)
    optimizer = OptimizerState("surefoot.Adafactor", 1, {})
    checkpoints.write(State(3, {"a": torch.zeros(2)}, optimizer, {}, settings(plan)))
    return run_file, plan


def test_checkpoint_of_another_run_is_refused_with_the_keys_that_differ(
    started: tuple[Path, Plan],
) -> None:
    run_file, plan = started
    before = tree(plan.run_folder)
    result = surefoot("train", run_file, "seed=5", "optimizer.lr=2e-2", "tuning.rank=3")
    assert result.exit_code == UNUSABLE
    (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("error["))
    assert sentence.startswith(f"error[SF043] the checkpoint {plan.run_folder} belongs to another")
    for key in ("seed", "tuning.rank"):
        assert key in sentence
    # What may be changed is no reason to refuse.
    assert "data" not in sentence
    assert "optimizer" not in sentence
    assert tree(plan.run_folder) == before


@pytest.mark.parametrize("plan_text", ["", "{}", "not json"])
def test_checkpoint_of_another_run_is_refused_even_without_its_plan(
    plan_text: str, started: tuple[Path, Plan]
) -> None:
    run_file, plan = started
    (plan.run_folder / "plan.json").write_text(plan_text, encoding="utf-8")
    before = tree(plan.run_folder)
    result = surefoot("train", run_file, "seed=5")
    assert result.exit_code == UNUSABLE
    assert "error[SF043]" in result.stderr
    assert tree(plan.run_folder) == before


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: shutil.rmtree(folder), "SF047"),
        (lambda folder: (folder / "plan.json").unlink(), "SF047"),
        (lambda folder: (folder / "plan.json").write_text("{}", encoding="utf-8"), "SF047"),
        (lambda folder: shutil.rmtree(folder / "checkpoints"), "SF047"),
        (lambda _folder: None, "SF048"),
    ],
    ids=["no folder", "no plan", "no plan of ours", "no checkpoint", "no prompts"],
)
def test_folder_that_cannot_be_drawn_from_is_refused(
    spoil: Callable[[Path], object], code: str, started: tuple[Path, Plan]
) -> None:
    _run_file, plan = started
    spoil(plan.run_folder)
    result = surefoot("sample", plan.run_folder)
    assert result.exit_code == UNUSABLE
    (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("error["))
    assert sentence.startswith(f"error[{code}] ")
    assert code == "SF048" or str(plan.run_folder) in sentence


def test_device_that_is_not_there_is_refused(started: tuple[Path, Plan]) -> None:
    run_file, _plan = started
    result = surefoot("train", run_file, "train.device=cuda:99", "name=other")
    assert result.exit_code == UNUSABLE
    assert "error[SF045] the device cuda:99 is not there: " in result.stderr
    assert "Traceback" not in result.output
