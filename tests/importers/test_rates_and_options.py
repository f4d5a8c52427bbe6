"""Rates of parts and options of adapters arrive in the run.toml, from every trainer with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surefoot.config.load import load
from surefoot.importers.record import Trainer
from surefoot.importers.run_file import run_toml
from tests.importers.readings import FILES, changed, codes, reading_of

ONETRAINER = {
    "__version": 11,
    "training_method": "LORA",
    "model_type": "STABLE_DIFFUSION_15",
    "base_model_name": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "learning_rate": 3e-4,
    "lora_alpha": 16.0,
    "unet": {"train": True},
    "text_encoder": {"train": True, "learning_rate": 1e-5},
    "optimizer": {"__version": 0, "optimizer": "ADAMW"},
}
KOHYA = """\
pretrained_model_name_or_path = "sd15.safetensors"
network_module = "networks.lora"
network_dim = 16
network_alpha = 16
optimizer_type = "AdamW"
learning_rate = 3e-4
text_encoder_lr = [1e-5]
max_train_steps = 1500
train_data_dir = "/data/cat"
"""
LYCORIS = KOHYA.replace("networks.lora", "lycoris.kohya") + 'network_args = ["algo={algorithm}"]\n'
SHELL = "accelerate launch train_dreambooth_lora.py --pretrained_model_name_or_path=sd15 \\\n  "


def onetrainer(tmp_path: Path, **values: object) -> Any:
    path = tmp_path / "onetrainer.json"
    path.write_text(json.dumps({**ONETRAINER, **values}), encoding="utf-8")
    return reading_of(path, "onetrainer")


def kohya(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "kohya.toml"
    path.write_text(text, encoding="utf-8")
    return reading_of(path, "sd_scripts")


def loaded(reading: Any, tmp_path: Path) -> Any:
    path = tmp_path / "run.toml"
    path.write_text(run_toml(reading.run, "theirs"), encoding="utf-8")
    return load(path).config


def test_the_text_encoders_rate_of_onetrainer_is_its_own(tmp_path: Path) -> None:
    reading = onetrainer(tmp_path)
    config = loaded(reading, tmp_path)
    assert config.optimizer.lr == 3e-4
    assert config.optimizer.part_lr == {"text_encoder": 1e-5}
    assert config == reading.config
    assert onetrainer(tmp_path, text_encoder={"train": True}).config.optimizer.part_lr == {}
    own = onetrainer(tmp_path, unet={"train": True, "learning_rate": 1e-4})
    assert own.config.optimizer.lr == 1e-4
    scaled = onetrainer(tmp_path, batch_size=4, learning_rate_scaler="BATCH")
    assert scaled.config.optimizer.part_lr["text_encoder"] == pytest.approx(2e-5)


def test_the_text_encoders_rate_of_sd_scripts_is_its_own(tmp_path: Path) -> None:
    config = loaded(kohya(tmp_path, KOHYA), tmp_path)
    assert (config.optimizer.lr, config.optimizer.part_lr) == (3e-4, {"text_encoder": 1e-5})
    # Without one it has learning_rate, whatever the denoiser has.
    text = KOHYA.replace("text_encoder_lr = [1e-5]", "unet_lr = 1e-4")
    config = kohya(tmp_path, text).config
    assert (config.optimizer.lr, config.optimizer.part_lr) == (1e-4, {"text_encoder": 3e-4})


def test_a_rate_of_zero_leaves_the_part_out(tmp_path: Path) -> None:
    config = kohya(tmp_path, KOHYA.replace("[1e-5]", "0")).config
    assert config.tuning.parts == ("unet",)
    assert config.optimizer.part_lr == {}


def test_rates_of_parts_are_no_matter_where_the_optimizer_sets_them(tmp_path: Path) -> None:
    reading = kohya(tmp_path, KOHYA.replace("AdamW", "AdaFactor"))
    assert reading.config.optimizer.part_lr == {}
    assert "SF711" in codes(reading)


def test_a_second_rate_with_one_that_is_found_is_told_in_their_key(tmp_path: Path) -> None:
    text = KOHYA.replace("AdamW", "Prodigy").replace("3e-4", "1.0").replace("[1e-5]", "0.5")
    reading = kohya(tmp_path, text)
    found = next(finding for finding in reading.findings if finding.code == "SF145")
    assert found.path == "text_encoder_lr"
    assert "SF145" not in codes(kohya(tmp_path, text.replace("0.5", "1.0")))


def test_the_scripts_of_diffusers_have_a_rate_for_the_text_encoder(tmp_path: Path) -> None:
    path = tmp_path / "train.sh"
    path.write_text(
        SHELL + "--instance_data_dir=/data --train_text_encoder --learning_rate=1e-4 "
        "--text_encoder_lr=5e-6 --lora_dropout=0.1\n",
        encoding="utf-8",
    )
    config = reading_of(path, "diffusers").config
    assert config.optimizer.part_lr == {"text_encoder": 5e-6}
    assert config.tuning.model_dump()["dropout"] == 0.1


def test_onetrainers_axis_dropout_and_kronecker_factor_are_kept(tmp_path: Path) -> None:
    dora = onetrainer(tmp_path, lora_decompose=True, dropout_probability=0.2)
    assert (dora.config.tuning.norm_axis, dora.config.tuning.dropout) == ("input", 0.2)
    assert "SF146" in codes(dora)
    output = onetrainer(tmp_path, lora_decompose=True, lora_decompose_output_axis=True)
    assert output.config.tuning.norm_axis == "output"
    lokr = onetrainer(
        tmp_path, peft_type="LOKR", lokr_dim=8, lokr_decompose_factor=6, lokr_decompose_both=True
    ).config.tuning
    assert (lokr.kind, lokr.rank, lokr.factor, lokr.decompose_both) == ("lokr", 8, 6, True)
    assert onetrainer(tmp_path, peft_type="LOHA").config.tuning.kind == "loha"


def test_the_options_of_lycoris_and_sd_scripts_are_kept(tmp_path: Path) -> None:
    plain = kohya(tmp_path, KOHYA + "network_dropout = 0.1\nscale_weight_norms = 1.0\n").config
    assert (plain.tuning.dropout, plain.tuning.max_norm) == (0.1, 1.0)
    dora = LYCORIS.replace("algo={algorithm}", 'algo=lora", "dora_wd=True", "wd_on_output=False')
    reading = kohya(tmp_path, dora + "network_dropout = 0.1\n")
    assert (reading.config.tuning.kind, reading.config.tuning.norm_axis) == ("dora", "input")
    assert reading.config.tuning.dropout == 0
    lokr = LYCORIS.replace("algo={algorithm}", 'algo=lokr", "factor=8", "rs_lora=True')
    tuning = kohya(tmp_path, lokr).config.tuning
    assert (tuning.kind, tuning.factor, tuning.rslora) == ("lokr", 8, True)


CASES: list[tuple[str, Trainer, str, str]] = [
    ("ai_toolkit.yaml", "ai_toolkit", "linear_alpha: 16", "linear_alpha: 16, dropout: 0.25"),
    ("simpletuner.json", "simpletuner", '"--lora_rank": 16', '"--lora_rank": 16, '
     '"--lora_dropout": 0.25'),
    ("diffusion_pipe.toml", "diffusion_pipe", "rank = 32", "rank = 32\ndropout = 0.25"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "trainer", "old", "new"), CASES)
def test_dropout_is_kept(name: str, trainer: Trainer, old: str, new: str, tmp_path: Path) -> None:
    reading = reading_of(changed(name, old, new, tmp_path), trainer)
    assert reading.config.tuning.model_dump()["dropout"] == 0.25


def test_simpletuner_drops_a_tenth_unless_told_otherwise() -> None:
    reading = reading_of(FILES / "simpletuner.json", "simpletuner")
    assert reading.config.tuning.model_dump()["dropout"] == 0.1


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("sd_scripts.toml", "[optim]\n", "[optim]\nzero_terminal_snr = true\nmin_snr_gamma = 5\n"),
        (
            "onetrainer_adaptive.json",
            "{",
            '{"rescale_noise_scheduler_to_zero_terminal_snr": true, ',
        ),
    ],
)
def test_zero_terminal_snr_is_taken_over(name: str, old: str, new: str, tmp_path: Path) -> None:
    text = (FILES / name).read_text(encoding="utf-8").replace(old, new, 1)
    (tmp_path / name).write_text(text, encoding="utf-8")
    trainer: Trainer = "sd_scripts" if name == "sd_scripts.toml" else "onetrainer"
    settings = reading_of(tmp_path / name, trainer).run.settings
    assert settings["model.zero_terminal_snr"].value is True


def test_options_of_its_training_scripts_are_no_unknown_keys(tmp_path: Path) -> None:
    keys = "lowram = true\nsdpa = true\nno_half_vae = true\ncache_text_encoder_outputs = true\n"
    file = changed("sd_scripts.toml", "[optim]\n", f"[optim]\n{keys}", tmp_path)
    unknown = [item for item in reading_of(file, "sd_scripts").findings if item.code == "SF701"]
    assert [item.values["key"] for item in unknown] == ["optim.nework_dim"]


def test_a_value_that_stands_there_already_is_no_remedy(tmp_path: Path) -> None:
    file = tmp_path / "their.toml"
    file.write_text(
        'network_module = "networks.lora"\nnetwork_dim = 16\noptimizer_type = "AdaFactor"\n'
        "learning_rate = 1e-4\n",
        encoding="utf-8",
    )
    remedies = [
        (change.path, float(change.value), float(change.before))
        for finding in reading_of(file, "sd_scripts").findings
        for change in finding.changes
        if change.path == "learning_rate"
    ]
    assert [item for item in remedies if item[1] == item[2]] == []
