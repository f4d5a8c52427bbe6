"""The SARIF log: what a code host must find in it, and fixes that are the repair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.run_files import findings_in, surefoot, write_run

LEVELS = {"error", "warning", "note", "none"}


def log_of(*arguments: str | Path) -> dict[str, Any]:
    document = json.loads(surefoot("check", *arguments, "--format", "sarif").stdout)
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    return run


def applied(text: str, replacements: list[dict[str, Any]]) -> str:
    """The text with regions of whole lines replaced, the last first."""
    lines = text.splitlines(keepends=True)
    for replacement in reversed(replacements):
        region = replacement["deletedRegion"]
        assert region["startColumn"] == region["endColumn"] == 1
        inserted = replacement["insertedContent"]["text"]
        lines[region["startLine"] - 1 : region["endLine"] - 1] = [inserted]
    return "".join(lines)


def test_every_result_refers_to_its_rule_and_its_line(tmp_path: Path) -> None:
    changes = {"train.clip_grad_norm": 1.0, "train.ema": 0.999, "optimizer.warmup_init": True}
    run_file = write_run(tmp_path, changes)
    run = log_of(run_file)
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["SF103", "SF105", "SF108"]
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)
    lines = run_file.read_text(encoding="utf-8").split("\n")
    said = {item["code"]: item for item in findings_in(surefoot("check", run_file, "--json"))}
    assert len(run["results"]) == 3
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == said[result["ruleId"]]["level"] in LEVELS
        assert result["message"]["text"].startswith(said[result["ruleId"]]["sentence"])
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == run_file.as_uri()
        region = physical["region"]
        line = lines[region["startLine"] - 1]
        name = location["logicalLocations"][0]["fullyQualifiedName"]
        assert line[region["startColumn"] - 1 : region["endColumn"] - 1].startswith(
            name.rpartition(".")[2]
        )


def test_fixes_lead_to_a_file_without_the_finding(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"train.clip_grad_norm": 1.0, "optimizer.warmup_init": True})
    text = run_file.read_text(encoding="utf-8")
    for result in log_of(run_file)["results"]:
        (fix,) = result["fixes"]
        (change,) = fix["artifactChanges"]
        run_file.write_text(applied(text, change["replacements"]), encoding="utf-8")
        left = {item["code"] for item in findings_in(surefoot("check", run_file, "--json"))}
        assert result["ruleId"] not in left


def test_file_that_cannot_be_read_is_a_log_too(tmp_path: Path) -> None:
    run_file = tmp_path / "a b.toml"
    run_file.write_text("name = cat", encoding="utf-8")
    (result,) = log_of(run_file)["results"]
    assert result["ruleId"] == "SF002"
    assert "fixes" not in result
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.endswith("/a%20b.toml")
