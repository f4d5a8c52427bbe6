"""A tiny Stable Diffusion as a folder and as one original file."""

from __future__ import annotations

from pathlib import Path

import pytest

from surefoot.adapters.model_weights import ModelWeights, open_model
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
