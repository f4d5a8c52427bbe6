"""The loss and the gradients of a step, against a training loop written with diffusers alone."""

# diffusers exports lazily and annotates outputs as tuples and loaders as pairs.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from surefoot.data.batches import Batches, step_generator
from surefoot.data.randomness import torch_generator
from surefoot.data.views import Source
from surefoot.engine import loop
from surefoot.engine.session import Session
from tests.engine.small_runs import (
    prepare,
    quiet_reporter,
    session_of,
    settings,
    write_model,
    write_pictures,
)

SEED = 5


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("plain")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 5)
    written = settings(model, pictures, pictures)
    written["seed"] = SEED
    written["tuning"] = {"kind": "full", "parts": ["unet", "text_encoder"]}
    written["validation"] = {"folder": "off"}
    written["train"] |= {"steps": 1, "batch_size": 3}
    return written


def gradients_of_one_step(session: Session) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients with which the loop calls the optimizer."""
    found: dict[str, Tensor] = {}

    def step() -> None:
        for item in session.tuned.trainables:
            assert item.parameter.grad is not None, item.name
            found[item.name] = item.parameter.grad.clone()

    losses: list[float] = []

    def scalars(event: str, done: int, **numbers: float) -> None:
        assert done == 1
        if event == "step":
            losses.append(numbers["loss"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session.optimizer, "step", step)
        patch.setattr(session.events, "scalars", scalars)
        loop.train(session, quiet_reporter())
    return losses[0], found


def is_dropped(position: int, dropout: float) -> bool:
    return bool(step_generator(SEED, "caption", 0, position).random() < dropout)


def plain_loss(
    pipeline: StableDiffusionPipeline, session: Session, part: int, parts: int, dropout: float
) -> Tensor:
    """What the loss of one micro-batch at the first step should be."""
    count = len(session.pictures.views)
    indices = Batches([Source((0,) * count, count)], 3, SEED).at(0, part, parts)
    places = range(part * len(indices), (part + 1) * len(indices))
    draws = [torch_generator(SEED, "step", 0, place) for place in places]
    examples = [session.pictures.views[index].example for index in indices]
    captions = [
        "" if is_dropped(place, dropout) else example.captions[0]
        for place, example in zip(places, examples, strict=True)
    ]
    tokens = pipeline.tokenizer(
        captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    states = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    pixels = torch.cat([pipeline.image_processor.preprocess(_open(x.path)) for x in examples])
    with torch.no_grad():
        posterior = pipeline.vae.encode(pixels).latent_dist
        jitter = torch.stack([torch.randn(4, 8, 8, generator=draw) for draw in draws])
        latents = (posterior.mean + posterior.std * jitter) * pipeline.vae.config["scaling_factor"]
    noise = torch.stack([torch.randn(4, 8, 8, generator=draw) for draw in draws])
    timestep = torch.cat([torch.randint(0, 1000, (1,), generator=draw) for draw in draws])
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    noisy = scheduler.add_noise(latents, noise, timestep)
    output = pipeline.unet(noisy, timestep, encoder_hidden_states=states).sample
    return F.mse_loss(output, noise)


def _open(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_loss_and_gradients_are_those_of_a_plain_loop(
    dropout: float, parts: int, values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, train__gradient_accumulation=parts, captions__dropout=dropout)
    pipeline = StableDiffusionPipeline.from_pretrained(values["model"]["path"])
    with session_of(small) as session:
        expected = sum(
            (plain_loss(pipeline, session, part, parts, dropout) for part in range(parts)),
            start=torch.zeros(()),
        )
        loss, gradients = gradients_of_one_step(session)
    expected = expected / parts
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    theirs = {
        f"{name}.{path}": parameter.grad
        for name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
        for path, parameter in part.named_parameters()
    }
    assert gradients.keys() == theirs.keys()
    # Relative to the largest gradient of the network: fp32, with the pictures encoded in a batch
    # there and one by one here.
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    assert largest > 1e-3
    for name, gradient in theirs.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5 * largest)


def test_half_of_the_captions_of_that_seed_are_dropped(values: dict[str, Any]) -> None:
    # Else the comparison above would not show what dropout does.
    assert 0 < sum(is_dropped(position, 0.5) for position in range(3)) < 3
    assert values["seed"] == SEED


def test_gradients_of_a_step_are_the_mean_over_its_micro_batches(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = prepare(tmp_path, values, train__gradient_accumulation=4)
    asked: list[tuple[int, int]] = []
    with session_of(small) as session:
        weight = session.tuned.trainables[0].parameter

        def stub(_session: Session, step: int, part: int) -> Tensor:
            asked.append((step, part))
            total = sum((x.parameter.sum() for x in session.tuned.trainables), torch.zeros(()))
            slope = weight.sum() * (part + 1) + 0 * total
            return part + slope - slope.detach()

        monkeypatch.setattr(loop, "_loss", stub)
        loss, gradients = gradients_of_one_step(session)
    assert asked == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert loss == pytest.approx((0 + 1 + 2 + 3) / 4)
    expected = torch.full_like(weight, (1 + 2 + 3 + 4) / 4)
    torch.testing.assert_close(gradients[session.tuned.trainables[0].name], expected)
    assert not any(gradient.any() for name, gradient in list(gradients.items())[1:])


def test_min_snr_weights_each_picture_by_its_own_noise_level(
    values: dict[str, Any], tmp_path: Path
) -> None:
    small = prepare(tmp_path, values, objective={"snr_gamma": 0.1}, captions__dropout=0.0)
    pipeline = StableDiffusionPipeline.from_pretrained(values["model"]["path"])
    losses: list[Tensor] = []

    def each(output: Tensor, noise: Tensor) -> Tensor:
        losses.extend((output - noise).double().square().mean(dim=(1, 2, 3)).detach())
        return (output - noise).square().mean()

    with pytest.MonkeyPatch.context() as patch, session_of(small) as session:
        patch.setattr(F, "mse_loss", each)
        plain_loss(pipeline, session, 0, 1, 0.0)
        loss, _ = gradients_of_one_step(session)
    draws = [torch_generator(SEED, "step", 0, place) for place in range(3)]
    for draw in draws:
        torch.randn(2, 4, 8, 8, generator=draw)  # latents and noise
    timestep = torch.cat([torch.randint(0, 1000, (1,), generator=draw) for draw in draws])
    alpha = pipeline.scheduler.alphas_cumprod.double()[timestep]
    snr = alpha / (1 - alpha)
    weights = snr.clamp(max=0.1) / snr
    assert weights.unique().numel() > 1
    expected = (torch.stack(losses) * weights).mean()
    assert loss == pytest.approx(float(expected), abs=1e-6)
