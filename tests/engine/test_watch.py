"""The watch in whole runs: what it writes, when it ends a run, and what is left then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from surefoot.engine import loop, watch
from surefoot.engine.assemble import open_best, open_checkpoints
from surefoot.engine.events import read_events
from surefoot.engine.preview_look import look_at
from surefoot.engine.session import Session
from surefoot.engine.stride import Strides
from surefoot.engine.watch import history_of
from surefoot.engine.watch_verdict import History, Judged, Outlook
from surefoot.finding import Finding, Value
from tests.engine.small_runs import (
    SmallRun,
    prepare,
    quiet_reporter,
    said,
    session_of,
    settings,
    train,
    write_model,
    write_pictures,
)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("watch")
    pictures = write_pictures(folder / "pictures", 4)
    made = settings(write_model(folder / "model"), pictures, pictures)
    made["train"]["steps"] = 12
    made["watch"] = {"every": 3}
    return made


def events_of(small: SmallRun, name: str) -> list[dict[str, Any]]:
    return [event for event in read_events(small.folder) if event["event"] == name]


def test_a_run_is_judged_at_each_interval_and_its_best_checkpoint_is_kept(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(tmp_path, values)
    train(small)
    assert [event["step"] for event in events_of(small, "verdict")] == [3, 6, 9, 12]
    assert set(events_of(small, "strides")[0]["kinds"]) == {"lora_up", "lora_down"}
    losses = {event["step"]: event["loss"] for event in events_of(small, "validation")}
    best = open_best(small.plan).read_last([])
    assert best is not None
    assert losses[best.step] == min(losses.values())


def test_a_run_in_trouble_ends_where_that_is_asked_with_the_best_as_its_result(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(
        tmp_path,
        values,
        optimizer={"kind": "adafactor", "scale_parameter": False, "lr": 1e-6},
        watch={"every": 3, "on_trouble": "stop"},
    )
    reporter = quiet_reporter()
    summary = train(small, reporter)
    assert summary.stopped_at == 6
    assert "error[SF519]" in said(reporter)
    assert events_of(small, "stopped")[0]["code"] == "SF519"
    assert not events_of(small, "finished")
    best = open_best(small.plan).read_last([])
    assert best is not None
    assert summary.steps == best.step
    assert summary.export.is_file()
    # Nothing is lost: the checkpoints of the run stay, to go on from.
    assert open_checkpoints(small.plan).steps()


def test_without_validation_nothing_is_exported_after_a_stop(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(
        tmp_path,
        values,
        validation={"folder": "off"},
        optimizer={"kind": "adafactor", "scale_parameter": False, "lr": 1e-6},
        watch={"every": 3, "on_trouble": "stop"},
    )
    assert train(small).steps == 0
    assert not small.folder.joinpath("best").exists()
    assert not list(small.folder.glob("*.safetensors"))


def harm_from(step: int) -> Callable[[History, Outlook], Judged]:
    """In place of the real rules: the weights come to harm at a step."""

    def judge(history: History, _outlook: Outlook) -> Judged:
        if len(history.losses) < step:
            return Judged("learning")
        values: dict[str, Value] = {"now": 9.0, "level": 0.1, "cause": ""}
        return Judged("diverging", Finding("SF525", "error", "optimizer.lr", values))

    return judge


def test_the_last_good_checkpoint_outlives_the_harm_where_there_is_no_validation(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values, validation={"folder": "off"}, save={"every": 2, "keep": 3})
    monkeypatch.setattr(watch, "judge", harm_from(6))
    summary = train(small)
    # Verdicts were good at 3, bad from 6 on; in the end checkpoints are of 8, 10, 12.
    assert summary.steps == 12
    best = open_best(small.plan).read_last([])
    assert best is not None
    assert best.step == 2
    assert [event["folder"] for event in events_of(small, "last_good")] == ["step-000002"]


def test_a_run_that_is_stopped_in_harm_ends_with_its_last_good_checkpoint(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(
        tmp_path,
        values,
        validation={"folder": "off"},
        save={"every": 2, "keep": 3},
        watch={"every": 3, "on_trouble": "stop"},
    )
    monkeypatch.setattr(watch, "judge", harm_from(6))
    summary = train(small)
    assert (summary.stopped_at, summary.steps) == (6, 2)
    assert summary.export.is_file()
    assert events_of(small, "stopped")[0]["best"] == 2


def test_the_best_checkpoint_by_validation_stays_through_harm(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values)
    monkeypatch.setattr(watch, "judge", harm_from(6))
    train(small)
    losses = {event["step"]: event["loss"] for event in events_of(small, "validation")}
    best = open_best(small.plan).read_last([])
    assert best is not None
    assert losses[best.step] == min(losses.values())
    assert not events_of(small, "last_good")


JUDGED = ("verdict", "strides", "validation", "look")


def judged_in(small: SmallRun, after: int) -> list[dict[str, Any]]:
    """What the watch wrote of the steps after one, without the time of day."""
    events = [event for event in read_events(small.folder) if event["event"] in JUDGED]
    return [
        {key: value for key, value in event.items() if key != "time"}
        for event in cast(list[dict[str, Any]], events)
        if event["step"] > after
    ]


def test_a_resumed_run_is_judged_as_the_whole_one(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(tmp_path / "whole", values)
    train(whole)
    halves = prepare(tmp_path / "halves", values)
    real = loop.step_optimizer

    def killed(session: Session) -> None:
        if len(session.watch._history.losses) == 7:
            raise KeyboardInterrupt
        real(session)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step_optimizer", killed)
        with pytest.raises(KeyboardInterrupt):
            train(halves)
    reporter = quiet_reporter()
    assert train(halves, reporter).resumed_from == 6
    assert judged_in(halves, 6) == judged_in(whole, 6) != []
    assert judged_in(halves, 0) == judged_in(whole, 0)


def test_a_trouble_that_was_told_is_not_told_anew_but_ends_the_run_where_that_is_asked_later(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values, train__steps=6)
    monkeypatch.setattr(watch, "judge", harm_from(3))
    train(small)
    reporter = quiet_reporter()
    train(prepare(tmp_path, values, train__steps=9), reporter)
    assert "SF525" not in said(reporter)
    stops = prepare(tmp_path, values, watch={"every": 3, "on_trouble": "stop"})
    assert train(stops, reporter).stopped_at == 12
    assert "SF525" in said(reporter)


def test_a_resumed_run_knows_the_figures_of_before(tmp_path: Path, values: dict[str, Any]) -> None:
    small = prepare(tmp_path, values)
    train(small)
    whole = history_of(read_events(small.folder), 12)
    assert list(whole.losses) == list(range(1, 13))
    before = events_of(small, "strides")
    for step in (10, 12):
        shutil.rmtree(small.folder / "checkpoints" / f"step-{step:06d}")
    shutil.copytree(small.folder / "best", tmp_path / "spare", dirs_exist_ok=True)
    half = history_of(read_events(small.folder), 6)
    assert list(half.losses) == list(range(1, 7))
    assert list(half.strides) == [3, 6]
    assert 0 in half.validations
    # How far tensors are from the start does not depend on where the run was resumed.
    assert before[-1]["kinds"]["lora_up"]["since_start"] > 0


def test_the_start_is_that_of_the_run_whatever_checkpoint_is_loaded(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(tmp_path, values)
    train(small)
    state = open_checkpoints(small.plan).read_last([])
    assert state is not None
    with session_of(small, state) as session:
        strides: Strides = session.watch._strides
        strides.before_step()
        found = strides.read()
    told = events_of(small, "strides")[-1]["kinds"]
    for kind, stride in found.items():
        assert stride.per_step == 0
        assert stride.since_start == pytest.approx(told[kind]["since_start"])


def test_strides_are_what_was_done_to_the_tensors(tmp_path: Path, values: dict[str, Any]) -> None:
    small = prepare(tmp_path, values)
    with session_of(small) as session:
        items = session.tuned.trainables
        strides = Strides(items)
        strides.before_step()
        with torch.no_grad():
            for item in items:
                item.parameter.add_(0.001 if item.kind == "lora_up" else 0.02 * item.parameter)
        found = strides.read()
        up = next(item for item in items if item.kind == "lora_up")
        # The update alpha / rank * B A of B = 0.001 with a fresh A, over the weight.
        expected = sorted(
            0.001 * (item.alpha / item.rank) * (item.rank / (3 * item.fan_in)) ** 0.5
            / item.weight_rms
            for item in items
            if item.kind == "lora_up"
        )  # fmt: skip
    assert up.weight_rms > 0
    assert found["lora_down"].per_step == pytest.approx(0.02, rel=1e-4)
    assert expected[0] <= found["lora_up"].per_step <= expected[-1]


def test_noise_is_rough_and_a_drawing_is_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[:, None, None], (64, 64, 3)).copy()).save(
        tmp_path / "ramp.png"
    )
    Image.new("RGB", (64, 64), "red").save(tmp_path / "flat.png")
    blobs = Image.fromarray(noise[::8, ::8]).resize((64, 64), Image.Resampling.BICUBIC)
    blobs.save(tmp_path / "blobs.png")
    assert look_at([tmp_path / "noise.png"], 2).roughness == pytest.approx(1.0, abs=0.05)
    fine, coarse = (look_at([tmp_path / "blobs.png"], size).roughness for size in (2, 16))
    assert coarse > 0.5 > 0.1 > fine
    assert look_at([tmp_path / "ramp.png"], 4).roughness < 0.02
    assert look_at([tmp_path / "flat.png"], 8).contrast == 0
