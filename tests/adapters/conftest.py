"""A tiny Stable Diffusion as a folder and as one original file."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.adapters.model_weights import ModelWeights, open_model
from tests.adapters.adapter_files import doras, loras, write
from tests.families.original_layout import write_single_file
from tests.tiny_sd import build_tiny_pipeline


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_tiny_pipeline(3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_file(model_folder: Path) -> Path:
    return write_single_file(build_tiny_pipeline(3), model_folder.with_name("tiny.safetensors"))


@pytest.fixture(scope="session")
def model(model_folder: Path) -> ModelWeights:
    return open_model(str(model_folder))


@pytest.fixture
def adapter(model: ModelWeights, tmp_path: Path) -> Path:
    return write(tmp_path / "a.safetensors", loras(model, alpha=2), "diffusers").path


@pytest.fixture
def dora_file(model: ModelWeights, tmp_path: Path) -> Path:
    return write(tmp_path / "d.safetensors", doras(model), "diffusers", ss_steps="500").path
