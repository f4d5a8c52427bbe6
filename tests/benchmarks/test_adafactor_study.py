"""The study's list of cases, its results file and its report; nothing is trained here."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.adafactor_study import pending
from benchmarks.study.cases import (
    FULL,
    LORA_16,
    METHODS,
    SEEDS,
    Case,
    planned_cases,
    rates,
    repeated_cases,
)
from benchmarks.study.curves import cliff, optima, optimum, study_of, verdict
from benchmarks.study.plots import write_plot
from benchmarks.study.report import default_rate
from benchmarks.study.results import Outcome, Protocol, Result, ResultsFile, result_of
from benchmarks.study.tables import tables
from benchmarks.study.words import WORDS

PROTOCOL = Protocol(series="", steps=80, batch=16, up_factor=400.0, down_factor=5.0)


def outcome(loss: float, diverged: bool = False) -> Outcome:
    return Outcome(
        untrained=0.3,
        loss=loss,
        train_loss=loss,
        up_rms=0.1,
        down_rms=0.1,
        diverged=diverged,
        seconds=20.0,
        images_per_second=60.0,
    )


def bowl(case: Case, centre: float, lowest: float = 0.1) -> Result:
    """A parabola in the logarithm of the rate."""
    loss = lowest + 0.01 * math.log(case.lr / centre) ** 2
    return result_of(case, PROTOCOL, outcome(loss))


def test_the_cases_are_those_of_the_study_and_each_is_there_once() -> None:
    cases = planned_cases()
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    kinds = {(case.method.tuning["kind"], case.method.tuning.get("rank")) for case in cases}
    assert kinds == {("full", None), ("lora", 4), ("lora", 16), ("lora", 64), ("dora", 16)}
    alphas = {method.tuning["alpha"] for method in METHODS if method.tuning.get("rank") == 16}
    assert alphas == {1.0, 16.0, 32.0}
    sections = [case.optimizer() for case in cases]
    adafactor = [section for section in sections if section["kind"] == "adafactor"]
    for scale in (True, False, "weight"):
        for relative in (True, False):
            assert any(
                section["scale_parameter"] == scale
                and section.get("relative_step", False) == relative
                for section in adafactor
            ), (scale, relative)
    assert {section["kind"] for section in sections} == {"adafactor", "adamw", "prodigy"}
    assert {case.seed for case in cases if case.setting == "weight"} == set(SEEDS)
    assert {case.setting for case in cases[: 5 * len(METHODS)]} == {"weight"}


@pytest.mark.parametrize("setting", ["weight", "false", "adamw", "true"])
def test_five_rates_are_tried_and_what_auto_gives_is_among_them(setting: str) -> None:
    cases = [case for case in planned_cases() if case.setting == setting]
    for method in METHODS:
        tried = sorted({case.lr for case in cases if case.method == method})
        assert not tried or (len(tried) == 5 and default_rate(setting, method.name) in tried)


def test_the_other_seeds_repeat_the_best_rate_and_its_neighbours() -> None:
    grid = [Case(LORA_16, "false", lr, 0) for lr in rates("false", LORA_16)]
    losses = {case.name: abs(math.log(case.lr / 3e-3)) for case in grid}
    repeated = repeated_cases(losses)
    assert {(case.lr, case.seed) for case in repeated} == {
        (lr, seed) for lr in (1e-3, 3e-3, 1e-2) for seed in SEEDS[1:]
    }
    del losses[grid[-1].name]
    assert repeated_cases(losses) == []


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "new" / "results.jsonl")
    assert file.read() == []
    good = result_of(Case(FULL, "weight", 1e-2, 0), PROTOCOL, outcome(0.12))
    bad = result_of(Case(FULL, "weight", 1e-1, 0), PROTOCOL, outcome(math.nan, diverged=True))
    file.append(good)
    file.append(bad)
    first, second = file.read()
    assert first == good
    assert second.name == bad.name
    assert math.isnan(second.outcome.loss)
    assert second.judged_loss == math.inf


def test_a_line_cut_short_is_left_out_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    file = ResultsFile(path)
    result = result_of(Case(FULL, "weight", 1e-2, 0), PROTOCOL, outcome(0.12))
    file.append(result)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    file.append(result)
    assert file.read() == [result, result]


def test_finished_cases_of_the_same_protocol_are_skipped(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "results.jsonl")
    first, second, *_ = planned_cases()
    file.append(result_of(first, PROTOCOL, outcome(0.12)))
    file.append(result_of(second, replace(PROTOCOL, steps=40), outcome(0.12)))
    todo = [case.name for case in pending(file, PROTOCOL)]
    assert first.name not in todo
    assert second.name in todo
    assert len(todo) == len(planned_cases()) - 1


def test_a_variant_of_the_weight_rule_trains_only_what_it_changes(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "results.jsonl")
    lora = Case(LORA_16, "weight", 1e-2, 0)
    same = [Case(LORA_16, "false", 1e-2, 0), Case(FULL, "weight", 1e-2, 0)]
    for case in (lora, *same):
        file.append(result_of(case, PROTOCOL, outcome(0.12)))
    todo = {case.name for case in pending(file, replace(PROTOCOL, series="x", up_factor=200.0))}
    assert lora.name in todo
    assert not todo & {case.name for case in same}


def test_what_another_process_finishes_meanwhile_is_skipped(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "results.jsonl")
    cases = pending(file, PROTOCOL)
    next(cases)
    second, third = planned_cases()[1:3]
    file.append(result_of(second, PROTOCOL, outcome(0.12)))
    assert next(cases).name == third.name


def test_the_optimum_lies_between_the_rates_that_were_tried() -> None:
    curve = [(lr, math.log(lr / 5e-3) ** 2) for lr in (1e-3, 3e-3, 1e-2, 3e-2)]
    assert optimum(curve) == pytest.approx(5e-3)
    assert optimum(curve[2:]) == 1e-2
    assert optimum([*curve[:2], (1e-2, math.inf)]) == 3e-3


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "learns"), (0.5, "learns"), (0.3, "little"), (0.05, "nothing"), (-math.inf, "noise")],
)
def test_a_verdict_follows_the_share_of_the_fall(share: float, said: str) -> None:
    assert verdict(share) == said


def made_up_results() -> list[Result]:
    """Full has its optimum at 1e-2, the LoRA a tenth of it and a cliff above."""
    found = [
        bowl(Case(FULL, "weight", lr, seed), 1e-2) for seed in SEEDS for lr in rates("weight", FULL)
    ]
    for lr in rates("weight", LORA_16):
        case = Case(LORA_16, "weight", lr, 0)
        noise = result_of(case, PROTOCOL, outcome(math.nan, diverged=True))
        found.append(bowl(case, 3e-3) if lr < 3e-2 else noise)
    return found


def test_optima_and_cliffs_are_found_in_made_up_results() -> None:
    study = study_of(made_up_results())
    full, lora = study.of_setting("weight")
    assert optima(study, full) == pytest.approx([1e-2] * 3)
    assert optima(study, lora) == pytest.approx([3e-3])
    assert cliff(study, lora) == 3e-2


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_the_tables_say_shares_and_verdicts(language: str) -> None:
    words = WORDS[language]  # pyright: ignore[reportArgumentType]
    study = study_of(made_up_results())
    text = tables(study, PROTOCOL, lambda _setting, _method: 3e-2, language)  # pyright: ignore[reportArgumentType]
    assert f"| {LORA_16.name} | **{words['noise']}** (0.03) |" in text
    assert f"| {FULL.name} | {words['learns']} 100 % (0.01) |" in text
    # 0.003 and 0.01: the optima are a factor of 3.3 apart.
    assert re.search(r'\| Adafactor "weight" \| \S+ \| 0\.003 \| 0\.01 \| 3\.3 \|', text)
    for line in text.splitlines():
        assert "{" not in line


def test_both_languages_have_the_same_words() -> None:
    assert WORDS["en"].keys() == WORDS["zh_CN"].keys()


def test_the_plot_is_drawn_with_divergences_and_missing_settings(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    write_plot(study_of(made_up_results()), path)
    assert path.read_bytes().startswith(b"\x89PNG")
