"""What the survey finds of a model; all that is wrong with it becomes a finding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from surefoot.builtin import BUILTIN_MODEL
from surefoot.config.load import load
from surefoot.finding import Finding
from surefoot.survey import Survey, survey
from tests.run_files import write_run
from tests.tiny_sd import build_tiny_pipeline

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
CONFIGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_pipeline(0).save_pretrained(folder)
    return folder


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(tiny, tmp_path / "model")


@pytest.fixture
def single_file(tiny: Path, tmp_path: Path) -> Path:
    """The names of an original checkpoint; what is behind the prefixes does not matter here."""
    tensors = {
        **{
            f"model.diffusion_model.{name}": value for name, value in load_file(tiny / UNET).items()
        },
        **{
            f"cond_stage_model.transformer.{name}": value
            for name, value in load_file(tiny / TEXT_ENCODER).items()
        },
        **{f"first_stage_model.{name}": value for name, value in load_file(tiny / VAE).items()},
    }
    path = tmp_path / "whole.safetensors"
    save_file(tensors, path)
    return path


def survey_of(run_file: Path) -> Survey:
    return survey(load(run_file))


def surveyed(folder: Path, path: Path | str, **changes: Any) -> Survey:
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return survey_of(write_run(folder, {"model.path": str(path), **dotted}))


def only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def edit_json(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, **changes}), encoding="utf-8")


def test_diffusers_folder_is_described_by_its_files(model: Path, tmp_path: Path) -> None:
    found = surveyed(tmp_path, model)
    assert found.findings == ()
    assert found.model.source == "folder"
    assert found.model.path == model
    assert found.model.prediction == "epsilon"
    # 8x8 latents of a VAE with four blocks, which halves three times; a UNet of two levels.
    assert (found.model.sample_size, found.model.vae_factor, found.model.unet_levels) == (64, 8, 2)
    assert set(found.model.parts) == {"unet", "text_encoder"}
    weights = load_file(model / UNET)
    unet = found.model.parts["unet"]
    assert {name: header.shape for name, header in unet.headers.items()} == {
        name: tuple(tensor.shape) for name, tensor in weights.items()
    }
    name = "conv_in.weight"
    assert unet.rms(name) == pytest.approx(np.sqrt(np.mean(weights[name].numpy() ** 2)), rel=1e-6)


def test_prediction_and_size_are_read_from_the_configs(model: Path, tmp_path: Path) -> None:
    edit_json(model / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    edit_json(model / "unet/config.json", sample_size=12)
    edit_json(model / "vae/config.json", block_out_channels=[4, 4])
    found = surveyed(tmp_path, model).model
    assert (found.prediction, found.sample_size, found.vae_factor) == ("v_prediction", 24, 2)


def test_size_that_the_config_leaves_open_is_that_of_stable_diffusion(
    model: Path, tmp_path: Path
) -> None:
    edit_json(model / "unet/config.json", sample_size=None)
    assert surveyed(tmp_path, model).model.sample_size == 512


@pytest.mark.parametrize(
    "lost", ["model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"]
)
def test_model_folder_that_lacks_a_part_is_named_with_the_part(
    lost: str, model: Path, tmp_path: Path
) -> None:
    if (model / lost).is_dir():
        shutil.rmtree(model / lost)
    else:
        (model / lost).unlink()
    found = surveyed(tmp_path, model)
    assert only(found.findings).code == "SF022"
    assert only(found.findings).path == "model.path"
    assert only(found.findings).values == {"folder": str(model), "missing": lost}
    assert found.model.parts == {}


def test_all_parts_that_a_model_folder_lacks_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    values = only(surveyed(tmp_path, tmp_path / "empty").findings).values
    names = "model_index.json, unet, vae, text_encoder, tokenizer, scheduler"
    assert values["missing"] == names


def test_part_with_pickled_weights_alone_counts_as_lacking(model: Path, tmp_path: Path) -> None:
    (model / UNET).rename(model / "unet/diffusion_pytorch_model.bin")
    assert only(surveyed(tmp_path, model).findings).values["missing"] == "unet"


def test_half_precision_variant_beside_the_weights_is_not_taken(
    model: Path, tmp_path: Path
) -> None:
    save_file({"x": torch.zeros(1)}, model / "unet/diffusion_pytorch_model.fp16.safetensors")
    assert surveyed(tmp_path, model).model.parts["unet"].file == model / UNET


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 20_000], ids=repr
)
def test_settings_that_are_no_settings_are_named(
    content: bytes, name: str, model: Path, tmp_path: Path
) -> None:
    (model / name).write_bytes(content)
    found = surveyed(tmp_path, model)
    assert only(found.findings).code == "SF023"
    assert only(found.findings).values["file"] == str(model / name)
    assert found.model.parts == {}


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("scheduler/scheduler_config.json", "prediction_type", "sample"),
        ("scheduler/scheduler_config.json", "prediction_type", ["epsilon"]),
        ("scheduler/scheduler_config.json", "prediction_type", None),
        ("model_index.json", "_class_name", "StableDiffusionXLPipeline"),
        ("model_index.json", "_class_name", None),
        ("unet/config.json", "block_out_channels", []),
        ("unet/config.json", "block_out_channels", None),
        ("vae/config.json", "block_out_channels", 4),
        ("vae/config.json", "block_out_channels", {}),
        ("unet/config.json", "sample_size", [8, 8]),
        ("unet/config.json", "sample_size", 0),
        ("unet/config.json", "sample_size", True),
        ("unet/config.json", "sample_size", "8"),
    ],
)
def test_setting_of_a_model_that_cannot_be_trained_is_named(
    name: str, key: str, value: object, model: Path, tmp_path: Path
) -> None:
    edit_json(model / name, **{key: value})
    found = surveyed(tmp_path, model)
    assert only(found.findings).code == "SF023"
    reason = f"{key} = {json.dumps(value)}"
    assert only(found.findings).values == {"file": str(model / name), "reason": reason}
    assert found.model.parts == {}


def test_all_damaged_files_of_a_model_are_named_at_once(model: Path, tmp_path: Path) -> None:
    for name in (UNET, VAE):
        (model / name).write_bytes((model / name).read_bytes()[:-1])
    (model / TEXT_ENCODER).write_bytes(b"")
    (model / "vae/config.json").write_text("{}", encoding="utf-8")
    (model / "scheduler/scheduler_config.json").write_text("?", encoding="utf-8")
    findings = surveyed(tmp_path, model).findings
    assert {finding.code for finding in findings} == {"SF023"}
    names = (UNET, VAE, TEXT_ENCODER, "vae/config.json", "scheduler/scheduler_config.json")
    assert {finding.values["file"] for finding in findings} == {str(model / name) for name in names}


def test_single_file_is_read_by_its_prefixes(single_file: Path, tiny: Path, tmp_path: Path) -> None:
    found = surveyed(tmp_path, single_file)
    assert found.findings == ()
    assert found.model.source == "single_file"
    assert set(found.model.parts) == {"unet", "text_encoder"}
    weights = load_file(tiny / TEXT_ENCODER)
    part = found.model.parts["text_encoder"]
    assert set(part.headers) == set(weights)
    for name in list(weights)[:5]:
        expected = np.sqrt(np.mean(weights[name].numpy().astype(np.float64) ** 2))
        assert part.rms(name) == pytest.approx(expected, rel=1e-6)
    # Nothing in it says so; without a config it is taken for Stable Diffusion 1.5.
    assert (found.model.sample_size, found.model.prediction) == (512, "epsilon")


def test_config_beside_a_single_file_describes_it(
    single_file: Path, model: Path, tmp_path: Path
) -> None:
    edit_json(model / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    found = surveyed(tmp_path, single_file, model__config="model")
    assert found.findings == ()
    described = found.model
    assert (described.sample_size, described.vae_factor, described.unet_levels) == (64, 8, 2)
    assert described.prediction == "v_prediction"
    assert described.path == single_file


def test_builtin_can_be_the_config_of_a_single_file(single_file: Path, tmp_path: Path) -> None:
    found = surveyed(tmp_path, single_file, model__config="builtin")
    assert found.findings == ()
    unet = json.loads((BUILTIN_MODEL / "unet/config.json").read_text(encoding="utf-8"))
    assert found.model.unet_levels == len(unet["block_out_channels"])


@pytest.mark.parametrize(
    ("given", "code"),
    [("nowhere", "SF020"), ("no-such-owner/no-such-model", "SF021"), ("pictures", "SF022")],
)
def test_config_of_a_single_file_that_is_none_is_named(
    given: str, code: str, single_file: Path, tmp_path: Path
) -> None:
    finding = only(surveyed(tmp_path, single_file, model__config=given).findings)
    assert (finding.code, finding.path) == (code, "model.config")


def test_single_file_that_is_a_lora_or_a_part_is_named(
    single_file: Path, tiny: Path, tmp_path: Path
) -> None:
    save_file(load_file(tiny / UNET), single_file)
    finding = only(surveyed(tmp_path, single_file).findings)
    assert finding.code == "SF025"
    assert finding.values == {"file": str(single_file), "missing": "unet, text_encoder"}


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin", "model"])
def test_pickled_checkpoint_is_never_opened(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / name)
    finding = only(surveyed(tmp_path, tmp_path / name).findings)
    assert finding.code == "SF024"
    assert finding.values == {"file": str(tmp_path / name)}


@pytest.mark.parametrize("keep", [0, 7, 100])
def test_single_file_that_is_cut_short_is_named(
    keep: int, single_file: Path, tmp_path: Path
) -> None:
    single_file.write_bytes(single_file.read_bytes()[:keep])
    finding = only(surveyed(tmp_path, single_file).findings)
    assert finding.code == "SF023"
    assert finding.values["file"] == str(single_file)


def test_hub_id_that_was_never_downloaded_is_named(tmp_path: Path) -> None:
    finding = only(surveyed(tmp_path, "no-such-owner/no-such-model").findings)
    assert finding.code == "SF021"
    assert finding.values == {"given": "no-such-owner/no-such-model"}


def test_hub_id_that_was_downloaded_is_found_without_a_network(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub/models--owner--name"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(model, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(commit, encoding="utf-8")
    found = surveyed(tmp_path, "owner/name")
    assert found.findings == ()
    assert found.model.path == cached / "snapshots" / commit
    assert found.model.sample_size == 64
