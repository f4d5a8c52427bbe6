"""The case that surefoot grew from: Adafactor with its own scale on a fresh DoRA.

OneTrainer issue 455: scale_parameter and relative_step learned nothing, and at a higher rate gave
noise. The figures are recomputed here from the built-in model's file with numpy.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import surefoot as package
from surefoot.builtin import BUILTIN_MODEL
from tests.run_files import findings_in, surefoot, write_pictures

RUN = """\
name = "misfit"
[model]
path = "builtin"
[tuning]
kind = "dora"
rank = 16
[optimizer]
kind = "adafactor"
scale_parameter = true   # as transformers has it
relative_step = true
[[data.folders]]
path = "pictures"
[train]
steps = 120
batch_size = 2
"""
TARGETS = re.compile(r"\.(attn[12]\.to_([qkv]|out\.0)|ff\.net\.(0\.proj|2))\.weight$")
RATE = 1e-2  # relative_step for the first 10,000 steps
EPS2 = 1e-3
RANK = 16
STEPS = 120
SAMPLING = 0.01  # large weights are measured on a part of their numbers


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures")
    path = tmp_path / "run.toml"
    path.write_text(RUN, encoding="utf-8")
    return path


def rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(values, dtype=np.float64)))))


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@pytest.fixture(scope="module")
def targets() -> list[Any]:
    """The weights that get an adapter, rows by inputs."""
    file = BUILTIN_MODEL / "unet/diffusion_pytorch_model.safetensors"
    weights = [tensor for name, tensor in load_file(file).items() if TARGETS.search(name)]
    assert len(weights) > 20
    return [weight.reshape(len(weight), -1) for weight in weights]


@pytest.fixture(scope="module")
def expected(targets: list[Any]) -> dict[str, dict[str, float]]:
    """RMS at the start and the first step per element of the three kinds of tensor."""
    own = {
        "lora_up": 0.0,
        "lora_down": median([1 / np.sqrt(3 * weight.shape[1]) for weight in targets]),
        "magnitude": median([rms(np.linalg.norm(weight, axis=1)) for weight in targets]),
    }
    return {kind: {"rms": value, "first": RATE * max(value, EPS2)} for kind, value in own.items()}


def test_check_gives_the_step_of_each_kind_of_tensor_of_this_model(
    run_file: Path, targets: list[Any], expected: dict[str, dict[str, float]]
) -> None:
    result = surefoot("check", run_file, "--json")
    assert result.exit_code == 1
    findings = {finding["code"]: finding for finding in findings_in(result)}
    assert set(findings) == {"SF101", "SF104"}
    rows = {row["kind"]: row for row in findings["SF101"]["rows"]}
    assert list(rows) == ["lora_up", "lora_down", "magnitude"]
    for kind, figures in expected.items():
        assert rows[kind]["tensors"] == len(targets)
        assert rows[kind]["rms"] == pytest.approx(figures["rms"], rel=SAMPLING)
        assert rows[kind]["first"] == pytest.approx(figures["first"], rel=SAMPLING)
    assert rows["lora_up"]["numbers"] == sum(RANK * weight.shape[0] for weight in targets)
    assert rows["lora_down"]["numbers"] == sum(RANK * weight.shape[1] for weight in targets)
    assert rows["magnitude"]["numbers"] == sum(weight.shape[0] for weight in targets)


def test_check_says_how_far_the_layers_could_get(run_file: Path, targets: list[Any]) -> None:
    findings = {item["code"]: item for item in findings_in(surefoot("check", run_file, "--json"))}
    # lora_up after 120 steps that all go the same way, with its RMS below the floor throughout.
    total = STEPS * RATE * EPS2
    # All steps are equal; the layer looked at is the median one by width times RMS.
    layer = sorted(targets, key=lambda weight: weight.shape[1] * rms(weight))[len(targets) // 2]
    change = total * np.sqrt(RANK / (3 * layer.shape[1])) / rms(layer)
    values = findings["SF101"]["values"]
    # The floor holds: RMS(lora_up) ends at 1.2e-3, a little above it.
    assert values["up_change"] == pytest.approx(100 * change, rel=0.02)
    assert values["up_first"] == pytest.approx(RATE * EPS2)
    assert values["other"] == "magnitude"
    # By the time lora_up moves by 1e-4 a step the rate is 0.1, and the magnitude's step is the
    # rate times its own RMS.
    assert values["other_percent"] == pytest.approx(10.0)


def test_check_explains_itself_to_a_reader(
    run_file: Path, expected: dict[str, dict[str, float]]
) -> None:
    result = surefoot("check", run_file)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("error[SF101] scale_parameter = true leaves a fresh DoRA almost ")
    assert lines[1] == f"  --> {run_file}:9:1  optimizer.scale_parameter"
    assert lines[2] == "9 | scale_parameter = true   # as transformers has it"
    assert lines[3].startswith(
        "  | ^^^^^^^^^^^^^^^^^^^^^^ multiplies each step by the tensor's own RMS"
    )
    for kind, figures in expected.items():
        line = next(line for line in lines if line.split()[:1] == [kind])
        printed = float(line.split()[2])
        assert printed == pytest.approx(figures["first"], rel=0.05 + SAMPLING)
    assert "expect pictures close to the base model" in result.stdout
    assert "a higher learning rate does not help" in result.stdout
    assert '  - scale_parameter = true\n  + scale_parameter = "weight"\n' in result.stdout
    assert "errors: 1, warnings: 0, notes: 1" in lines[-3]
    assert lines[-2].endswith(f"surefoot check {run_file} --fix")
    assert lines[-1] == "More: surefoot explain SF101"
    assert result.stderr == ""


def test_run_with_the_proposed_change_passes(run_file: Path) -> None:
    findings = {item["code"]: item for item in findings_in(surefoot("check", run_file, "--json"))}
    text = RUN
    for change in findings["SF101"]["changes"]:
        key = change["path"].rpartition(".")[2]
        before, after = f"{key} = {change['before']}", f"{key} = {change['value']}"
        assert text.count(before) == 1
        text = text.replace(before, after)
    assert tomllib.loads(text)["optimizer"]["scale_parameter"] == "weight"
    run_file.write_text(text, encoding="utf-8")
    result = surefoot("check", run_file)
    assert result.exit_code == 0
    assert f"Next: surefoot train {run_file}" in result.stdout


def test_full_fine_tuning_with_the_same_optimizer_passes(run_file: Path) -> None:
    result = surefoot("check", run_file, "tuning={kind='full'}", "--json")
    assert result.exit_code == 0
    assert [finding["code"] for finding in findings_in(result)] == ["SF104"]


def test_train_starts_nothing_while_the_misfit_is_there(run_file: Path) -> None:
    result = surefoot("train", run_file)
    assert result.exit_code == 1
    assert "error[SF101]" in result.stderr
    assert "Nothing was started." in result.stderr
    assert not (run_file.parent / "runs").exists()


def test_check_speaks_chinese_too(run_file: Path) -> None:
    catalog = Path(package.__file__).parent / "locale/zh_CN/LC_MESSAGES/surefoot.mo"
    assert catalog.is_file()
    english = surefoot("check", run_file)
    chinese = surefoot("--lang", "zh", "check", run_file)
    assert chinese.exit_code == 1
    lines = chinese.stdout.splitlines()
    assert "[SF101]" in lines[0]
    rows = ("  ", "9 |", "10 |", "lora_up", "lora_down", "magnitude")
    sentences = [line for line in lines if line and not line.startswith(rows)]
    for line in sentences:
        assert re.search("[\u4e00-\u9fff]", line), line
    # Names and numbers are the same in both.
    assert '  + scale_parameter = "weight"' in lines
    steps = [re.findall(r"\d\.\de-\d\d", text) for text in (english.stdout, chinese.stdout)]
    assert len(steps[0]) >= 5
    assert sorted(steps[0]) == sorted(steps[1])
    document = json.loads(surefoot("--lang", "zh", "check", run_file, "--json").stdout)
    assert re.search("[\u4e00-\u9fff]", document["findings"][0]["sentence"])
