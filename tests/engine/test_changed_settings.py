"""A run that goes on with other settings: they are shown, and the new ones hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from surefoot.config.load import load
from surefoot.engine import assemble
from surefoot.engine.events import Events, read_events
from surefoot.engine.session import Session
from surefoot.finding import Refused
from surefoot.language import choose
from surefoot.plan import read_plan, resolve
from surefoot.survey import survey
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
    write_run,
)

# A DoRA whose own scale leaves it unable to learn, and its remedy.
STUCK: dict[str, object] = {"kind": "adafactor", "lr": 0.01, "scale_parameter": True}
MENDED = STUCK | {"scale_parameter": "weight"}
ADAMW: dict[str, object] = {"kind": "adamw", "lr": 0.001}


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    model = write_model(tmp_path / "model")
    pictures = write_pictures(tmp_path / "pictures", 5)
    held_out = write_pictures(tmp_path / "held out", 2, first=20)
    made = settings(model, pictures, held_out)
    return made | {"tuning": {"kind": "dora", "rank": 2, "targets": "attention"}}


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Ctrl-C after the third step; the checkpoint is of the second."""
    original = Events.scalars

    def scalars(self: Events, event: str, step: int, **numbers: float) -> None:
        original(self, event, step, **numbers)
        if event == "step" and step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Events, "scalars", scalars)
    return monkeypatch


def begin(
    folder: Path, values: dict[str, Any], interrupt: pytest.MonkeyPatch, **changes: object
) -> None:
    """Trains the first steps, up to the interruption."""
    with pytest.raises(KeyboardInterrupt):
        train(prepare(folder, values, **changes))
    interrupt.undo()


def weights(small: SmallRun) -> bytes:
    """Without the header, which tells the settings."""
    content = (small.folder / "small.safetensors").read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def changes_told(small: SmallRun) -> list[dict[str, Any]]:
    return [event for event in read_events(small.folder) if event["event"] == "settings_changed"]


def watch_groups(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """Gets the parameter groups of each session as they are when its checkpoint is in it."""
    seen: list[list[dict[str, Any]]] = []
    original = assemble.check_wiring

    def look(tuned: Any, optimizer: torch.optim.Optimizer) -> None:
        seen.append([dict(group) for group in optimizer.param_groups])
        original(tuned, optimizer)

    monkeypatch.setattr(assemble, "check_wiring", look)
    return seen


def test_mended_run_goes_on_with_the_remedy(
    values: dict[str, Any], tmp_path: Path, interrupt: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", values, interrupt, optimizer=STUCK)
    stuck_toml = (tmp_path / "run/runs/small/run.toml").read_text(encoding="utf-8")
    reporter = quiet_reporter()
    small = prepare(tmp_path / "run", values, optimizer=MENDED)
    with pytest.MonkeyPatch.context() as patch:
        groups = watch_groups(patch)
        assert train(small, reporter).resumed_from == 2
    assert {group["scale_parameter"] for group in groups[0]} == {"weight"}
    assert '  optimizer.scale_parameter: true -> "weight"\n' in said(reporter)
    (event,) = changes_told(small)
    assert event["step"] == 2
    assert event["changes"] == {
        "optimizer.scale_parameter": {"before": "true", "after": '"weight"'}
    }
    # What the first start was asked and told is still there.
    earlier = small.folder / "earlier" / "step-000002"
    assert (earlier / "run.toml").read_text(encoding="utf-8") == stuck_toml
    assert json.loads((earlier / "plan.json").read_text())["config"]["optimizer"]["scale_parameter"]
    assert (small.folder / "run.toml").read_text(encoding="utf-8") == small.loaded.text

    stuck = prepare(tmp_path / "stuck", values, optimizer=STUCK)
    train(stuck)
    assert weights(small) != weights(stuck)
    whole = prepare(tmp_path / "whole", values, optimizer=MENDED)
    train(whole)
    assert weights(small) != weights(whole)


def test_diff_is_told_in_chinese_too(
    values: dict[str, Any], tmp_path: Path, interrupt: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", values, interrupt, optimizer=STUCK)
    reporter = quiet_reporter()
    choose("zh")
    try:
        train(prepare(tmp_path / "run", values, optimizer=STUCK | {"lr": 0.02}), reporter)
    finally:
        choose("en")
    assert "设置有改动" in said(reporter)
    assert "  optimizer.lr: 0.01 -> 0.02\n" in said(reporter)


def test_nothing_is_told_or_kept_where_nothing_is_changed(
    values: dict[str, Any], tmp_path: Path, interrupt: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", values, interrupt)
    reporter = quiet_reporter()
    small = prepare(tmp_path / "run", values)
    train(small, reporter)
    assert "->" not in said(reporter)
    assert changes_told(small) == []
    assert not (small.folder / "earlier").exists()
    whole = prepare(tmp_path / "whole", values)
    train(whole)
    assert weights(small) == weights(whole)


def test_checkpoint_says_what_was_changed_even_if_a_start_between_saved_nothing(
    values: dict[str, Any], tmp_path: Path, interrupt: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", values, interrupt, optimizer=STUCK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("surefoot.engine.run.train", lambda *_: (_ for _ in ()).throw(OSError("?")))
        with pytest.raises(OSError, match=r"\?"):
            train(prepare(tmp_path / "run", values, optimizer=MENDED))
    small = prepare(tmp_path / "run", values, optimizer=MENDED)
    train(small)
    first, second = changes_told(small)
    assert first["changes"] == second["changes"]
    kept = json.loads((small.folder / "earlier/step-000002/plan.json").read_text())
    assert kept["config"]["optimizer"]["scale_parameter"] is True


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        (
            ADAMW,
            ADAMW | {"lr": 0.002, "beta1": 0.5, "beta2": 0.9, "eps": 1e-6, "weight_decay": 0.1},
            {"betas": (0.5, 0.9), "eps": 1e-6, "weight_decay": 0.1},
        ),
        (STUCK, STUCK | {"relative_step": True}, {"relative_step": True}),
        (MENDED, MENDED | {"beta1": 0.9, "clip_threshold": 2.0}, {"beta1": 0.9}),
        (MENDED | {"beta1": 0.9}, MENDED, {"beta1": 0.0}),
    ],
    ids=["adamw", "relative step", "momentum begins", "momentum ends"],
)
def test_new_hyper_parameters_are_in_the_groups_and_the_memory_is_kept(
    before: dict[str, object],
    after: dict[str, object],
    groups: dict[str, object],
    values: dict[str, Any],
    tmp_path: Path,
    interrupt: pytest.MonkeyPatch,
) -> None:
    begin(tmp_path / "run", values, interrupt, optimizer=before)
    small = prepare(tmp_path / "run", values, optimizer=after)
    reporter = quiet_reporter()
    with pytest.MonkeyPatch.context() as patch:
        seen = watch_groups(patch)
        train(small, reporter)
    for group in seen[0]:
        assert {key: group[key] for key in groups} == groups
    assert "SF511" not in said(reporter)
    changed = changes_told(small)[0]["changes"]
    expected = {f"optimizer.{key}" for key in before | after if before.get(key) != after.get(key)}
    assert set(changed) == expected
    with session_of(small, checkpoint_of(small)) as session:
        item = session.tuned.trainables[0]
        assert float(session.optimizer.state[item.parameter]["step"]) == 6


def checkpoint_of(small: SmallRun) -> Any:
    return assemble.open_checkpoints(small.plan).read_last([])


def test_another_optimizer_begins_with_an_empty_memory_and_says_so(
    values: dict[str, Any], tmp_path: Path, interrupt: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", values, interrupt, optimizer=ADAMW)
    small = prepare(tmp_path / "run", values, optimizer=MENDED)
    reporter = quiet_reporter()
    assert train(small, reporter).resumed_from == 2
    assert '  optimizer.kind: "adamw" -> "adafactor"\n' in said(reporter)
    assert "SF511" in said(reporter)
    manifest = json.loads((small.folder / "checkpoints/step-000006/manifest.json").read_text())
    assert manifest["optimizer"]["class"] == "surefoot.Adafactor"
    assert {numbers["step"] for numbers in manifest["optimizer"]["numbers"].values()} == {4}


def test_memory_of_another_state_version_is_not_taken(
    values: dict[str, Any], tmp_path: Path, interrupt: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "run", values, interrupt)
    small = prepare(tmp_path / "run", values)
    state = checkpoint_of(small)
    with session_of(small, state) as session:
        assert session.findings == ()
        assert len(session.optimizer.state) == len(session.tuned.trainables)
        found = type(session.optimizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "STATE_VERSION", 99, raising=False)
        with session_of(small, state) as session:
            (finding,) = session.findings
            assert finding.values["present"] == "surefoot.Adafactor 99"
            assert len(session.optimizer.state) == 0


def test_finished_run_is_prolonged_and_the_schedule_is_told(
    values: dict[str, Any], tmp_path: Path
) -> None:
    train(prepare(tmp_path / "run", values, schedule={"kind": "linear"}))
    longer = prepare(tmp_path / "run", values, schedule={"kind": "linear"}, train__steps=12)
    reporter = quiet_reporter()
    assert train(longer, reporter).resumed_from == 6
    assert "  train.steps: 6 -> 12\n" in said(reporter)
    # Six of twelve steps are done, and before all of six.
    assert "the next step 0.005; it would have been 0" in said(reporter)
    # That of lora_up is the scheduled one times a constant.
    rates = [event["lora_up"] for event in read_events(longer.folder) if event["event"] == "rate"]
    assert rates[6:] == pytest.approx(
        [float(str(rates[0])) * left / 12 for left in range(6, 0, -1)]
    )


def test_shorter_run_than_its_checkpoint_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    small = prepare(tmp_path / "run", values)
    train(small)
    export = weights(small)
    with pytest.raises(Refused) as refused:
        train(prepare(tmp_path / "run", values, train__steps=5))
    assert [finding.code for finding in refused.value.findings] == ["SF053"]
    assert weights(small) == export
    assert (small.folder / "run.toml").read_text(encoding="utf-8") == small.loaded.text


def test_finished_run_with_changed_settings_says_that_nothing_is_left_to_do(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path / "run", values)
    train(small)
    export = weights(small)
    reporter = quiet_reporter()
    train(prepare(tmp_path / "run", values, optimizer=STUCK), reporter)
    assert "all 6 steps are done" in said(reporter)
    assert weights(small) == export


@pytest.mark.parametrize(("before", "after"), [("off", 0.9), (0.9, "off"), (0.9, 0.5)])
def test_moving_average_may_begin_end_or_change(
    before: object,
    after: object,
    values: dict[str, Any],
    tmp_path: Path,
    interrupt: pytest.MonkeyPatch,
) -> None:
    begin(tmp_path / "run", values, interrupt, train__ema=before)
    small = prepare(tmp_path / "run", values, train__ema=after)
    state = checkpoint_of(small)
    with session_of(small, state) as session:
        averages = session.average.averages if session.average else []
        expected = state.averages or state.tensors
        for item, mean in zip(session.tuned.trainables, averages, strict=False):
            assert torch.equal(mean, expected[item.name])
    assert train(small).resumed_from == 2


def test_run_folder_says_what_was_asked_with_the_overrides_and_by_whole_files(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_run(tmp_path / "run", values)
    file.write_text("# mine\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    loaded = load(file, ("train.steps=2", "optimizer.lr=0.02"))
    found = survey(loaded)
    small = SmallRun(loaded, resolve(loaded, found), found)
    in_place: list[str] = []
    monkeypatch.setattr(Path, "write_text", lambda self, *_, **__: in_place.append(self.name))
    train(small)
    assert in_place == []
    assert (small.folder / "run.toml").read_text(encoding="utf-8").startswith("# mine\n")
    assert load(small.folder / "run.toml").config == loaded.config
    assert read_plan(small.folder) == small.plan


class Counting(torch.optim.SGD):
    """Keeps numbers of its own in its groups, as Prodigy and the schedule-free optimizers do."""

    def __init__(self, params: Any, lr: float, d0: float) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            group |= {"d0": d0, "d": d0, "k": 0, "sum": torch.zeros(()), "best": None}

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            group["k"] += 1
            group["d"] *= 1.1 + len(group["params"])
            group["sum"] += 0.5
            group["best"] = 7.0
        return super().step(closure)


def test_numbers_that_an_optimizer_changes_in_its_groups_are_kept_and_its_options_are_not(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    d0 = 1e-6

    def build(_config: Any, lr: float, trainables: Any, seed: int) -> Counting:
        parameters: list[nn.Parameter] = [item.parameter for item in trainables]
        groups = [
            {"params": some, "kind": "weight", "initial_lr": lr}
            for some in (parameters[:2], parameters[2:])
        ]
        return Counting(groups, lr, d0)

    monkeypatch.setattr(assemble, "build_optimizer", build)
    small = prepare(tmp_path / "run", values)
    expected = trained_groups(small)
    d0 = 1e-3
    with session_of(small, checkpoint_of(small)) as session:
        for group, before in zip(session.optimizer.param_groups, expected, strict=True):
            assert group["k"] == 6
            assert group["d"] == before["d"] != d0
            assert torch.equal(group["sum"], torch.tensor(3.0))
            assert group["best"] == 7.0
            # The new option, not the one that the checkpoint was trained with.
            assert group["d0"] == 1e-3
            assert group["lr"] == small.plan.lr


def trained_groups(small: SmallRun) -> list[dict[str, Any]]:
    sessions: list[Session] = []
    with pytest.MonkeyPatch.context() as patch:
        original = assemble.assemble

        def keep(*arguments: Any) -> Session:
            sessions.append(original(*arguments))
            return sessions[-1]

        patch.setattr("surefoot.engine.run.assemble", keep)
        train(small)
    return [dict(group) for group in sessions[0].optimizer.param_groups]
