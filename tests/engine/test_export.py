"""What is exported draws, in diffusers, the pictures that the trained run draws."""

# diffusers exports lazily and annotates outputs as tuples and loaders as pairs.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors import safe_open

from surefoot.engine.assemble import open_checkpoints
from surefoot.engine.checkpoint import State
from surefoot.engine.sample import sample_run
from tests.engine.small_runs import (
    SIDE,
    SmallRun,
    prepare,
    settings,
    train,
    write_model,
    write_pictures,
)

PROMPT, SEED, GUIDANCE, DRAWING_STEPS = "shape 3, red", 7, 2.0, 4
# Levels of 255: rounding of the pictures' last step, and fp32 sums in another order.
LARGEST_DIFFERENCE = 2


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("export")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 4)
    written = settings(model, pictures, pictures)
    written["validation"] = {"folder": "off"}
    written["optimizer"] = {"kind": "adafactor", "scale_parameter": "weight", "lr": 0.1}
    written["schedule"] = {"kind": "constant"}
    written["train"]["steps"] = 5
    written["save"]["every"] = 5
    return written


def draw(pipeline: StableDiffusionPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    (picture,) = pipeline(
        [PROMPT],
        height=SIDE,
        width=SIDE,
        num_inference_steps=DRAWING_STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(SEED),
    ).images
    return np.asarray(picture).astype(int)


def pictures_of_the_run(small: SmallRun) -> tuple[np.ndarray, np.ndarray]:
    """By `surefoot sample`: of the base model, and of the trained one."""
    sheet = sample_run(
        small.folder, [PROMPT], seed=SEED, guidance=GUIDANCE, steps=DRAWING_STEPS, out=None
    )
    base, trained = (
        np.asarray(Image.open(sheet.parent / name / "00.png")).astype(int)
        for name in ("base", "trained")
    )
    return base, trained


def difference(first: np.ndarray, second: np.ndarray) -> int:
    assert first.shape == second.shape == (SIDE, SIDE, 3)
    return int(np.abs(first - second).max())


def adapted_modules(pipeline: StableDiffusionPipeline) -> dict[str, int]:
    return {
        name: sum(isinstance(module, BaseTunerLayer) for module in part.modules())
        for name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
    }


@pytest.mark.parametrize("parts", [["unet"], ["unet", "text_encoder"]], ids="+".join)
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_exported_adapter_draws_the_same_in_diffusers(
    kind: str, parts: list[str], values: dict[str, Any], tmp_path: Path
) -> None:
    tuning = {"kind": kind, "rank": 2, "alpha": 3.0, "targets": "all", "parts": parts}
    small = prepare(tmp_path, values, tuning=tuning)
    export = train(small).export
    base, trained = pictures_of_the_run(small)
    pipeline = StableDiffusionPipeline.from_pretrained(values["model"]["path"])
    assert difference(draw(pipeline), base) <= LARGEST_DIFFERENCE

    pipeline.load_lora_weights(str(export))
    planned = {name: len(small.plan.targets.get(name, ())) for name in ("unet", "text_encoder")}
    assert planned["unet"] > 40
    assert bool(planned["text_encoder"]) == ("text_encoder" in parts)
    assert adapted_modules(pipeline) == planned
    with safe_open(export, "pt") as file:
        downs = [file.get_tensor(name) for name in file.keys() if ".lora_A." in name]  # noqa: SIM118
    assert {down.dim() for down in downs} == {2, 4}
    drawn = draw(pipeline)
    assert difference(drawn, trained) <= LARGEST_DIFFERENCE
    assert difference(drawn, base) > 10 * LARGEST_DIFFERENCE
    pipeline.unload_lora_weights()
    assert difference(draw(pipeline), base) <= LARGEST_DIFFERENCE


def test_exported_model_draws_the_same_in_diffusers(values: dict[str, Any], tmp_path: Path) -> None:
    tuning = {"kind": "full", "parts": ["unet", "text_encoder"]}
    small = prepare(tmp_path, values, tuning=tuning, optimizer__lr=0.02)
    export = train(small).export
    assert export == small.folder / "model"
    base, trained = pictures_of_the_run(small)
    drawn = draw(StableDiffusionPipeline.from_pretrained(export))
    assert difference(drawn, trained) <= LARGEST_DIFFERENCE
    assert difference(drawn, base) > 10 * LARGEST_DIFFERENCE
    original = draw(StableDiffusionPipeline.from_pretrained(values["model"]["path"]))
    assert difference(original, base) <= LARGEST_DIFFERENCE
    assert not (small.folder / "model.part").exists()


def test_moving_average_is_what_is_exported_and_drawn(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, train__ema=0.9)
    export = train(small).export
    state = last_state(small)
    assert not any(torch.equal(mean, state.tensors[name]) for name, mean in state.averages.items())
    with safe_open(export, "pt") as file:
        names = list(file.keys())
        for name in names:
            ours = name.replace(".lora_A.weight", ".lora_down").replace(
                ".lora_B.weight", ".lora_up"
            )
            assert torch.equal(file.get_tensor(name), state.averages[ours]), name
    assert len(names) == len(state.averages) == 2 * len(small.plan.targets["unet"])
    _, trained = pictures_of_the_run(small)
    pipeline = StableDiffusionPipeline.from_pretrained(values["model"]["path"])
    pipeline.load_lora_weights(str(export))
    assert difference(draw(pipeline), trained) <= LARGEST_DIFFERENCE


def test_moving_average_of_a_whole_model_is_exported(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, tuning={"kind": "full"}, train__ema=0.9, optimizer__lr=0.02)
    export = train(small).export
    state = last_state(small)
    pipeline = StableDiffusionPipeline.from_pretrained(export)
    exported = {f"unet.{name}": value for name, value in pipeline.unet.named_parameters()}
    assert exported.keys() == state.averages.keys()
    for name, mean in state.averages.items():
        assert torch.equal(exported[name], mean), name
    assert not all(torch.equal(mean, state.tensors[name]) for name, mean in state.averages.items())


def last_state(small: SmallRun) -> State:
    state = open_checkpoints(small.plan).read_last([])
    assert state is not None
    return state


def test_exported_file_says_what_it_is(values: dict[str, Any], tmp_path: Path) -> None:
    tuning = {"kind": "dora", "rank": 2, "alpha": 3.0}
    export = train(prepare(tmp_path, values, tuning=tuning)).export
    with safe_open(export, "pt") as file:
        metadata = file.metadata()
    assert metadata["surefoot_tuning"] == "dora"
    assert metadata["surefoot_rank"] == "2"
    assert metadata["surefoot_alpha"].startswith("3 ")
    assert metadata["surefoot_base"] == values["model"]["path"]


def test_whole_model_is_on_the_disk_before_it_gets_its_name(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[set[str]] = []

    def sync(folder: Path) -> None:
        files = {path.name for path in folder.rglob("*") if path.is_file()}
        synced.append(files | {f"named: {(folder.parent / 'model').exists()}"})

    monkeypatch.setattr("surefoot.engine.run.sync_tree", sync)
    export = train(prepare(tmp_path, values, tuning={"kind": "full"})).export
    files = {path.name for path in export.rglob("*") if path.is_file()}
    assert synced == [files | {"named: False"}]
