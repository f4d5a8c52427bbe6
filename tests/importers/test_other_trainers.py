"""Each trainer's file: recognised, judged in its own keys, imported, every key accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.config.load import load
from surefoot.importers.document import Document
from surefoot.importers.known_keys import KnownKeys
from surefoot.importers.reading import readings
from surefoot.importers.recognise import Theirs, recognise
from surefoot.importers.record import TRAINER_NAMES, Trainer
from surefoot.importers.run_file import run_toml
from tests.importers.readings import FILES, changed, codes, reading_of

# Adafactor on an adapter with the tensor's own scale: file, trainer, the key that brings it along,
# and what that trainer should write instead.
MISFITS: list[tuple[str, Trainer, str, tuple[str, str]]] = [
    (
        "sd_scripts.toml", "sd_scripts", "optim.optimizer_args",
        ("optim.optimizer_args", "scale_parameter=False"),
    ),
    ("sd_scripts.sh", "sd_scripts", "optimizer_type", ("optimizer_args", "scale_parameter=False")),
    ("kohya_window.json", "sd_scripts", "optimizer_args",
     ("optimizer_args", "scale_parameter=False")),
    (
        "ai_toolkit.yaml", "ai_toolkit", "config.process.0.train.optimizer_params.scale_parameter",
        ("config.process.0.train.optimizer_params.scale_parameter", "false"),
    ),
    ("simpletuner.json", "simpletuner", "--optimizer", ("--optimizer", '"optimi-stableadamw"')),
    (
        "diffusion_pipe.toml", "diffusion_pipe", "optimizer.type",
        ("optimizer.scale_parameter", "false"),
    ),
    ("musubi.sh", "musubi", "optimizer_type", ("optimizer_args", "scale_parameter=False")),
]  # fmt: skip
# One thing written otherwise, and what is found then and was not before, or the other way round.
CHANGES: list[tuple[str, Trainer, str, str, str, bool]] = [
    ("sd_scripts.toml", "sd_scripts", '"relative_step=False", ', '"relative_step=False", '
     '"scale_parameter=False", ', "SF101", False),
    ("sd_scripts.toml", "sd_scripts", '"relative_step=False", ', "", "SF711", True),
    ("sd_scripts.toml", "sd_scripts", '"relative_step=False", ', '"scale_parameter=False", '
     '"relative_step=True", ', "SF110", True),
    ("sd_scripts.toml", "sd_scripts", "=False", "=false", "SF710", True),
    ("sd_scripts.toml", "sd_scripts", "constant_with_warmup", "adafactor", "SF710", True),
    ("sd_scripts.toml", "sd_scripts", "AdaFactor", "Adafaktor", "SF710", True),
    ("sd_scripts.toml", "sd_scripts", '["dora_wd=True"]', "[]", "SF714", False),
    ("sd_scripts.toml", "sd_scripts", "nework_dim = 3", "", "SF701", False),
    ("sd_scripts.toml", "sd_scripts", "max_grad_norm = 0.0", "max_grad_norm = 1.0", "SF105", True),
    ("sd_scripts.toml", "sd_scripts", "network_alpha = 16", "network_alpha = 1", "SF107", True),
    ("sd_scripts.toml", "sd_scripts", "nework_dim = 3", 'resume = "state"', "SF709", True),
    ("ai_toolkit.yaml", "ai_toolkit", "scale_parameter: true", "scale_parameter: false", "SF101",
     False),
    ("ai_toolkit.yaml", "ai_toolkit", "scale_parameter: true", "relative_step: true", "SF710",
     True),
    ("ai_toolkit.yaml", "ai_toolkit", "optimizer: adafactor", "optimizer: dadaptationadam",
     "SF711", True),
    ("ai_toolkit.yaml", "ai_toolkit", "lr: 1e-4", "lr: 1e-4\n        lr_scheduler: linear",
     "SF716", True),
    ("ai_toolkit.yaml", "ai_toolkit", "type: dora", "type: loha", "SF711", True),
    ("simpletuner.json", "simpletuner", "torch-adafactor", "adafactor", "SF710", True),
    ("simpletuner.json", "simpletuner", "torch-adafactor", "sdnq-adafactor", "SF719", True),
    ("simpletuner.json", "simpletuner", "scale_parameter=False,", "", "SF718", False),
    ("simpletuner.json", "simpletuner", '"cosine"', '"constant_with_warmup"', "SF717", False),
    ("simpletuner.json", "simpletuner", ', "--lora_rnk": 3', "", "SF720", False),
    ("diffusion_pipe.toml", "diffusion_pipe", "alpha = 16\n", "", "SF710", False),
    ("diffusion_pipe.toml", "diffusion_pipe", "AdaFactor", "adamw_optimi", "SF713", False),
    ("diffusion_pipe.toml", "diffusion_pipe", "lr = 1e-4",
     "lr = 1e-4\nrelative_step = false\nscale_parameter = false", "SF101", False),
    ("diffusion_pipe.toml", "diffusion_pipe", "lr = 1e-4",
     "relative_step = true\nscale_parameter = false", "SF110", True),
    ("diffusers.sh", "diffusers", "--learning_rate=1e-4", "--learning_rate=1.0", "SF118", False),
    ("musubi.sh", "musubi", "--network_dim 32", "--network_dim 32 --network_alpha 32", "SF107",
     False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "trainer", "key", "remedy"), MISFITS)
def test_misfit_is_found_in_the_trainers_own_key(
    name: str, trainer: Trainer, key: str, remedy: tuple[str, str]
) -> None:
    reading = reading_of(FILES / name, trainer)
    found = next(finding for finding in reading.findings if finding.code == "SF101")
    assert found.level == "error"
    assert found.path == key
    assert reading.run.lines[key] > 0
    assert (found.changes[0].path, found.changes[0].value) == remedy


@pytest.mark.parametrize(("name", "trainer", "old", "new", "code", "appears"), CHANGES)
def test_change_of_their_file_changes_what_is_found(
    name: str, trainer: Trainer, old: str, new: str, code: str, appears: bool, tmp_path: Path
) -> None:
    before = _count(codes_with_paths(FILES / name, trainer), code)
    after = _count(codes_with_paths(changed(name, old, new, tmp_path), trainer), code)
    assert after > before if appears else after < before


def codes_with_paths(path: Path, trainer: Trainer) -> list[str]:
    return [finding.code for finding in reading_of(path, trainer).findings]


def _count(found: list[str], code: str) -> int:
    return found.count(code)


def test_alpha_that_a_transformer_ignores_is_said(tmp_path: Path) -> None:
    path = changed("ai_toolkit.yaml", "linear_alpha: 16", "linear_alpha: 1", tmp_path)
    assert "SF715" not in codes(reading_of(path, "ai_toolkit"))
    path.write_text(path.read_text(encoding="utf-8").replace("arch: sd1", "arch: flux"), "utf-8")
    reading = reading_of(path, "ai_toolkit")
    assert "SF715" in codes(reading)
    assert reading.run.settings["tuning.alpha"].value == 16.0


def test_rounding_that_loses_every_step_is_said_for_whole_models_in_bf16(tmp_path: Path) -> None:
    off = "scale_parameter: true\n          stochastic_rounding: false"
    path = changed("ai_toolkit.yaml", "scale_parameter: true", off, tmp_path)
    assert "SF712" not in codes(reading_of(path, "ai_toolkit"))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("network: {type: dora, linear: 16, linear_alpha: 16}\n", "\n"))
    assert "SF712" in codes(reading_of(path, "ai_toolkit"))


def test_env_file_is_read_with_its_remarks_and_quotes() -> None:
    reading = reading_of(FILES / "simpletuner.env", "simpletuner")
    assert reading.config.tuning.kind == "dora"
    assert reading.config.optimizer.lr == 1e-4
    assert reading.config.train.steps == 2000
    assert reading.config.schedule.kind == "polynomial"


def test_variables_of_a_script_are_put_in_and_it_is_not_run() -> None:
    reading = reading_of(FILES / "sd_scripts.sh", "sd_scripts")
    assert reading.run.settings["model.path"].value == "/models/sd_xl.safetensors"
    assert reading.run.family == "sdxl"
    assert reading.config.tuning.kind == "dora"


def test_window_of_kohya_counts_its_warm_up_in_percent(tmp_path: Path) -> None:
    path = changed("kohya_window.json", '"lr_warmup": 0', '"lr_warmup": 10', tmp_path)
    path.write_text(
        path.read_text(encoding="utf-8").replace('"optimizer": "Adafactor"', '"optimizer": "AdamW"')
        .replace('"lr_scheduler": "adafactor"', '"lr_scheduler": "cosine"'), encoding="utf-8"
    )  # fmt: skip
    config = reading_of(path, "sd_scripts").config
    assert config.optimizer.kind == "adamw"
    assert config.schedule.warmup_fraction == 0.1
    assert config.optimizer.lr == 1.0


@pytest.mark.parametrize(
    ("name", "trainer"), [*((name, trainer) for name, trainer, *_rest in MISFITS),
                          ("diffusers.sh", "diffusers"), ("simpletuner.env", "simpletuner")]
)  # fmt: skip
def test_run_toml_loads_if_surefoot_has_the_family(
    name: str, trainer: Trainer, tmp_path: Path
) -> None:
    reading = reading_of(FILES / name, trainer)
    text = run_toml(reading.run, name)
    path = tmp_path / "run.toml"
    family = f'family = "{reading.run.family}"'
    assert family in text or "family" not in reading.run.settings
    path.write_text(text.replace(family, 'family = "sd15"'), encoding="utf-8")
    assert load(path).config == reading.config


@pytest.mark.parametrize("trainer", [name for name in TRAINER_NAMES if name != "onetrainer"])
def test_every_documented_key_and_one_made_up_is_accounted_for_once(trainer: Trainer) -> None:
    name = next((name for name, whose, *_rest in MISFITS if whose == trainer), "diffusers.sh")
    theirs = recognise(FILES / name)
    assert theirs is not None
    prefix = "config.process.0." if trainer == "ai_toolkit" else ""
    given = dict(theirs.document.values)
    flat = {key.rpartition(".")[2] for key in given} if trainer == "sd_scripts" else set[str]()
    for key in KnownKeys(trainer).names:
        whole = key if key in ("job", "config.name") else f"{prefix}{key}"
        if key not in flat and f"--{key}" not in given:
            given.setdefault(whole, None)
    given[f"{prefix}wholly_made_up"] = 1
    document = Document(
        theirs.document.format, given, dict.fromkeys(given, 1), theirs.document.script
    )
    (reading, *_others) = readings(Theirs(trainer, document, ""), FILES / name)
    named = [note.key for note in reading.run.notes]
    assert sorted(named) == sorted(given)
    unknown = [item.path for item in reading.findings if item.code in ("SF701", "SF720")]
    assert f"{prefix}wholly_made_up" in unknown
    assert all(note.reason for note in reading.run.notes if note.fate != "kept")
