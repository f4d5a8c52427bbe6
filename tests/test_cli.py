"""The command line: it teaches, it prints what machines can read, and any console can show it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import surefoot as package
from surefoot import __version__
from surefoot.builtin import DEMO_RUN
from surefoot.config.run import RunConfig
from surefoot.plan import Plan
from tests.run_files import findings_in, look, surefoot, write_pictures, write_run

SOURCE = Path(package.__file__).parents[1]
VERBS = (
    *("plan", "check", "explain", "train", "demo", "sample", "schema"),
    *("inspect", "convert", "merge", "extract", "resize"),
)


def in_a_process(
    *arguments: str | Path, folder: Path, code: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """`python -m surefoot`, or other code, in a process of its own."""
    words = ["-c", code] if code else ["-m", "surefoot"]
    variables = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "SUREFOOT_LANG": "en",
        "COLUMNS": "200",
        **environment,
    }
    return subprocess.run(
        [sys.executable, *words, *map(str, arguments)],
        cwd=folder,
        env=variables,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_explains_it(verb: str) -> None:
    result = surefoot(verb, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    special = {
        "demo": "run.toml", "sample": "runs/cat", "schema": "run.toml", "explain": "SF101",
        "inspect": "FILE", "convert": "FILE", "merge": "FILE[=WEIGHT]", "extract": "MODEL",
        "resize": "FILE",
    }  # fmt: skip
    named = special.get(verb, "RUN.TOML")
    assert named in result.stdout
    assert re.search(r"[A-Z][^.]{20,}\.", result.stdout)


def test_help_names_every_verb_and_the_way_through_them() -> None:
    result = surefoot("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        assert re.search(rf"^\W*{verb} ", result.stdout, re.MULTILINE), verb
    assert "run.toml" in result.stdout
    assert "Exit codes" in result.stdout
    # Without a verb the help is shown too, as a mistake.
    assert surefoot().exit_code == 2


def test_version_is_printed_without_a_verb() -> None:
    result = surefoot("--version")
    assert result.exit_code == 0
    assert result.stdout == f"{__version__}\n"


@pytest.mark.parametrize(
    "arguments", [("chekc",), ("check",), ("check", "a.toml", "--jsno"), ("--lang", "fr", "check")]
)
def test_unknown_words_are_refused(arguments: tuple[str, ...]) -> None:
    assert surefoot(*arguments).exit_code == 2


def properties(schema: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, entry in schema.get("properties", {}).items():
        yield f"{place}.{name}", entry
    for name, definition in schema.get("$defs", {}).items():
        yield from properties(definition, name)


def test_schema_describes_every_key() -> None:
    result = surefoot("schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert schema["additionalProperties"] is False
    found = dict(properties(schema))
    assert {".name", "AdafactorConfig.scale_parameter", "FolderConfig.repeats"} <= set(found)
    assert len(found) > 60
    described = {
        f"#/$defs/{name}": entry["description"] for name, entry in schema["$defs"].items()
    } | {"": ""}
    helps = {
        place: entry.get("description") or described[entry.get("$ref", "")]
        for place, entry in found.items()
    }
    assert [place for place, text in helps.items() if not re.search("[a-z].*[.:]", text)] == []


def test_plan_names_what_will_happen(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    result = surefoot("plan", run_file)
    assert result.exit_code == 0
    for said in ("sd15", "epsilon", "dora rank 16", "120 steps of 2 pictures = 120.0 epochs"):
        assert said in result.stdout
    for kind in ("lora_up", "lora_down", "magnitude"):
        assert re.search(rf"^{kind} +\d+ +[\d,]+ ", result.stdout, re.MULTILINE)
    assert f"Next: surefoot check {run_file}" in result.stdout


def test_plan_as_json_is_the_plan(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    result = surefoot("plan", run_file, "--json", "tuning.kind=lora")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    plan, _survey, _findings = look(run_file, "tuning.kind=lora")
    assert TypeAdapter(Plan).validate_python(document["plan"]) == plan
    with pytest.raises(ValidationError):
        TypeAdapter(Plan).validate_python({**document["plan"], "steps": "many"})


def test_check_of_a_good_run_names_the_next_step(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    result = surefoot("check", run_file)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-2:] == [
        f"{run_file}: errors: 0, warnings: 0, notes: 0",
        f"Next: surefoot train {run_file}",
    ]


def test_exit_code_tells_a_finding_from_an_unusable_input(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    assert surefoot("check", run_file, "train.clip_grad_norm=1").exit_code == 0  # a warning
    assert surefoot("check", run_file, "optimizer.warmup_init=true").exit_code == 1
    assert surefoot("check", run_file, "model.path=nowhere").exit_code == 2


def test_finding_about_an_override_shows_the_override(tmp_path: Path) -> None:
    result = surefoot("check", write_run(tmp_path), "model.path=nowhere", "trian.steps=1")
    assert "  --> model.path=nowhere  model.path\n" in result.output
    assert 'path = "builtin"' not in result.output


def test_brackets_and_colons_in_a_path_are_no_markup(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]cat[/bold] :cat: [/]"
    folder.mkdir(parents=True)
    result = surefoot("check", write_run(folder), "data.folders.0.path=[/red]")
    assert result.exit_code == 2
    assert f"{folder}/run.toml: errors: 1" in result.output
    assert f"the folder {folder}/[/red] does not exist" in result.output


def test_demo_writes_a_run_that_passes_and_keeps_one_that_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    result = surefoot("demo", "--write", "--folder", folder)
    assert result.exit_code == 0
    assert str(folder / "run.toml") in result.stdout
    assert (folder / "run.toml").read_bytes() == DEMO_RUN.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["run.toml"]
    check = surefoot("check", folder / "run.toml")
    assert check.exit_code == 0, check.output
    assert "errors: 0, warnings: 0" in check.stdout
    (folder / "run.toml").write_text("mine", encoding="utf-8")
    assert surefoot("demo", "--write", "--folder", folder).exit_code == 0
    assert (folder / "run.toml").read_text(encoding="utf-8") == "mine"


def test_every_key_of_the_demo_is_in_the_schema() -> None:
    document = tomllib.loads(DEMO_RUN.read_text(encoding="utf-8"))
    assert set(document) <= set(RunConfig.model_fields)


def test_check_imports_no_torch_and_works_from_any_folder(tmp_path: Path) -> None:
    inner, elsewhere = tmp_path / "inner", tmp_path / "elsewhere"
    for folder in (inner, elsewhere):
        folder.mkdir()
    write_run(inner, {"validation.folder": "held out"})
    write_pictures(inner / "held out")
    code = (
        "import sys, surefoot.cli\n"
        "try: surefoot.cli.main()\n"
        "finally: print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))\n"
    )
    done = in_a_process("check", "../inner/run.toml", folder=elsewhere, code=code)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    assert said.startswith("tensor ")
    assert "\nstep per element " in said
    assert said.splitlines()[-3:] == [
        "../inner/run.toml: errors: 0, warnings: 0, notes: 0",
        "Next: surefoot train ../inner/run.toml",
        "[]",
    ]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("encoding", ["gbk", "ascii", "cp1252"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_console_that_lacks_a_sign_does_not_end_the_run(
    encoding: str, language: str, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, {"model.path": "häh 猫 😀"})
    done = in_a_process(
        "check", run_file, folder=tmp_path, PYTHONIOENCODING=encoding, SUREFOOT_LANG=language
    )
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    shown = done.stdout.decode(encoding)
    assert "[SF020]" in shown
    if encoding == "gbk":
        assert "猫 ?" in shown
        assert language == "en" or "模型" in shown


def test_json_is_whole_on_any_console(tmp_path: Path) -> None:
    name = "häh 猫 😀"
    run_file = write_run(tmp_path, {"model.path": name})
    for encoding in ("gbk", "utf-8"):
        done = in_a_process("check", run_file, "--json", folder=tmp_path, PYTHONIOENCODING=encoding)
        (finding,) = json.loads(done.stdout.decode(encoding))["findings"]
        assert finding["values"] == {"given": name}


@pytest.mark.parametrize("arguments", [("--help",), ("check", "--help"), ("--version",), ()])
def test_help_can_be_shown_on_a_console_of_gbk(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = in_a_process(
        *arguments, folder=tmp_path, PYTHONIOENCODING="gbk", SUREFOOT_LANG="zh", NO_COLOR="1"
    )
    assert done.returncode == (0 if arguments else 2), done.stderr
    assert b"Traceback" not in done.stderr
    shown = (done.stdout + done.stderr).decode("gbk")
    assert arguments == ("--version",) or re.search("[\u4e00-\u9fff]", shown)


def test_findings_as_json_carry_codes_values_and_words(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    result = surefoot("check", run_file, "--json", "schedule.warmup_steps=500")
    (finding,) = findings_in(result)
    assert finding == {
        "code": "SF106",
        "level": "error",
        "path": "schedule.warmup_steps",
        "values": {"warmup": 500, "steps": 120},
        "rows": [],
        "changes": [
            {
                "path": "schedule.warmup_steps",
                "value": "12",
                "before": "500",
                "action": "set",
                "same": False,
            }
        ],
        "waived": "",
        "line": 0,
        "column": 0,
        "sentence": "the warm-up of 500 steps is not over when the run ends at 120",
        "cause": "",
        "notes": [],
        "helps": ["shorten the warm-up, to a tenth of the run for example"],
    }


def test_overrides_are_in_the_hint_of_what_comes_next(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    overrides = ("train.steps=90", "preview.prompts=['a cat']")
    quoted = """train.steps=90 'preview.prompts=['"'"'a cat'"'"']'"""
    for verb, following in (("plan", "check"), ("check", "train")):
        result = surefoot(verb, run_file, *overrides)
        assert f"Next: surefoot {following} {run_file} {quoted}\n" in result.stdout


def test_check_as_json_has_the_sheet_of_the_plan(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    sheet = json.loads(surefoot("check", run_file, "--json").stdout)["sheet"]
    plan = json.loads(surefoot("plan", run_file, "--json").stdout)["plan"]
    assert sheet == plan["sheet"]
    assert [row["kind"] for row in sheet] == ["lora_up", "lora_down", "magnitude"]
    assert all(len(row["later"]) == 3 and row["dtype"] == "fp32" for row in sheet)


def test_json_tells_the_line_of_a_key_in_the_file(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"schedule.warmup_steps": 500})
    (finding,) = findings_in(surefoot("check", run_file, "--json"))
    lines = run_file.read_text(encoding="utf-8").split("\n")
    assert lines[finding["line"] - 1] == "warmup_steps = 500"
    assert finding["column"] == 1


def test_strict_check_fails_on_a_warning(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    assert surefoot("check", run_file, "--strict").exit_code == 0
    result = surefoot("check", run_file, "--strict", "train.clip_grad_norm=1")
    assert result.exit_code == 1
    assert "Next:" not in result.stdout


@pytest.mark.parametrize("asked", ["SF101", "sf101", "101"])
def test_code_is_explained_with_its_source(asked: str) -> None:
    result = surefoot("explain", asked)
    assert result.exit_code == 0
    for said in ("SF101", "multiplies each step by", "note: ", "help: ", "source: "):
        assert said in result.stdout
    assert json.loads(surefoot("explain", asked, "--json").stdout)["code"] == "SF101"


@pytest.mark.parametrize(("asked", "near"), [("SF1O1", "SF101"), ("SF199", "SF201"), ("x", "SF0")])
def test_unknown_code_is_answered_with_its_neighbours(asked: str, near: str) -> None:
    result = surefoot("explain", asked)
    assert result.exit_code == 2
    assert f"there is no code {asked}; near it: " in result.output
    assert near in result.output
