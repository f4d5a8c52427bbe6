"""Checkpoints: whole or passed over, and never lost to a failing disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from surefoot import cli
from surefoot.engine import checkpoint
from surefoot.engine.checkpoint import Checkpoints, State
from surefoot.engine.events import read_events
from surefoot.engine.optimizer_state import GroupMemory, Memory, OptimizerState
from surefoot.finding import Finding, Refused
from tests.engine.small_runs import (
    SmallRun,
    prepare,
    quiet_reporter,
    said,
    settings,
    train,
    write_model,
    write_pictures,
)


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    model = write_model(tmp_path / "model")
    pictures = write_pictures(tmp_path / "pictures", 5)
    return settings(model, pictures, write_pictures(tmp_path / "held out", 2, first=20))


def state_at(step: int) -> State:
    generator = torch.Generator().manual_seed(step)
    weights = {"unet.a": torch.randn(3, 2, generator=generator), "unet.b": torch.tensor([step])}
    memory: dict[str, dict[str, Memory]] = {
        "unet.a": {"step": step, "row": torch.randn(3, generator=generator)},
        "unet.b": {"step": torch.tensor(float(step)), "square": torch.ones(1) / 3},
    }
    group = GroupMemory(("unet.b",), {"d": 1e-6 / 3, "k": step, "sum": torch.tensor(0.1)})
    optimizer = OptimizerState("surefoot.Adafactor", 3, memory, (group,))
    averages = {"unet.a": torch.full((3, 2), 0.1)}
    return State(step, weights, optimizer, averages, {"optimizer": {"lr": 0.1}})


def assert_equal_states(found: State | None, expected: State) -> None:
    assert found is not None
    assert found.step == expected.step
    assert found.settings == expected.settings
    assert found.optimizer.kind == expected.optimizer.kind
    assert found.optimizer.version == expected.optimizer.version
    assert found.optimizer.tensors.keys() == expected.optimizer.tensors.keys()
    for ours, theirs in (
        (found.tensors, expected.tensors),
        (found.averages, expected.averages),
        *(
            (found.optimizer.tensors[name], memory)
            for name, memory in expected.optimizer.tensors.items()
        ),
        *(
            (ours.values, theirs.values)
            for ours, theirs in zip(found.optimizer.groups, expected.optimizer.groups, strict=True)
        ),
    ):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(ours[name], value, rtol=0, atol=0)
            else:
                assert ours[name] == value


def flip_a_byte(folder: Path) -> None:
    file = folder / "trained.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def flip_a_byte_of_the_averages(folder: Path) -> None:
    file = folder / "average.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 128
    file.write_bytes(content)


def cut_short(folder: Path) -> None:
    file = folder / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def lose_a_file(folder: Path) -> None:
    (folder / "average.safetensors").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_the_manifest_short(folder: Path) -> None:
    file = folder / "manifest.json"
    os.truncate(file, file.stat().st_size - 4)


def change_the_step(folder: Path) -> None:
    file = folder / "manifest.json"
    text = file.read_text(encoding="utf-8")
    assert text.count('"step": 3,') == 1
    file.write_text(text.replace('"step": 3,', '"step": 2,'), encoding="utf-8")


def change_a_number_of_the_optimizer(folder: Path) -> None:
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    manifest["optimizer"]["numbers"]["unet.a"]["step"] += 1
    file.write_text(json.dumps(manifest), encoding="utf-8")


def replace_the_manifest_by_another_document(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]", encoding="utf-8")


DAMAGES: list[Callable[[Path], None]] = [
    flip_a_byte,
    flip_a_byte_of_the_averages,
    cut_short,
    lose_a_file,
    lose_the_manifest,
    cut_the_manifest_short,
    change_the_step,
    change_a_number_of_the_optimizer,
    replace_the_manifest_by_another_document,
]


def test_what_is_read_is_what_was_written_to_the_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=2)
    checkpoints.write(state_at(7))
    assert_equal_states(checkpoints.read_last([]), state_at(7))


def test_nothing_is_read_where_nothing_was_written(tmp_path: Path) -> None:
    damaged: list[Finding] = []
    assert Checkpoints(tmp_path / "none", "print", keep=2).read_last(damaged) is None
    assert damaged == []


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_checkpoint_is_passed_over_and_told(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=3)
    for step in (1, 2, 3):
        checkpoints.write(state_at(step))
    damage(tmp_path / "step-000003")
    damaged: list[Finding] = []
    assert_equal_states(checkpoints.read_last(damaged), state_at(2))
    assert [(finding.code, finding.level) for finding in damaged] == [("SF044", "warning")]
    assert damaged[0].values["file"] == str(tmp_path / "step-000003")


def test_leftover_of_a_killed_write_does_not_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=2)
    checkpoints.write(state_at(1))
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000002.part")
    damaged: list[Finding] = []
    assert_equal_states(checkpoints.read_last(damaged), state_at(1))
    assert damaged == []
    checkpoints.write(state_at(2))
    assert_equal_states(checkpoints.read_last(damaged), state_at(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"]


def test_folder_that_a_user_put_there_is_let_be(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=1)
    checkpoints.write(state_at(1))
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000001 good one")
    checkpoints.write(state_at(2))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000001 good one", "step-000002"]
    assert_equal_states(checkpoints.read_last([]), state_at(2))


def test_two_are_kept_and_they_are_the_newest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=2)
    # The millionth step has one more digit, and sorts before the others as text.
    for step in (1, 999_998, 999_999, 1_000_000):
        checkpoints.write(state_at(step))
    assert [path.name for path in checkpoints.steps()] == ["step-999999", "step-1000000"]
    assert_equal_states(checkpoints.read_last([]), state_at(1_000_000))


def test_damaged_later_ones_do_not_displace_what_is_written_now(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=2)
    for step in (8, 9):
        checkpoints.write(state_at(step))
        flip_a_byte(tmp_path / f"step-{step:06d}")
    assert checkpoints.read_last([]) is None
    checkpoints.write(state_at(1))
    assert_equal_states(checkpoints.read_last([]), state_at(1))
    checkpoints.write(state_at(2))
    assert [path.name for path in checkpoints.steps()] == ["step-000001", "step-000002"]


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "print", keep=2).write(state_at(1))
    with pytest.raises(Refused) as refused:
        Checkpoints(tmp_path, "another", keep=2).read_last([])
    assert [finding.code for finding in refused.value.findings] == ["SF043"]


def test_write_that_fails_leaves_the_earlier_ones_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, "print", keep=1)
    checkpoints.write(state_at(1))
    fill_the_disk(monkeypatch, files_that_fit=1)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(state_at(2))
    monkeypatch.undo()
    assert_equal_states(checkpoints.read_last([]), state_at(1))
    checkpoints.write(state_at(2))
    assert_equal_states(checkpoints.read_last([]), state_at(2))


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, files_that_fit: int) -> None:
    original = checkpoint.write_safetensors
    written: list[Path] = []

    def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
        if len(written) >= files_that_fit:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        return original(path, tensors, metadata)

    monkeypatch.setattr(checkpoint, "write_safetensors", write)


def checkpoint_folder(small: SmallRun, step: int) -> Path:
    return small.folder / "checkpoints" / f"step-{step:06d}"


def test_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path / "run", values, save__keep=3)
    train(small)
    export = (small.folder / "small.safetensors").read_bytes()
    (small.folder / "small.safetensors").unlink()
    cut_short(checkpoint_folder(small, 6))
    reporter = quiet_reporter()
    assert train(small, reporter).resumed_from == 4
    assert "SF044" in said(reporter)
    assert str(checkpoint_folder(small, 6)) in said(reporter)
    assert (small.folder / "small.safetensors").read_bytes() == export


def test_run_without_a_whole_checkpoint_starts_anew_and_says_so(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path / "run", values)
    train(small)
    export = (small.folder / "small.safetensors").read_bytes()
    for step in (4, 6):
        lose_the_manifest(checkpoint_folder(small, step))
    reporter = quiet_reporter()
    summary = train(small, reporter)
    assert summary.resumed_from == 0
    assert said(reporter).count("SF044") == 2
    assert (small.folder / "small.safetensors").read_bytes() == export
    events = read_events(small.folder)
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    assert events[0]["event"] == "started"


def test_finished_run_is_left_as_it_is(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path / "run", values)
    first = train(small)
    export = first.export.read_bytes()
    again = train(small)
    assert again.resumed_from == again.steps == 6
    assert again.export.read_bytes() == export
    assert again.validation_after == first.validation_after


def test_changed_settings_are_refused_in_the_folder_of_a_run(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path / "run", values)
    train(small)
    before = {path: path.stat().st_mtime_ns for path in small.folder.rglob("*") if path.is_file()}
    with pytest.raises(Refused) as refused:
        train(prepare(tmp_path / "run", values, tuning__rank=3, preview__guidance=2.0))
    (finding,) = refused.value.findings
    assert finding.code == "SF043"
    # What trains the same is not among the differences.
    differences = str(finding.values["differences"]).split(", ")
    assert "tuning.rank" in differences
    assert not [key for key in differences if key.startswith("preview")]
    del before[small.folder / ".lock"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_full_disk_ends_in_one_sentence_and_the_same_command_goes_on(
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = prepare(tmp_path / "run", values, watch__keep_best=False)
    # A checkpoint has two files here, and the export is written through another name.
    fill_the_disk(monkeypatch, files_that_fit=3)
    code, _, errors = call_train(small, capsys)
    assert code == 1
    assert "Traceback" not in errors
    (sentence,) = [line for line in errors.splitlines() if "No space left on device" in line]
    assert "step-000004" in sentence
    assert [path.name for path in checkpoint_folder(small, 2).parent.glob("step-*[0-9]")] == [
        "step-000002"
    ]
    monkeypatch.undo()
    code, output, errors = call_train(small, capsys)
    assert code == 0, errors
    assert "went on from step 2" in output


def call_train(small: SmallRun, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The command in this process: exit code, what it printed, what it complained of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["surefoot", "--lang", "en", "train", str(small.loaded.path)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err
