"""Trains the autoencoder: 64x64 pixels to 16x16 latents of four channels, and back."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from tools.base_model import emoji

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
# Far above Stable Diffusion's: four channels of like spread suit the one `scaling_factor` that
# the pipeline knows, and a smoother latent space is easier for a small denoiser.
KL_WEIGHT = 1e-3
EMA_DECAY = 0.998
# Four times as many steps a minute as whole pictures; the rest of the time makes the group norms
# used to whole ones.
CROP, CROP_SHARE = 32, 0.65


def build() -> AutoencoderKL:
    """An untrained autoencoder of 0.7 M weights: no attention, one layer a block."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        mid_block_add_attention=False,
        norm_num_groups=8,
        sample_size=emoji.PIXELS,
    )


def to_unit(pictures: torch.Tensor) -> torch.Tensor:
    """`(N, H, W, 3)` uint8 to `(N, 3, H, W)` float in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + 2 L2 + half the L1 of neighbouring differences, which keeps edges sharp."""
    difference = output - target
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return difference.abs().mean() + 2 * difference.square().mean() + 0.5 * edges


def augment(batch: torch.Tensor, crop: int, generator: torch.Generator) -> torch.Tensor:
    """Flips, rolls and square crops; colours stay: shuffled ones were seen to leave it grey."""
    if torch.rand((), generator=generator) < 0.5:
        batch = batch.flip(-1)
    shifts = torch.randint(-emoji.PIXELS, emoji.PIXELS, (2,), generator=generator).tolist()
    if crop == emoji.PIXELS:
        shifts = [shift // 8 for shift in shifts]
    return batch.roll(shifts, dims=(-2, -1))[..., :crop, :crop]


def train(folder: Path, minutes: float, seed: int) -> None:
    """Trains for `minutes` and writes `folder/vae` (fp32) and `folder/vae.json`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    names = emoji.all_file_names(folder / "npm", "google")
    pictures = torch.from_numpy(emoji.read_pictures(folder / "npm", "google", names))
    model = build()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), fused=True
    )
    start, step, running = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = LEARNING_RATE * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(pictures), (BATCH_SIZE,), generator=generator)
        crop = CROP if share < CROP_SHARE else emoji.PIXELS
        batch = augment(to_unit(pictures[rows]), crop, generator)
        posterior = model.encode(batch).latent_dist
        output = model.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = reconstruction_loss(output, batch) + KL_WEIGHT * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        step += 1
        running += loss.item()
        if step % 200 == 0:
            rate_seen = step * BATCH_SIZE / (time.monotonic() - start)
            print(f"vae {step} {share:.0%} loss {running / 200:.4f} {rate_seen:.0f}/s", flush=True)
            running = 0.0
    trained = average.module.eval()
    figures = measure(trained, folder, pictures)
    trained.register_to_config(scaling_factor=figures["scaling_factor"])
    trained.save_pretrained(folder / "vae")
    figures |= {"steps": step, "batch_size": BATCH_SIZE, "seed": seed, "minutes": minutes}
    (folder / "vae.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(figures, flush=True)


@torch.no_grad()
def measure(model: AutoencoderKL, folder: Path, pictures: torch.Tensor) -> dict[str, float]:
    """Peak signal-to-noise in dB on both styles, the latents' spread, and the scaling factor."""
    names = [item.file_name for item in emoji.read(folder / "npm")]
    twemoji = torch.from_numpy(emoji.read_pictures(folder / "npm", "twitter", names[::10]))
    latents = torch.cat(
        [model.encode(to_unit(part)).latent_dist.mean for part in pictures.split(64)]
    )
    spread = latents.std(dim=(0, 2, 3)).tolist()
    return {
        "psnr_noto": _psnr(model, pictures[::10]),
        "psnr_twemoji": _psnr(model, twemoji),
        "channel_std": [round(value, 3) for value in spread],
        "scaling_factor": round(1 / latents.std().item(), 5),
    }


def _psnr(model: AutoencoderKL, pictures: torch.Tensor) -> float:
    errors = []
    for part in pictures.split(64):
        target = to_unit(part)
        output = model.decode(model.encode(target).latent_dist.mean).sample.clamp(-1, 1)
        errors.append((output - target).square().mean(dim=(1, 2, 3)))
    return round(10 * math.log10(4 / torch.cat(errors).mean().item()), 2)
