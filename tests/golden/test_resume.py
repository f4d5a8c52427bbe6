"""A run that was interrupted ends exactly as one that was not."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from surefoot.builtin import BUILTIN_TRAIN, BUILTIN_VALIDATION
from surefoot.engine.events import Events, read_events
from tests.engine.small_runs import (
    prepare,
    settings,
    train,
    write_model,
    write_pictures,
    write_run,
)

STEPS, INTERRUPTED_AT, SAVED_BEFORE = 30, 17, 15

RUNS: dict[str, dict[str, object]] = {
    "adafactor and moving average": {
        "optimizer": {"kind": "adafactor", "scale_parameter": "weight", "lr": 0.01, "beta1": 0.9},
        "train": {"ema": 0.9},
    },
    "adamw and gradient accumulation": {
        "optimizer": {"kind": "adamw", "lr": 0.001},
        "train": {"gradient_accumulation": 2},
    },
}


def copy_pictures(source: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for picture in sorted(source.glob("*.png"))[:count]:
        shutil.copy(picture, folder)
        shutil.copy(picture.with_suffix(".txt"), folder)
    return folder


def builtin_run(folder: Path, name: str) -> dict[str, Any]:
    special = RUNS[name]
    train_section = {"steps": STEPS, "batch_size": 2, "device": "cpu"}
    assert isinstance(special["train"], dict)
    return {
        "name": "golden",
        "seed": 11,
        "model": {"path": "builtin"},
        "tuning": {"kind": "dora", "rank": 4, "targets": "attention"},
        "optimizer": special["optimizer"],
        "schedule": {"kind": "cosine", "warmup_steps": 3},
        "data": {
            "folders": [{"path": str(copy_pictures(BUILTIN_TRAIN, folder / "train", 9))}],
            "flip": True,
        },
        "captions": {"dropout": 0.1, "shuffle": True, "tag_dropout": 0.2, "keep_tags": 1},
        "train": train_section | special["train"],
        "validation": {
            "folder": str(copy_pictures(BUILTIN_VALIDATION, folder / "held out", 4)),
            "every": 10,
            "draws": 2,
        },
        "save": {"every": 5},
    }


def interrupt_after_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Ctrl-C at the moment when the step is done and nothing of it is saved yet."""
    original = Events.scalars

    def scalars(self: Events, event: str, done: int, **values: float) -> None:
        original(self, event, done, **values)
        if event == "step" and done == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Events, "scalars", scalars)


def outcome(run_folder: Path, steps: int) -> dict[str, object]:
    """The hashes of the weights, the optimizer's memory, the averages and the exported files."""
    manifest = (run_folder / "checkpoints" / f"step-{steps:06d}" / "manifest.json").read_text()
    exports = sorted(run_folder.glob("*.safetensors"))
    losses = {
        event["step"]: event["loss"]
        for event in read_events(run_folder)
        if event["event"] == "validation"
    }
    return {
        "manifest": json.loads(manifest),
        "exports": {
            export.name: hashlib.sha256(export.read_bytes()).hexdigest() for export in exports
        },
        "validation": losses,
    }


@pytest.mark.parametrize("name", RUNS)
def test_resumed_run_equals_uninterrupted_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = builtin_run(tmp_path, name)
    whole = prepare(tmp_path / "whole", values)
    train(whole)
    expected = outcome(whole.folder, STEPS)

    halved = prepare(tmp_path / "halved", values)
    with monkeypatch.context() as patch:
        interrupt_after_step(patch, INTERRUPTED_AT)
        with pytest.raises(KeyboardInterrupt):
            train(halved)
    assert not list(halved.folder.glob("*.safetensors"))
    summary = train(prepare(tmp_path / "halved", values))

    assert summary.resumed_from == SAVED_BEFORE
    done = [event["step"] for event in read_events(halved.folder) if event["event"] == "step"]
    assert done == [*range(1, INTERRUPTED_AT + 1), *range(SAVED_BEFORE + 1, STEPS + 1)]
    assert outcome(halved.folder, STEPS) == expected
    # What was compared is there, and moved.
    manifest = expected["manifest"]
    assert isinstance(manifest, dict)
    averages = {"average.safetensors"} if "average" in name else set()
    assert manifest["sha256"].keys() == {"trained.safetensors", "optimizer.safetensors"} | averages
    losses = expected["validation"]
    assert isinstance(losses, dict)
    assert losses.keys() == {0, 10, 20, 30}
    assert len(set(losses.values())) == len(losses)


def test_another_seed_ends_elsewhere(tmp_path: Path) -> None:
    values = settings(
        write_model(tmp_path / "model"),
        write_pictures(tmp_path / "pictures", 5),
        write_pictures(tmp_path / "held out", 2, first=20),
    )
    ends = []
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        small = prepare(tmp_path / folder, values, seed=seed)
        train(small)
        ends.append(outcome(small.folder, 6)["exports"])
    assert ends[0] == ends[1] != ends[2]


def command(run_file: Path) -> list[str]:
    return [sys.executable, "-m", "surefoot", "train", str(run_file)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_process_is_made_good_by_the_same_command(tmp_path: Path) -> None:
    values = settings(
        write_model(tmp_path / "model"),
        write_pictures(tmp_path / "pictures", 5),
        write_pictures(tmp_path / "held out", 2, first=20),
    )
    steps = 40
    changes = {"train__steps": steps, "train__ema": 0.9, "save__every": 4, "validation__every": 10}
    whole = prepare(tmp_path / "whole", values, **changes)
    train(whole)

    run_file = write_run(tmp_path / "killed", values, **changes)
    run_folder = tmp_path / "killed" / "runs" / "small"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(run_file), stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not list((run_folder / "checkpoints").glob("step-*/manifest.json")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not list(run_folder.glob("*.safetensors"))

    again = subprocess.run(
        command(run_file), capture_output=True, text=True, timeout=100, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "went on from step" in again.stdout
    assert outcome(run_folder, steps) == outcome(whole.folder, steps)
