"""Stable Diffusion from a folder and from a single file."""

# diffusers exports lazily and annotates outputs as tuples and loaders as pairs.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from surefoot.builtin import BUILTIN_MODEL
from surefoot.engine.events import read_events
from surefoot.engine.loop import train
from surefoot.families import sd15
from surefoot.families.sd15 import StableDiffusion
from tests.engine.small_runs import (
    SIDE,
    SmallRun,
    prepare,
    quiet_reporter,
    session_of,
    settings,
    write_model,
    write_pictures,
)
from tests.families.original_layout import write_single_file
from tests.tiny_sd import build_tiny_pipeline

CPU = torch.device("cpu")
CAPTIONS = ["red apple, food", "", "a much longer caption of many words, and a comma"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data") / "pictures", 4)


def load_folder(path: Path, prediction: str = "epsilon") -> StableDiffusion:
    return sd15.load(path, single_file=False, config="", prediction=prediction, device=CPU)


def plain_pipeline(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def inputs(family: StableDiffusion) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, SIDE, SIDE, generator=generator) * 2 - 1
    latents = family.encode_images(pixels).mean
    return pixels, torch.randn(latents.shape, generator=generator), torch.tensor([0, 480, 999])


@torch.no_grad()
def test_folder_answers_as_the_pipeline_of_diffusers(tiny: Path) -> None:
    family, pipeline = load_folder(tiny), plain_pipeline(tiny)
    pixels, noisy, timestep = inputs(family)
    posterior = family.encode_images(pixels)
    theirs = pipeline.vae.encode(pixels).latent_dist
    factor = pipeline.vae.config["scaling_factor"]
    assert factor != 1
    torch.testing.assert_close(posterior.mean, theirs.mean * factor, rtol=0, atol=0)
    torch.testing.assert_close(posterior.std, theirs.std * factor, rtol=0, atol=0)
    tokens = pipeline.tokenizer(
        CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    states = family.encode_captions(CAPTIONS)
    torch.testing.assert_close(states, pipeline.text_encoder(tokens.input_ids)[0], rtol=0, atol=0)
    expected = pipeline.unet(noisy, timestep, encoder_hidden_states=states).sample
    torch.testing.assert_close(family.denoise(noisy, timestep, states), expected, rtol=0, atol=0)
    expected_alphas = pipeline.scheduler.alphas_cumprod
    assert torch.equal(family.noise_schedule.alphas_cumprod, expected_alphas)


def test_caption_longer_than_the_encoder_is_cut(tiny: Path) -> None:
    family = load_folder(tiny)
    states = family.encode_captions(["word " * 100, "word " * 100 + "more"])
    assert states.shape == (2, 77, 16)
    assert torch.equal(states[0], states[1])


def test_pictures_are_those_of_the_pipeline_and_of_their_seeds(tiny: Path) -> None:
    family, pipeline = load_folder(tiny), plain_pipeline(tiny)
    how = {"resolution": SIDE, "steps": 2, "guidance": 3.0}
    together = family.sample(["a", "b"], **how, seeds=[5, 6])
    (alone,) = family.sample(["b"], **how, seeds=[6])
    # The size of a batch decides in which order a sum is taken: one level of 255 may differ.
    difference = np.asarray(together[1]).astype(int) - np.asarray(alone).astype(int)
    assert np.abs(difference).max() <= 1
    assert together[0].tobytes() != alone.tobytes()
    theirs = pipeline(
        ["b"],
        height=SIDE,
        width=SIDE,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(6),
    ).images
    assert alone.tobytes() == theirs[0].tobytes()


def test_saved_folder_is_loaded_by_diffusers_with_the_same_weights(
    tiny: Path, tmp_path: Path
) -> None:
    family = load_folder(tiny)
    with torch.no_grad():
        for part in family.parts.values():
            next(part.parameters()).add_(1)
    family.save(str(tmp_path / "saved"))
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".bin", ".pt")]
    pipeline = plain_pipeline(tmp_path / "saved")
    for name, theirs in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder)):
        ours = family.parts[name].state_dict()
        assert ours.keys() == theirs.state_dict().keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("model", ["tiny", "built-in"])
def test_single_file_answers_as_the_folder_it_was_made_of(
    model: str, tiny: Path, tmp_path: Path
) -> None:
    folder = tiny if model == "tiny" else BUILTIN_MODEL
    file = write_single_file(plain_pipeline(folder), tmp_path / "model.safetensors")
    expected = load_folder(folder)
    found = sd15.load(file, single_file=True, config=str(folder), prediction="epsilon", device=CPU)
    for name, part in expected.parts.items():
        ours, theirs = found.parts[name].state_dict(), part.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    pixels, noisy, timestep = inputs(expected)
    assert torch.equal(found.encode_images(pixels).mean, expected.encode_images(pixels).mean)
    states = expected.encode_captions(CAPTIONS)
    assert torch.equal(found.encode_captions(CAPTIONS), states)
    answer = expected.denoise(noisy, timestep, states)
    assert torch.equal(found.denoise(noisy, timestep, states), answer)
    vae = expected.vae_weights()
    assert all(torch.equal(value, vae[name]) for name, value in found.vae_weights().items())
    assert found.vae_weights().keys() == vae.keys()


@pytest.mark.parametrize(
    "tuning",
    [
        {"kind": "full", "parts": ["unet", "text_encoder"]},
        {"kind": "lora", "parts": ["unet", "text_encoder"], "rank": 2, "targets": "attention"},
        {"kind": "dora", "parts": ["unet", "text_encoder"], "rank": 2, "targets": "all"},
    ],
    ids=lambda tuning: tuning["kind"],
)
@pytest.mark.parametrize("model", ["tiny", "built-in"])
def test_single_file_is_planned_and_trained_as_its_folder(
    model: str, tuning: dict[str, object], tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = tiny if model == "tiny" else BUILTIN_MODEL
    file = write_single_file(plain_pipeline(folder), tmp_path / "model.safetensors")
    values = settings(folder, pictures, pictures) | {"tuning": tuning}
    values["train"]["steps"] = 2
    values["validation"] = {"folder": "off"}
    of_folder = prepare(tmp_path / "folder", values)
    of_file = prepare(tmp_path / "file", values, model={"path": str(file), "config": str(folder)})
    assert of_file.plan.single_file
    assert not of_folder.plan.single_file
    assert of_file.plan.targets == of_folder.plan.targets
    assert of_file.plan.sheet == of_folder.plan.sheet
    assert of_file.plan.trained_numbers == of_folder.plan.trained_numbers > 0
    assert of_file.plan.resolution == of_folder.plan.resolution
    if model == "tiny":
        assert_trained_alike(of_folder, of_file)


def test_text_encoder_of_a_folder_made_before_transformers_5_is_trained(
    tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    tuning = {"kind": "lora", "parts": ["text_encoder"], "rank": 2, "targets": "attention"}
    folder = tmp_path / "older"
    shutil.copytree(tiny, folder)
    file = folder / "text_encoder" / "model.safetensors"
    older = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(older, file, metadata={"format": "pt"})
    values = settings(tiny, pictures, pictures) | {"tuning": tuning}
    values["train"]["steps"] = 2
    values["validation"] = {"folder": "off"}
    newer = prepare(tmp_path / "newer run", values)
    old = prepare(tmp_path / "older run", values, model__path=str(folder))
    assert old.plan.targets == newer.plan.targets
    assert len(old.plan.targets["text_encoder"]) == 8  # two layers of q, k, v and out
    assert_trained_alike(newer, old)


def assert_trained_alike(first: SmallRun, second: SmallRun) -> None:
    starts, losses = [], []
    for small in (first, second):
        with session_of(small) as session:
            starts.append({x.name: x.parameter.detach().clone() for x in session.tuned.trainables})
            train(session, quiet_reporter())
        losses.append([x["loss"] for x in read_events(small.folder) if x["event"] == "step"])
    assert starts[0].keys() == starts[1].keys()
    assert all(torch.equal(value, starts[1][name]) for name, value in starts[0].items())
    # Not to the bit: the weights lie elsewhere in the file, and sums depend on their alignment.
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert len(set(losses[0])) == 2


def test_v_prediction_trains_on_v_and_the_scheduler_says_so(
    tiny: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = settings(tiny, pictures, pictures)
    small = prepare(tmp_path, values, tuning={"kind": "full"}, model__prediction="v_prediction")
    assert small.plan.prediction == "v_prediction"
    targets = []
    with session_of(small) as session:
        schedule = session.family.noise_schedule
        original = type(schedule).target

        def target(self: object, *parts: torch.Tensor) -> torch.Tensor:
            found = original(schedule, *parts)
            targets.append((schedule.prediction, parts, found))
            return found

        monkeypatch.setattr(type(schedule), "target", target)
        train(session, quiet_reporter())
        session.family.save(str(tmp_path / "saved"))
    reference = DDIMScheduler.from_pretrained(tiny, subfolder="scheduler")
    assert len(targets) > 6
    for prediction, (latents, noise, timestep), found in targets:
        assert prediction == "v_prediction"
        expected = reference.get_velocity(latents, noise, timestep)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert plain_pipeline(tmp_path / "saved").scheduler.config["prediction_type"] == "v_prediction"


@torch.no_grad()
def test_v_prediction_pictures_are_drawn_as_v(tiny: Path) -> None:
    (as_noise,) = load_folder(tiny).sample(["a"], resolution=SIDE, steps=2, guidance=1, seeds=[0])
    family = load_folder(tiny, "v_prediction")
    (as_v,) = family.sample(["a"], resolution=SIDE, steps=2, guidance=1, seeds=[0])
    assert as_noise.tobytes() != as_v.tobytes()


def loss_and_gradients(
    folder: Path, checkpointing: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor | None], int]:
    """Of both parts; and how often one block of each of them was computed."""
    family = load_folder(folder)
    for part in family.parts.values():
        part.requires_grad_(True).train()
    if checkpointing:
        family.enable_gradient_checkpointing()
    computed: list[torch.nn.Module] = []
    block = family.parts["unet"].get_submodule("down_blocks.0.resnets.0")
    layer = family.parts["text_encoder"].get_submodule("encoder.layers.0.mlp")
    for module in (block, layer):
        module.register_forward_pre_hook(lambda module, _: computed.append(module))
    _, noisy, timestep = inputs(family)
    loss = family.denoise(noisy, timestep, family.encode_captions(CAPTIONS)).square().mean()
    loss.backward()
    gradients = {
        f"{name}.{path}": parameter.grad
        for name, part in family.parts.items()
        for path, parameter in part.named_parameters()
    }
    return loss.detach(), gradients, len(computed)


def test_gradient_checkpointing_changes_neither_loss_nor_gradients(tiny: Path) -> None:
    loss, gradients, once = loss_and_gradients(tiny, checkpointing=False)
    again, others, twice = loss_and_gradients(tiny, checkpointing=True)
    assert (once, twice) == (2, 4)
    assert torch.equal(loss, again)
    assert any(name.startswith("text_encoder.") for name in gradients)
    for name, gradient in gradients.items():
        assert gradient is not None, name
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "PNDMScheduler"])
def test_zero_terminal_snr_follows_the_paper_and_reaches_the_previews(
    kind: str, tmp_path: Path
) -> None:
    import diffusers

    pipeline = build_tiny_pipeline(0)
    pipeline.scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config)
    pipeline.save_pretrained(tmp_path)
    before = pipeline.scheduler.alphas_cumprod.double().sqrt().numpy()
    family = sd15.load(
        tmp_path,
        single_file=False,
        config="",
        prediction="v_prediction",
        device=torch.device("cpu"),
        zero_terminal_snr=True,
    )
    # Lin et al. 2023, algorithm 1: shifted to end at zero, scaled to begin where it did.
    expected = ((before - before[-1]) * before[0] / (before[0] - before[-1])) ** 2
    found = family.noise_schedule.alphas_cumprod
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[-1] == 0
    family.save(str(tmp_path / "saved"))
    text = (tmp_path / "saved/scheduler/scheduler_config.json").read_text(encoding="utf-8")
    written = json.loads(text)
    assert written["rescale_betas_zero_snr"] is True
    assert written["timestep_spacing"] == "trailing"
    assert written["prediction_type"] == "v_prediction"
    pictures = family.sample(["a"], resolution=64, steps=2, guidance=2.0, seeds=[0])
    assert pictures[0].size == (64, 64)
