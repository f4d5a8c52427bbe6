"""How findings and the effective-step sheet look on a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from surefoot.check.render import render_count, render_finding
from surefoot.check.step_table import finding_lines, sheet_lines
from surefoot.finding import Change, Finding, StepRow
from surefoot.language import Language, choose

TEXT = 'name = "cat"\n\n[train]\nclip_grad_norm = 1.0   # why not\n'
CLIPPED = Finding(
    "SF105",
    "warning",
    "train.clip_grad_norm",
    {"clip": 1.0},
    changes=(Change("train.clip_grad_norm", '"off"', "1"),),
)
ROWS = (
    StepRow("lora_up", 70, 278_528, 0.0, 0.05, 768, 1e-5, 1.2e-3, 0.0049),
    StepRow("magnitude", 70, 17_408, 0.58, 0.05, 768, 5.8e-3, 0.87, 15.0),
)


def test_finding_is_shown_with_its_line_its_reason_and_its_repair() -> None:
    lines = render_finding(CLIPPED, "run.toml", TEXT).plain.splitlines()
    assert lines[0].startswith("warning[SF105] gradients are clipped twice: by clip_grad_norm = 1 ")
    assert lines[1] == "  --> run.toml:4:1  train.clip_grad_norm"
    assert lines[2] == "4 | clip_grad_norm = 1.0   # why not"
    assert lines[3] == "  | ^^^^^^^^^^^^^^^^^^^^"
    assert lines[4].startswith("note: Adafactor divides ")
    assert lines[5].startswith("help: ")
    assert lines[6:] == ["  - clip_grad_norm = 1", '  + clip_grad_norm = "off"']


def test_finding_about_a_default_shows_its_section() -> None:
    lines = render_finding(CLIPPED, "run.toml", "[train]\nsteps = 1\n").plain.splitlines()
    assert lines[1:4] == [
        "  --> run.toml:1:1  train.clip_grad_norm",
        "1 | [train]",
        "  | ^^^^^^^",
    ]


def test_marks_are_as_wide_as_what_they_stand_below() -> None:
    text = "\n" * 9 + '[train]\n\tclip_grad_norm = "猫 # 1"  # a\n'
    lines = render_finding(CLIPPED, "run.toml", text).plain.splitlines()
    assert lines[1:4] == [
        "  --> run.toml:11:2  train.clip_grad_norm",
        '11 |         clip_grad_norm = "猫 # 1"  # a',
        "   |         " + "^" * 25,
    ]


@pytest.mark.parametrize("text", ["", "[model]\n"])
def test_finding_about_what_is_not_in_the_file_shows_no_line(text: str) -> None:
    lines = render_finding(CLIPPED, "run.toml", text).plain.splitlines()
    assert lines[1] == "  --> run.toml  train.clip_grad_norm"
    assert lines[2].startswith("note: ")


def test_finding_without_a_key_shows_no_place() -> None:
    shown = render_finding(Finding("SF048", "error", ""), "run.toml", TEXT).plain
    assert "-->" not in shown


def test_sheet_names_each_kind_of_tensor_with_its_steps() -> None:
    rows = tuple(
        replace(row, later=(1e-5, 5e-6, 0.0), full_lr=full_lr)
        for row, full_lr in zip(ROWS, (3e-7, 0.0), strict=True)
    )
    what, up, magnitude, gap, when, up_steps, magnitude_steps = sheet_lines(rows)
    assert what.split("  ")[0] == "tensor"
    assert up.split() == [
        "lora_up", "70", "278,528", "fp32", "0", "the", "layer", "by", "0.49", "%", "yes",
    ]  # fmt: skip
    assert magnitude.split()[:5] == ["magnitude", "70", "17,408", "fp32", "0.58"]
    assert "itself by > 1000 %" in magnitude
    assert gap == ""
    assert when.split("  ")[0] == "step per element"
    assert up_steps.split() == [
        "lora_up", "1.0e-05", "1.0e-05", "5.0e-06", "0.0e+00", "-", "lr", "3.0e-07",
    ]  # fmt: skip
    assert magnitude_steps.split()[-3:] == ["1", "%", "-"]
    # Columns begin at the same place in every line.
    assert cell_len(up[: up.index("70")]) == cell_len(magnitude[: magnitude.index("70")])
    assert sheet_lines(()) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_sheet_of_a_large_model_fits_into_a_hundred_columns(language: Language) -> None:
    row = replace(ROWS[0], numbers=12_345_678_901, dtype="bf16", lost=0.987, full_lr=1e-7)
    rows = (row, replace(row, known=False), replace(row, kind="embedding"))
    choose(language)
    try:
        assert max(map(cell_len, sheet_lines(rows))) <= 100
    finally:
        choose("en")


def test_rows_of_a_finding_are_shown_with_it() -> None:
    finding = Finding("SF103", "error", "optimizer.warmup_init", rows=ROWS)
    shown = render_finding(finding, "run.toml", "").plain
    for line in finding_lines(ROWS):
        assert f"   {line}\n" in shown
    _head, up, magnitude = finding_lines(ROWS)
    assert up.split(maxsplit=3) == [
        "lora_up", "0", "1.0e-05", "1.2e-03: changes the layer by 0.49 %",
    ]  # fmt: skip
    assert magnitude.endswith("8.7e-01: > 1000 % of itself")


def test_count_names_every_level() -> None:
    findings = [CLIPPED, CLIPPED, Finding("SF048", "error", "")]
    assert render_count(findings) == "errors: 1, warnings: 2, notes: 0"


def test_step_that_the_run_will_find_is_not_guessed() -> None:
    row = StepRow("lora_up", 70, 278_528, 0.0, 0.05, 768, 1.0, 100.0, 15.0, known=False)
    lines = sheet_lines((row,))
    assert lines[1].split()[5:] == ["found", "in", "the", "run", "yes"]
    assert lines[4].split() == ["lora_up", "found", "in", "the", "run", *"-----"]
