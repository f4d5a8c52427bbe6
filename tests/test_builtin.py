"""The model and the pictures that come along are what their card says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
)

from surefoot.builtin import BUILTIN_MODEL, BUILTIN_TRAIN, BUILTIN_VALIDATION, DEMO_RUN
from surefoot.config.load import load
from surefoot.data.scan import scan_folder
from surefoot.judging import judge

LARGEST = 24_000_000  # bytes


def captions(folder: Path) -> list[str]:
    scan = scan_folder(folder, need_captions=True)
    assert scan.problems == ()
    return [example.captions[0] for example in scan.examples]


def test_model_is_small() -> None:
    assert sum(path.stat().st_size for path in BUILTIN_MODEL.rglob("*")) <= LARGEST


def test_diffusers_loads_the_model_and_its_pictures_follow_the_prompt() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(BUILTIN_MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pictures, _ = pipeline(
        ["tangerine, food fruit", "cactus, plant other"],
        num_inference_steps=15,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(0) for _ in range(2)],
        output_type="np",
        return_dict=False,
    )
    orange, green = np.asarray(pictures)
    assert orange.shape == (64, 64, 3)
    # The middle of a tangerine is orange, that of a cactus green.
    middle = slice(24, 40)
    red, leaf = (picture[middle, middle].mean(axis=(0, 1)) for picture in (orange, green))
    assert red[0] > red[1] > red[2]
    assert leaf[1] > leaf[0]


def test_training_and_held_out_pictures_are_different_things() -> None:
    train, held_out = captions(BUILTIN_TRAIN), captions(BUILTIN_VALIDATION)
    assert (len(train), len(held_out)) == (200, 100)
    assert set(train).isdisjoint(held_out)


def test_demo_shows_four_things_that_it_trains_on_and_then_four_that_it_does_not() -> None:
    trained = captions(BUILTIN_TRAIN)
    shown = load(DEMO_RUN).config.preview.prompts
    assert [prompt in trained for prompt in shown] == [True] * 4 + [False] * 4


def test_the_demo_passes_every_rule() -> None:
    levels = {finding.level for finding in judge(DEMO_RUN).findings}
    assert levels <= {"note"}
