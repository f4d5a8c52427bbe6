"""Waivers: a finding that is accepted with a reason counts no longer, but is always said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surefoot.check.waivers import can_be_waived
from surefoot.wording import WORDS
from tests.run_files import findings_in, look, surefoot, write_run

TRIPS = {"optimizer.scale_parameter": True}
REASON = "an old file, kept as it is"


def waiver(code: str, reason: str = REASON) -> dict[str, str]:
    return {"code": code, "reason": reason}


def test_waived_error_is_printed_with_its_reason_and_stops_nothing(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {**TRIPS, "waive": [waiver("SF101")]})
    result = surefoot("check", run_file)
    assert result.exit_code == 0
    assert "waived[SF101] scale_parameter = true leaves a fresh DoRA" in result.stdout
    assert f"reason: {REASON}" in result.stdout
    assert "errors: 0, warnings: 0, notes: 0, waived: 1" in result.stdout
    assert "repairs:" not in result.stdout
    (finding,) = findings_in(surefoot("check", run_file, "--json"))
    assert (finding["code"], finding["level"], finding["waived"]) == ("SF101", "error", REASON)
    log = json.loads(surefoot("check", run_file, "--format", "sarif").stdout)
    (said,) = log["runs"][0]["results"]
    assert said["suppressions"] == [{"kind": "inSource", "justification": REASON}]
    # And what is waived is not mended.
    surefoot("check", run_file, "--fix", "--yes")
    assert "scale_parameter = true" in run_file.read_text(encoding="utf-8")


def test_waived_error_lets_the_run_train(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {**TRIPS, "waive": [waiver("SF101")], "train.steps": 1})
    result = surefoot("train", run_file)
    assert result.exit_code == 0, result.output
    assert "waived[SF101]" in result.stderr
    assert f"reason: {REASON}" in result.stderr


@pytest.mark.parametrize("reason", ["", "  "])
def test_waiver_needs_a_reason(reason: str, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {**TRIPS, "waive": [waiver("SF101", reason)]})
    (finding,) = findings_in(surefoot("check", run_file, "--json"))
    assert (finding["code"], finding["path"]) == ("SF004", "waive.0.reason")
    assert "text that is not empty" in finding["helps"][0]


@pytest.mark.parametrize(
    ("code", "found", "level"),
    [("SF999", "SF061", "error"), ("SF020", "SF062", "error"), ("SF107", "SF401", "warning")],
)
def test_waiver_that_cannot_apply_is_itself_a_finding(
    code: str, found: str, level: str, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, {"waive": [waiver(code)]})
    (finding,) = findings_in(surefoot("check", run_file, "--json"))
    assert (finding["code"], finding["level"]) == (found, level)
    assert finding["path"].startswith("waive.0")
    line = run_file.read_text(encoding="utf-8").split("\n")[finding["line"] - 1]
    assert code in line or line == "[[waive]]"


def test_waiver_without_an_object_is_taken_out_by_fix(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {**TRIPS, "waive": [waiver("SF107"), waiver("SF101")]})
    result = surefoot("check", run_file, "--fix")
    assert result.exit_code == 0, result.output
    text = run_file.read_text(encoding="utf-8")
    assert "SF107" not in text
    assert "SF101" in text


def test_what_no_run_can_do_without_is_never_waived(tmp_path: Path) -> None:
    changes = {"model.path": "nowhere", "waive": [waiver("SF020")]}
    assert surefoot("check", write_run(tmp_path, changes)).exit_code == 2
    assert [code for code in WORDS if code.startswith("SF0") and can_be_waived(code)] == []
    assert can_be_waived("SF101")
    # The optimizer refuses it too.
    assert not can_be_waived("SF103")


def test_waiver_changes_no_run(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    plain = look(run_file)[0]
    waived = look(run_file, "waive=[{code='SF101', reason='x'}]")[0]
    assert plain.fingerprint == waived.fingerprint
