"""Trains text encoder and UNet together, from nothing, on Noto emoji and their names."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.base_model import emoji, vae, words

BATCH_SIZE = 32
LEARNING_RATE = 1e-3
WARMUP_STEPS = 200
EMA_DECAY = 0.999
CAPTION_DROPOUT = 0.1
# Min-SNR weighting (Hang et al. 2023, equation 5, epsilon prediction): noise levels where the
# picture is decided get the gradient, instead of those where only grain is left.
SNR_GAMMA = 5.0
CHECKPOINT_MINUTES = 5
SAMPLE_MINUTES = 15
WATCHED_PROMPTS = (
    "globe showing africa, place map", "red apple, food fruit", "cat face, animal mammal",
    "sailboat, transport water", "pizza slice, food prepared", "grinning face, face smiling",
    "house with garden, place building", "bicycle, transport ground", "rose, plant flower",
    "guitar, musical instrument", "penguin, animal bird", "red heart, heart",
    "umbrella, sky and weather", "soccer ball, sport", "books, book paper", "hamburger, food prepared",
)  # fmt: skip


class Denoiser(torch.nn.Module):
    """Text encoder and UNet as one, so that one average holds both."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=192,
                intermediate_size=576,
                num_hidden_layers=3,
                num_attention_heads=6,
                max_position_embeddings=words.MAX_LENGTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(64, 128, 160),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=192,
            attention_head_dim=4,
        )

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Predicted noise `(B, 4, 16, 16)` for noisy latents, timesteps `(B,)`, tokens `(B, L)`."""
        states = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timestep, states).sample


@dataclass(frozen=True)
class Examples:
    """All pictures as latents, and three tokenized captions for each."""

    mean: torch.Tensor  # (N, 4, 16, 16), scaled
    std: torch.Tensor  # (N, 4, 16, 16), scaled
    tokens: torch.Tensor  # (N, 3, L)
    empty: torch.Tensor  # (L,)

    def draw(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of latents and tokens, some captions left empty for guidance."""
        rows = torch.randint(len(self.mean), (BATCH_SIZE,), generator=generator)
        noise = torch.randn(self.mean[rows].shape, generator=generator)
        which = torch.randint(self.tokens.shape[1], (BATCH_SIZE,), generator=generator)
        tokens = self.tokens[rows, which].clone()
        tokens[torch.rand(BATCH_SIZE, generator=generator) < CAPTION_DROPOUT] = self.empty
        return self.mean[rows] + self.std[rows] * noise, tokens


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 1.x."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def load_examples(folder: Path, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer) -> Examples:
    """Encodes every Noto picture once."""
    items = emoji.read(folder / "npm")
    names = [item.file_name for item in items]
    pictures = torch.from_numpy(emoji.read_pictures(folder / "npm", "google", names))
    posteriors = [autoencoder.encode(vae.to_unit(part)).latent_dist for part in pictures.split(64)]
    factor = autoencoder.config.scaling_factor
    captions = [caption for item in items for caption in item.captions]
    tokens = _tokenize(tokenizer, captions).view(len(items), -1, words.MAX_LENGTH)
    return Examples(
        mean=torch.cat([posterior.mean for posterior in posteriors]) * factor,
        std=torch.cat([posterior.std for posterior in posteriors]) * factor,
        tokens=tokens,
        empty=_tokenize(tokenizer, [""])[0],
    )


def train(folder: Path, minutes: float, seed: int, resume: bool) -> None:
    """Trains for `minutes`; writes `folder/denoiser.pt`, `folder/denoiser.json` and sheets."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    items = emoji.read(folder / "npm")
    tokenizer = words.build_tokenizer([caption for item in items for caption in item.captions])
    tokenizer.save_pretrained(folder / "tokenizer")
    examples = load_examples(folder, autoencoder, tokenizer)
    model = Denoiser(tokenizer)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, (0.9, 0.99), fused=True)
    alphas = build_scheduler().alphas_cumprod
    step, spent, running = 0, 0.0, 0.0
    if resume:
        step, spent = _load(folder, model, average, optimizer, generator)
    start = time.monotonic() - spent
    saved = sampled = spent
    while (elapsed := time.monotonic() - start) < 60 * minutes:
        share = elapsed / (60 * minutes)
        rate = (
            LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * share)) / 2
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, plain = _loss(model, examples, alphas, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        running += plain.item()
        if step % 100 == 0:
            speed = step * BATCH_SIZE / elapsed
            print(f"unet {step} {share:.1%} loss {running / 100:.4f} {speed:.0f}/s", flush=True)
            running = 0.0
        if elapsed - saved > 60 * CHECKPOINT_MINUTES:
            saved = elapsed
            _save(folder, model, average, optimizer, generator, step, elapsed)
        if elapsed - sampled > 60 * SAMPLE_MINUTES:
            sampled = elapsed
            pipeline = make_pipeline(average.module, autoencoder, tokenizer)
            draw_sheet(pipeline, WATCHED_PROMPTS, columns=8).save(folder / f"sheet-{step:06d}.png")
    _save(folder, model, average, optimizer, generator, step, 60 * minutes)
    figures = {"steps": step, "batch_size": BATCH_SIZE, "seed": seed, "minutes": minutes}
    (folder / "denoiser.json").write_text(json.dumps(figures, indent=2) + "\n")


def _loss(
    model: Denoiser, examples: Examples, alphas: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    latents, tokens = examples.draw(generator)
    timestep = torch.randint(len(alphas), (len(latents),), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    alpha = alphas[timestep]
    noisy = alpha.sqrt()[:, None, None, None] * latents
    noisy = noisy + (1 - alpha).sqrt()[:, None, None, None] * noise
    errors = (model(noisy, timestep, tokens) - noise).square().mean(dim=(1, 2, 3))
    snr = alpha / (1 - alpha)
    return (errors * (SNR_GAMMA / snr).clamp(max=1)).mean(), errors.detach().mean()


def make_pipeline(
    model: Denoiser, autoencoder: AutoencoderKL, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The parts as diffusers' own pipeline."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw_sheet(
    pipeline: StableDiffusionPipeline, prompts: tuple[str, ...], columns: int, steps: int = 30
) -> Image.Image:
    """One picture a prompt, seed = position, on one sheet without captions."""
    generators = [torch.Generator().manual_seed(index) for index in range(len(prompts))]
    pictures = pipeline(
        list(prompts), num_inference_steps=steps, guidance_scale=4.0, generator=generators
    ).images
    side = pictures[0].width
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * side, index // columns * side))
    return sheet


def _tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(
        captions,
        padding="max_length",
        max_length=words.MAX_LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def _save(
    folder: Path,
    model: Denoiser,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    step: int,
    seconds: float,
) -> None:
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "step": step,
        "seconds": seconds,
    }
    torch.save(state, folder / "denoiser.pt.part")
    (folder / "denoiser.pt.part").rename(folder / "denoiser.pt")


def _load(
    folder: Path,
    model: Denoiser,
    average: AveragedModel,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> tuple[int, float]:
    state = torch.load(folder / "denoiser.pt", weights_only=True)
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return state["step"], state["seconds"]
