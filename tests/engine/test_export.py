"""What is exported draws, in diffusers, the pictures that the trained run draws."""

# diffusers exports lazily and annotates outputs as tuples and loaders as pairs.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from safetensors import safe_open

from surefoot.adapters.comfyui import straightened
from surefoot.engine.assemble import open_checkpoints
from surefoot.engine.checkpoint import State
from surefoot.engine.sample import sample_run
from surefoot.formats.adapter_file import open_adapter
from surefoot.formats.weights import WeightsError
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
    small = prepare(tmp_path, values, tuning=tuning)
    export = train(small).export
    with safe_open(export, "pt") as file:
        metadata = file.metadata()
    base = Path(values["model"]["path"]) / "unet" / "diffusion_pytorch_model.safetensors"
    own = {
        "tuning": "dora",
        "norm_axis": "output",
        "rank": "2",
        "alpha": "3",
        "base": values["model"]["path"],
        "format": "diffusers",
        "steps": "5",
        "run_toml": small.loaded.text,
        "base_sha256": json.dumps({"unet": hashlib.sha256(base.read_bytes()).hexdigest()}),
    }
    assert {key: metadata[f"surefoot_{key}"] for key in own} == own
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.resolution"] == f"{SIDE}x{SIDE}"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert metadata["ss_network_dim"] == "2"
    assert metadata["ss_network_alpha"] == "3"
    assert metadata["ss_num_train_images"] == "4"
    assert json.loads(metadata["ss_tag_frequency"])["1_pictures"]["red"] == 4
    args = json.loads(metadata["ss_network_args"])
    assert args == {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"}
    content = export.read_bytes()
    tensors = content[8 + int.from_bytes(content[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(tensors).hexdigest()


def test_every_format_asked_for_is_written_with_the_same_effect(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(
        tmp_path,
        values,
        tuning={"kind": "dora", "rank": 2, "alpha": 3.0, "targets": "all"},
        save__formats=["comfyui-compat", "diffusers", "onetrainer-original"],
    )
    assert train(small).export == small.folder / "small.safetensors"
    files = {
        name: open_adapter(small.folder / f"small{ending}.safetensors")
        for name, ending in (
            ("comfyui-compat", ""),
            ("diffusers", "-diffusers"),
            ("onetrainer-original", "-onetrainer-original"),
        )
    }
    assert {name: file.format for name, file in files.items()} == {name: name for name in files}
    original = files["onetrainer-original"]
    assert len(original.layers) == len(small.plan.targets["unet"]) > 40
    networks = StableDiffusionPipeline.from_pretrained(values["model"]["path"])
    for layer in original.layers:
        assert all(set(file.layers) == set(original.layers) for file in files.values())
        weight = networks.unet.get_submodule(layer.removeprefix("unet.")).weight.detach()
        compat = straightened(files["comfyui-compat"].read_bent(layer), weight)
        expected = original.read(layer)
        assert torch.equal(compat["lora_up"], expected["lora_up"])
        torch.testing.assert_close(compat["magnitude"], expected["magnitude"], rtol=1e-5, atol=1e-6)
        with pytest.raises(WeightsError, match="comfyui-compat"):
            files["comfyui-compat"].read(layer)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_usual_formats_are_those_that_their_readers_take_rightly(
    kind: str, values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, tuning={"kind": kind, "rank": 2})
    train(small)
    written = {path.name for path in small.folder.glob("*.safetensors")}
    kohya = {"small-kohya.safetensors"} if kind == "lora" else set[str]()
    assert written == {"small.safetensors"} | kohya


def test_whole_model_is_on_the_disk_before_it_gets_its_name(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[set[str]] = []

    def sync(folder: Path) -> None:
        files = {path.name for path in folder.rglob("*") if path.is_file()}
        synced.append(files | {f"named: {(folder.parent / 'model').exists()}"})

    monkeypatch.setattr("surefoot.engine.export.sync_tree", sync)
    export = train(prepare(tmp_path, values, tuning={"kind": "full"})).export
    files = {path.name for path in export.rglob("*") if path.is_file()}
    assert synced == [files | {"named: False"}]
