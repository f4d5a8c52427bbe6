"""`surefoot check` and `surefoot import` on other trainers' files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from surefoot.cli import command_line
from surefoot.language import choose
from tests.importers.readings import FILES, changed

ADAPTIVE = FILES / "onetrainer_adaptive.json"


@pytest.fixture(autouse=True)
def english_afterwards() -> object:
    yield
    choose("en")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command_line(), [str(item) for item in arguments])


def test_check_names_the_trainer_the_line_and_the_remedy_in_its_keys() -> None:
    result = run("check", ADAPTIVE)
    assert result.exit_code == 1
    assert "a file of OneTrainer" in result.stdout
    assert f"{ADAPTIVE}:37:13  optimizer_defaults.ADAFACTOR.scale_parameter" in result.stdout
    assert "set `optimizer_defaults.ADAFACTOR.scale_parameter` to `false`" in result.stdout
    assert "as its command line reads it:" in result.stdout
    assert 'scale_parameter = "weight"' not in result.stdout


def test_sane_file_passes_and_strict_counts_its_warnings(tmp_path: Path) -> None:
    path = changed("ai_toolkit.yaml", "scale_parameter: true", "scale_parameter: false", tmp_path)
    assert run("check", path).exit_code == 0
    assert run("check", path, "--strict").exit_code == 1


def test_check_as_json_and_as_sarif_has_their_keys_and_lines() -> None:
    found = json.loads(run("check", ADAPTIVE, "--json").stdout)
    assert found["trainer"] == "onetrainer"
    first = found["findings"][0]
    assert (first["code"], first["line"], first["meaning"]) == ("SF101", 37, "window")
    log = json.loads(run("check", ADAPTIVE, "--format", "sarif").stdout)
    result = log["runs"][0]["results"][0]
    location = result["locations"][0]
    assert location["physicalLocation"]["region"]["startLine"] == 37
    assert "fixes" not in result


def test_import_overwrites_nothing_unless_told_to(tmp_path: Path) -> None:
    out = tmp_path / "run.toml"
    out.write_text("mine", encoding="utf-8")
    refused = run("import", ADAPTIVE, "--out", out)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert out.read_text(encoding="utf-8") == "mine"
    written = run("import", ADAPTIVE, "--out", out, "--force")
    assert written.exit_code == 0
    assert "keys kept: 23, changed: 2" in written.stdout
    assert "lora_rnk = 32" in written.stdout
    assert 'kind = "dora"' in out.read_text(encoding="utf-8")


def test_imports_run_toml_is_judged_as_the_trainer_would_run_it(tmp_path: Path) -> None:
    out = tmp_path / "run.toml"
    run("import", ADAPTIVE, "--out", out)
    text = out.read_text(encoding="utf-8")
    text = text.replace("stable-diffusion-v1-5/stable-diffusion-v1-5", "builtin")
    text = text.replace('"pictures"', '"builtin"')
    out.write_text(text, encoding="utf-8")
    assert "[SF101]" in run("check", out).output


def test_command_line_reading_can_be_imported_instead(tmp_path: Path) -> None:
    out = tmp_path / "run.toml"
    run("import", ADAPTIVE, "--out", out, "--meaning", "command")
    assert "scale_parameter = false" in out.read_text(encoding="utf-8")
    run("import", ADAPTIVE, "--out", out, "--force")
    assert "scale_parameter = true" in out.read_text(encoding="utf-8")


def test_account_as_json_has_every_key_with_its_fate(tmp_path: Path) -> None:
    result = run("import", ADAPTIVE, "--out", tmp_path / "run.toml", "--json")
    keys = {item["key"]: item for item in json.loads(result.stdout)["keys"]}
    assert keys["lora_rank"]["fate"] == "kept"
    assert keys["layer_filter_preset"]["fate"] == "changed"
    assert keys["lora_rnk"]["fate"] == "dropped"
    assert keys["lora_rnk"]["words"]


def test_comments_and_findings_speak_chinese(tmp_path: Path) -> None:
    out = tmp_path / "run.toml"
    shown = run("--lang", "zh", "check", ADAPTIVE)
    assert "OneTrainer 的文件" in shown.stdout
    assert "按其命令行的读法" in shown.stdout
    run("--lang", "zh", "import", ADAPTIVE, "--out", out)
    assert "# 未采用" in out.read_text(encoding="utf-8")


def test_run_toml_is_checked_as_one_and_not_imported(tmp_path: Path) -> None:
    own = tmp_path / "run.toml"
    own.write_text(
        'name = "a"\n[model]\npath = "builtin"\n[[data.folders]]\npath = "builtin"\n'
        "[train]\nsteps = 10\n",
        encoding="utf-8",
    )
    assert "a file of" not in run("check", own).output
    result = run("import", own, "--out", tmp_path / "other.toml")
    assert result.exit_code == 2
    assert "is a run.toml already" in result.stderr


@pytest.mark.parametrize(("ending", "language"), [(".md", "en"), (".zh-CN.md", "zh")])
def test_example_of_the_page_is_what_is_printed(
    ending: str, language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / f"import-and-check-other-trainers{ending}"
    text = page.read_text(encoding="utf-8")
    (content,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (shown,) = re.findall(r"```text\n(.*?)\n```", text, re.DOTALL)
    (tmp_path / "dora.json").write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run("--lang", language, "check", "dora.json").stdout.startswith(shown)
