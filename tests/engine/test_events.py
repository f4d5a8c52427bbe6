"""events.jsonl, TensorBoard, and the lock on a run folder."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from surefoot.engine.events import Events, read_events
from surefoot.finding import Refused
from tests.engine.small_runs import (
    prepare,
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


def refuse_constant(name: str) -> float:
    raise AssertionError(f"{name} is not JSON")


def scalars(run_folder: Path, name: str) -> dict[int, float]:
    accumulator = EventAccumulator(str(run_folder / "tensorboard"))
    accumulator.Reload()
    assert name in accumulator.Tags()["scalars"]
    return {event.step: event.value for event in accumulator.Scalars(name)}


def test_every_line_of_a_run_is_a_whole_json_object(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path / "run", values, preview__prompts=["a"], preview__steps=1)
    train(small)
    text = (small.folder / "events.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    events = [json.loads(line, parse_constant=refuse_constant) for line in text.splitlines()]
    assert events == read_events(small.folder)
    assert all({"event", "time"} <= event.keys() for event in events)
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names[-1] == "finished"
    once = {"started", "validation", "preview", "checkpoint", "finished"}
    watched = {"strides", "look", "verdict", "best"}
    assert set(names) == once | watched | {"step", "rate"}, events
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    times = [event["time"] for event in events]
    assert times == sorted(times)


def test_numbers_that_json_does_not_know_are_written_by_name(tmp_path: Path) -> None:
    with Events(tmp_path, 0) as events:
        events.scalars("step", 1, loss=math.nan, norm=-math.inf, lr=0.5)
    line = (tmp_path / "events.jsonl").read_text(encoding="utf-8")
    event = json.loads(line, parse_constant=refuse_constant)
    assert math.isnan(float(event["loss"]))
    assert float(event["norm"]) == -math.inf
    assert event["lr"] == 0.5


def test_line_that_a_kill_cut_short_is_left_out_and_the_next_begins_anew(tmp_path: Path) -> None:
    with Events(tmp_path, 0) as events:
        events.write("started")
        events.write("step", step=1)
    file = tmp_path / "events.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert [event["event"] for event in read_events(tmp_path)] == ["started"]
    with Events(tmp_path, 0) as events:
        events.write("started")
        events.write("step", step=1)
    found = [event["event"] for event in read_events(tmp_path)]
    assert found == ["started", "started", "step"]


def test_run_without_events_has_none(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []


def test_error_that_ends_a_run_is_in_its_events(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Events(tmp_path, 0):
        raise KeyboardInterrupt
    (event,) = read_events(tmp_path)
    assert (event["event"], event["reason"]) == ("ended", "KeyboardInterrupt")


def test_tensorboard_shows_the_losses_of_the_events(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path / "run", values)
    train(small)
    for event in ("step", "validation"):
        written = {
            line["step"]: line["loss"]
            for line in read_events(small.folder)
            if line["event"] == event
        }
        assert scalars(small.folder, f"{event}/loss") == pytest.approx(written)
    assert list(scalars(small.folder, "validation/loss")) == [0, 3, 6]
    assert list(scalars(small.folder, "rate/lora_up")) == [1, 2, 3, 4, 5, 6]


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    with Events(tmp_path, 0) as events:
        for step in (1, 2, 3, 4, 5):
            events.scalars("step", step, loss=float(step))
    with Events(tmp_path, 3) as events:
        for step in (4, 5, 6):
            events.scalars("step", step, loss=10.0 * step)
    expected = {1: 1.0, 2: 2.0, 3: 3.0, 4: 40.0, 5: 50.0, 6: 60.0}
    assert scalars(tmp_path, "step/loss") == expected


HOLD_THE_RUN = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_on_a_run_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path / "run", values)
    small.folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_RUN, str(small.folder / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Refused) as refused:
            train(small)
        assert [finding.code for finding in refused.value.findings] == ["SF046"]
        assert [path.name for path in small.folder.iterdir()] == [".lock"]
        other.communicate()
    assert train(small).steps == 6
