"""OneTrainer's files: every version, both of its readings, every key accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surefoot.builtin import BUILTIN_MODEL
from surefoot.config.load import load
from surefoot.finding import Refused
from surefoot.importers.judge import Reading
from surefoot.importers.known_keys import KnownKeys
from surefoot.importers.reading import readings
from surefoot.importers.recognise import recognise
from surefoot.importers.run_file import run_toml

ADAPTIVE = Path(__file__).parent / "files" / "onetrainer_adaptive.json"
SMALL = {
    "__version": 11,
    "training_method": "LORA",
    "model_type": "STABLE_DIFFUSION_15",
    "base_model_name": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "learning_rate": 3e-4,
    "lora_alpha": 16.0,
    "lora_decompose": True,
    "unet": {"train": True},
    "text_encoder": {"train": False},
}


def read(tmp_path: Path, content: dict[str, object], name: str = "their.json") -> list[Reading]:
    path = tmp_path / name
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    theirs = recognise(path)
    assert theirs is not None
    assert theirs.trainer == "onetrainer"
    return list(readings(theirs, path))


def codes(reading: Reading) -> set[str]:
    return {finding.code for finding in reading.findings}


def optimizer(**values: object) -> dict[str, object]:
    return {**SMALL, "optimizer": {"__version": 0, "optimizer": "ADAFACTOR", **values}}


def kept(**values: object) -> dict[str, object]:
    defaults = {"ADAFACTOR": {"__version": 0, "optimizer": "ADAFACTOR", **values}}
    return {**optimizer(), "optimizer_defaults": defaults}


def test_adaptive_adafactor_of_the_window_is_an_error_at_its_line_in_their_key() -> None:
    theirs = recognise(ADAPTIVE)
    assert theirs is not None
    window, command = readings(theirs, ADAPTIVE)
    found = next(finding for finding in window.findings if finding.code == "SF101")
    assert found.level == "error"
    assert found.path == "optimizer_defaults.ADAFACTOR.scale_parameter"
    line = ADAPTIVE.read_text(encoding="utf-8").splitlines()[window.run.lines[found.path] - 1]
    assert line.strip() == '"scale_parameter": true,'
    assert [(change.path, change.value) for change in found.changes] == [
        ("optimizer_defaults.ADAFACTOR.scale_parameter", "false"),
        ("optimizer_defaults.ADAFACTOR.relative_step", "false"),
    ]
    assert window.run.meaning == "window"
    assert "SF704" in codes(window)
    assert command.run.meaning == "command line"
    assert "SF101" not in codes(command)


def test_null_means_true_and_a_missing_key_false(tmp_path: Path) -> None:
    (missing,) = read(tmp_path, optimizer())
    assert missing.config.optimizer.model_dump()["scale_parameter"] is False
    _window, command = read(tmp_path, optimizer(scale_parameter=None))
    assert command.config.optimizer.model_dump()["scale_parameter"] is True
    assert {"SF101", "SF705"} <= codes(command)


def test_null_for_relative_step_stops_onetrainer(tmp_path: Path) -> None:
    reading = read(tmp_path, kept(relative_step=None))[0]
    assert "SF710" in codes(reading)


def test_window_puts_its_own_table_over_what_the_file_says(tmp_path: Path) -> None:
    window, command = read(tmp_path, optimizer(scale_parameter=True))
    assert window.config.optimizer.model_dump()["scale_parameter"] is False
    assert command.config.optimizer.model_dump()["scale_parameter"] is True


def test_schedule_of_adafactor_multiplies_its_own_rate_away(tmp_path: Path) -> None:
    content = {**kept(scale_parameter=True), "learning_rate_scheduler": "ADAFACTOR"}
    assert "SF706" in codes(read(tmp_path, content)[0])
    content = {**kept(scale_parameter=False), "learning_rate_scheduler": "ADAFACTOR"}
    assert "SF706" not in codes(read(tmp_path, content)[0])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"lora_rnk": 4}, "SF701"),
        ({"training_method": "LORA", "learning_rate_scheduler": "COSIN"}, "SF702"),
        ({"optimizer": {"optimizer": "ADAFACTORX"}}, "SF702"),
        ({"continue_last_backup": True}, "SF709"),
        ({"peft_type": "OFT_2"}, "SF722"),
        ({"optimizer": {"optimizer": "ADAMW_ADV"}}, "SF725"),
        ({"lora_rank": 64, "lora_alpha": 1.0}, "SF107"),
    ],
)
def test_what_only_onetrainer_does_is_found(
    change: dict[str, object], code: str, tmp_path: Path
) -> None:
    (sane,) = read(tmp_path, optimizer())
    assert code not in codes(sane)
    assert code in codes(read(tmp_path, {**optimizer(), **change})[0])


def test_text_for_a_switch_is_true(tmp_path: Path) -> None:
    reading = read(tmp_path, kept(scale_parameter="false"))[0]
    assert {"SF703", "SF101"} <= codes(reading)


def test_fused_step_clips_each_tensor_alone(tmp_path: Path) -> None:
    content = {**kept(fused_back_pass=True), "training_method": "FINE_TUNE"}
    reading = read(tmp_path, content)[0]
    assert "SF708" in codes(reading)
    assert "SF133" not in codes(reading)
    assert reading.config.train.clip_grad_norm == "off"


def test_version_0_is_upgraded_key_by_key(tmp_path: Path) -> None:
    old = {
        "training_method": "LORA",
        "model_type": "STABLE_DIFFUSION_15",
        "base_model_name": "a/b",
        "optimizer": "ADAFACTOR",
        "optimizer_scale_parameter": True,
        "optimizer_relative_step": False,
        "train_unet": True,
        "train_text_encoder": False,
        "unet_learning_rate": 1e-4,
        "min_snr_gamma": 5.0,
        "lora_layer_preset": "attn-only",
        "gradient_checkpointing": False,
        "save_after": 200,
        "save_after_unit": "STEP",
    }
    (reading,) = read(tmp_path, old)
    found = next(finding for finding in reading.findings if finding.code == "SF101")
    assert found.path == "optimizer_scale_parameter"
    assert reading.run.lines[found.path] == 6
    assert reading.config.optimizer.lr == 1e-4
    assert reading.config.objective.snr_gamma == 5.0
    assert reading.config.tuning.model_dump()["targets"] == "attention"
    assert reading.config.train.gradient_checkpointing is False
    assert reading.config.save.every == 200
    assert {note.key for note in reading.run.notes} == set(old)


def test_todays_file_without_a_version_stops_but_a_preset_does_not(tmp_path: Path) -> None:
    content = {key: value for key, value in SMALL.items() if key != "__version"}
    assert "SF710" in codes(read(tmp_path, content)[0])
    assert "SF710" not in codes(read(tmp_path, content, "#my preset.json")[0])


def test_model_at_hand_gives_the_size_of_its_own_weights(tmp_path: Path) -> None:
    usual = read(tmp_path, kept(scale_parameter=True))[0]
    content = {**kept(scale_parameter=True), "base_model_name": str(BUILTIN_MODEL)}
    own = read(tmp_path, content)[0]
    assert own.plan.sheet[0].numbers != usual.plan.sheet[0].numbers
    assert own.plan.targets["unet"] != usual.plan.targets["unet"]
    assert "SF101" in codes(own)


@pytest.mark.parametrize(("kind", "name"), [("LOHA", "LoHa"), ("LOKR", "LoKr")])
def test_other_adapters_that_begin_at_zero_are_judged_too(
    kind: str, name: str, tmp_path: Path
) -> None:
    reading = read(tmp_path, {**kept(scale_parameter=True), "peft_type": kind})[0]
    found = next(finding for finding in reading.findings if finding.code == "SF101")
    assert found.values["tuning"] == name


def test_every_documented_key_and_one_made_up_is_accounted_for_once(tmp_path: Path) -> None:
    content: dict[str, object] = dict(SMALL)
    for key in KnownKeys("onetrainer").names:
        *parents, name = key.split(".")
        table = content
        for parent in parents:
            table = table.setdefault(parent, {})  # type: ignore[assignment]
        table.setdefault(name, None)  # pyright: ignore
    content["optimizer"] = {**content["optimizer"], "optimizer": "PRODIGY"}  # type: ignore[dict-item]
    content["made_up"] = 1
    for reading in read(tmp_path, content):
        named = [note.key for note in reading.run.notes]
        assert len(named) == len(set(named))
        given = {key for key in reading.run.lines if not _has_inner(key, reading.run.lines)}
        assert set(named) == given
        unknown = [finding for finding in reading.findings if finding.code == "SF701"]
        assert [finding.path for finding in unknown] == ["made_up"]
        assert all(note.reason for note in reading.run.notes if note.fate != "kept")


def _has_inner(key: str, lines: object) -> bool:
    return any(other.startswith(f"{key}.") for other in lines)  # pyright: ignore


def test_run_toml_is_one_that_loads_with_what_the_run_really_does(tmp_path: Path) -> None:
    theirs = recognise(ADAPTIVE)
    assert theirs is not None
    window = readings(theirs, ADAPTIVE)[0]
    written = tmp_path / "run.toml"
    written.write_text(run_toml(window.run, ADAPTIVE.name), encoding="utf-8")
    config = load(written).config
    assert config.tuning.kind == "dora"
    assert config.optimizer.model_dump()["relative_step"] is True
    assert config.schedule.warmup_steps == 100
    text = written.read_text(encoding="utf-8")
    assert "#   lora_rnk = 32" in text
    assert "# from onetrainer_adaptive.json, a file of OneTrainer" in text


def test_epochs_become_steps_where_the_pictures_are(tmp_path: Path) -> None:
    folder = tmp_path / "cats"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(b"")
    concepts = [
        {"path": str(folder), "balancing": 2.0, "enabled": True},
        {"path": "elsewhere", "enabled": False},
    ]
    content = {**SMALL, "concepts": concepts, "epochs": 10, "batch_size": 3}
    (reading,) = read(tmp_path, content)
    assert reading.config.train.steps == 10 * 6 * 2 // 3
    assert "SF726" not in codes(reading)
    (without,) = read(tmp_path, SMALL)
    assert "SF726" in codes(without)


def test_another_family_is_judged_and_written_for_later(tmp_path: Path) -> None:
    content = {**kept(scale_parameter=True), "model_type": "FLUX_DEV_1"}
    content["transformer"] = {"train": True}
    reading = read(tmp_path, content)[0]
    assert reading.run.family == "flux"
    assert "SF101" in codes(reading)
    assert "cannot train the family flux yet" in run_toml(reading.run, "their.json")


def test_values_of_a_wrong_type_are_said_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        read(tmp_path, {**SMALL, "learning_rate": "fast", "lora_rank": [1]})
    found = {finding.path: finding.code for finding in refused.value.findings}
    assert found == {"learning_rate": "SF093", "lora_rank": "SF093"}
