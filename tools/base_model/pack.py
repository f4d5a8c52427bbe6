"""Writes what is committed: the pipeline with its card, and the Twemoji example pictures."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.optim.swa_utils import AveragedModel
from transformers import CLIPTokenizer

from tools.base_model import emoji
from tools.base_model.denoiser import (
    BATCH_SIZE,
    NARROWED_FROM,
    Denoiser,
    build_scheduler,
    draw_sheet,
    load_examples,
    make_pipeline,
)

PACKAGE = Path(__file__).parents[2] / "src" / "surefoot" / "builtin"
LARGEST = 24_000_000  # bytes of the whole pipeline
TRAIN_PICTURES, VALIDATION_PICTURES = 200, 100
SHEET_PROMPTS = 32
SPLIT_SEED = 20261124

CARD = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")


def write_pipeline(folder: Path) -> None:
    """Writes the pipeline in fp16 with its card and its sheet."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    average = AveragedModel(Denoiser(tokenizer))
    state = torch.load(folder / "denoiser.pt", weights_only=True)
    average.load_state_dict(state["average"])
    pipeline = make_pipeline(average.module.eval(), autoencoder, tokenizer)
    loss = _loss(folder, average.module, autoencoder, tokenizer)
    target = PACKAGE / "model"
    shutil.rmtree(target, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(target, safe_serialization=True)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    if size > LARGEST:
        raise SystemExit(f"the pipeline takes {size:,} bytes, more than {LARGEST:,}")
    pipeline.to(dtype=torch.float32)  # from fp16 values, as it will be loaded
    everything = emoji.read(folder / "npm")
    items = [item for item in everything if item.kept]
    prompts = tuple(item.caption for item in random.Random(7).sample(items, SHEET_PROMPTS))
    sheet = draw_sheet(pipeline, prompts, columns=8)
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(
        target / "sheet.png"
    )
    figures = json.loads((folder / "vae.json").read_text())
    card = CARD.format(
        everything=len(everything),
        narrowed=f"{1 - NARROWED_FROM:.0%}",
        pictures=len(items),
        version=emoji.VERSION,
        vae_steps=figures["steps"],
        vae_batch=figures["batch_size"],
        vae_seed=figures["seed"],
        psnr_noto=figures["psnr_noto"],
        psnr_twemoji=figures["psnr_twemoji"],
        steps=state["step"],
        batch=BATCH_SIZE,
        seed=figures["seed"],
        numbers=sum(item.numel() for item in average.module.parameters()) / 1e6,
        loss=loss,
        megabytes=size / 1e6,
        prompts="; ".join(prompts),
    )
    (target / "README.md").write_text(card, encoding="utf-8")
    print(f"{target}: {size:,} bytes, step {state['step']}, loss {loss:.4f}")


@torch.no_grad()
def _loss(
    folder: Path, model: Denoiser, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer
) -> float:
    """Epsilon loss on every picture once, at timesteps spread over the schedule."""
    examples = load_examples(folder, autoencoder, tokenizer)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(examples.mean.shape, generator=generator)
    scheduler = build_scheduler()
    timestep = torch.arange(len(noise)) * 997 % 1000
    noisy = scheduler.add_noise(examples.mean, noise, timestep)
    errors = [
        (model(part, steps, tokens[:, 1]) - target).square().mean(dim=(1, 2, 3))
        for part, steps, tokens, target in zip(
            noisy.split(64), timestep.split(64), examples.tokens.split(64), noise.split(64),
            strict=True,
        )
    ]  # fmt: skip
    return torch.cat(errors).mean().item()


def write_pictures(folder: Path) -> None:
    """Writes the Twemoji example set: 200 for training, 100 others held out."""
    items = [item for item in emoji.read(folder / "npm") if item.kept]
    random.Random(SPLIT_SEED).shuffle(items)
    target = PACKAGE / "twemoji"
    shutil.rmtree(target, ignore_errors=True)
    end = TRAIN_PICTURES + VALIDATION_PICTURES
    for name, chosen in (
        ("train", items[:TRAIN_PICTURES]),
        ("validation", items[TRAIN_PICTURES:end]),
    ):
        (target / name).mkdir(parents=True)
        for item in chosen:
            picture = Image.fromarray(emoji.read_picture(folder / "npm", "twitter", item.file_name))
            stem = item.name.replace(" ", "-").replace("'", "")
            picture.save(target / name / f"{stem}.png", optimize=True)
            (target / name / f"{stem}.txt").write_text(item.caption + "\n", encoding="utf-8")
    (target / "LICENSE").write_text(
        "Graphics of this folder: Twemoji, Copyright Twitter, Inc and other contributors,\n"
        "licensed under CC BY 4.0: https://creativecommons.org/licenses/by/4.0/\n"
        "Source: https://github.com/jdecked/twemoji, by the npm package emoji-datasource-twitter\n"
        f"{emoji.VERSION}. Changed: put on white, transparency removed.\n"
        "Captions: names of the same package, MIT, Copyright (c) 2013 Cal Henderson.\n",
        encoding="utf-8",
    )
    print(f"{target}: {TRAIN_PICTURES} + {VALIDATION_PICTURES} pictures")
