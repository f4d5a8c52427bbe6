"""The learning-rate range test: what it measures, what it says, and where it cannot."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from typer.testing import CliRunner

from surefoot.cli import command_line
from surefoot.engine.loop import loss_at
from surefoot.engine.rate_plot import rate_plot
from surefoot.engine.rate_test import Stage, find_rate, judged, rates_around
from surefoot.finding import Refused
from surefoot.language import choose
from tests.engine.small_runs import (
    prepare,
    session_of,
    settings,
    write_model,
    write_pictures,
    write_run,
)


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("rates")
    pictures = write_pictures(folder / "pictures", 4)
    return settings(write_model(folder / "model"), pictures, pictures)


def stages(*losses: float) -> list[Stage]:
    return [Stage(10.0 ** (number - 5), loss) for number, loss in enumerate(losses)]


def test_the_rate_with_the_steepest_fall_and_the_last_before_the_rise_are_told() -> None:
    found = judged(1.0, stages(0.99, 0.9, 0.6, 0.5, 0.8, 3.0), 2, 1e-4)
    assert (found.outcome, found.fastest, found.rises_above) == ("found", 1e-3, 1e-2)


def test_a_loss_that_only_falls_has_no_upper_end() -> None:
    found = judged(1.0, stages(0.99, 0.9, 0.6), 2, 1e-4)
    assert (found.outcome, found.fastest) == ("falls to the end", 1e-3)
    assert math.isnan(found.rises_above)


@pytest.mark.parametrize("losses", [(1.0, 1.0, 0.999), (1.1, 1.5, math.nan)])
def test_a_loss_that_does_not_fall_recommends_nothing(losses: tuple[float, ...]) -> None:
    found = judged(1.0, stages(*losses), 2, 1e-4)
    assert found.outcome == "learns nothing"
    assert math.isnan(found.fastest)
    assert ElementTree.fromstring(rate_plot("a <name>", found)).tag.endswith("svg")


def test_rates_are_a_geometric_row_around_the_planned_one() -> None:
    rates = rates_around(1e-2)
    ratios = {round(after / before, 9) for before, after in pairwise(rates)}
    assert len(ratios) == 1
    assert rates[0] == pytest.approx(1e-2 / 10**1.5)
    assert rates[-1] == pytest.approx(1.0)
    assert any(rate == pytest.approx(1e-2) for rate in rates)


def test_the_loss_is_of_the_same_draws_and_leaves_the_weights_alone(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    with session_of(prepare(tmp_path, values)) as session:
        before = [item.parameter.detach().clone() for item in session.tuned.trainables]
        first = loss_at(session, 5)
        assert loss_at(session, 5) == first
        assert loss_at(session, 6) != first
        after = [item.parameter for item in session.tuned.trainables]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert all(item.grad is None for item in after)


def test_a_run_is_tried_at_rising_rates_and_its_folder_is_not_made(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(tmp_path, values)
    found = find_rate(small.plan, small.found, 2)
    assert [stage.lr for stage in found.stages] == rates_around(0.01)[: len(found.stages)]
    assert abs(found.stages[0].loss - found.before) < 0.1 * found.before
    assert not small.folder.exists()


@pytest.mark.parametrize(
    ("optimizer", "word"),
    [
        ({"kind": "adafactor", "relative_step": True}, "relative_step"),
        ({"kind": "prodigy"}, "finds it itself"),
        ({"kind": "adamw", "part_lr": {"unet": 1e-4}}, "part_lr"),
    ],
)
def test_where_there_is_no_rate_to_look_for_one_sentence_says_why(
    optimizer: dict[str, Any], word: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    small = prepare(tmp_path, values, optimizer=optimizer)
    with pytest.raises(Refused) as refused:
        find_rate(small.plan, small.found, 2)
    assert [item.code for item in refused.value.findings] == ["SF534"]
    assert word in str(refused.value.findings[0].values["reason"])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_verb_recommends_in_words_in_json_and_in_a_picture(
    language: str, tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = write_run(tmp_path, values)
    monkeypatch.chdir(tmp_path)
    arguments = ["--lang", language, "probe", str(run_file), "--find-lr"]
    arguments += ["--json"] if language == "en" else ["--plot", "p.svg"]
    try:
        shown = CliRunner().invoke(command_line(), arguments)
    finally:
        choose("en")
    assert shown.exit_code == 0, shown.output
    if language == "en":
        told = json.loads(shown.stdout)["find_lr"]
        assert "the run has 1.0e-02" in told["recommendation"]
        assert (tmp_path / "small-lr.svg").is_file()
    else:
        assert "学习率" in shown.stdout
        assert ElementTree.fromstring((tmp_path / "p.svg").read_text(encoding="utf-8")) is not None
    assert not (tmp_path / "runs" / "small").exists()
