"""Trains text encoder and UNet together, from nothing, on Noto emoji and their names."""

from __future__ import annotations

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
# Late in training the weights of v-prediction, `min(snr + 1, gamma) / snr`, up to a limit: what the
# thing is and where it lies is decided where noise outweighs the picture, and there an epsilon loss
# hardly looks.
HIGH_NOISE_FROM, HIGH_NOISE_WEIGHT = 0.58, 6.0
# From this share of the time on, only the things of `Emoji.kept` are drawn: what makes a thing
# recognisable is how often it was seen.
NARROWED_FROM = 0.43
CHECKPOINT_MINUTES = 5
SAMPLE_MINUTES = 15
WATCHED_PROMPTS = (
    "tiger face, animal mammal", "red apple, food fruit", "cat face, animal mammal",
    "sailboat, transport water", "slice of pizza, food prepared", "grinning face, face smiling",
    "frog face, animal amphibian", "bicycle, transport ground", "rose, plant flower",
    "guitar, musical instrument", "penguin, animal bird", "heavy black heart, heart",
    "tangerine, food fruit", "soccer ball, sport", "cactus, plant other",
    "hamburger, food prepared",
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
    kept: torch.Tensor  # indices of `Emoji.kept`

    def draw(self, narrowed: bool, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch of latents and tokens, some captions left empty for guidance."""
        pool = self.kept if narrowed else torch.arange(len(self.mean))
        rows = pool[torch.randint(len(pool), (BATCH_SIZE,), generator=generator)]
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


ALPHAS = build_scheduler().alphas_cumprod


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
        kept=torch.tensor([index for index, item in enumerate(items) if item.kept]),
    )


@dataclass
class Training:
    """Everything that a stopped training needs in order to go on."""

    model: Denoiser
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Writes a checkpoint, whole or not at all."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "step": self.step,
                "seconds": self.seconds,
            },
            part,
        )
        part.replace(path)

    def load(self, path: Path) -> None:
        """Reads one back."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.step, self.seconds = state["step"], state["seconds"]


def train(folder: Path, minutes: float, seed: int, resume: bool) -> None:
    """Trains until `minutes` are used up; writes `folder/denoiser.pt` and sheets on the way."""
    torch.manual_seed(seed)
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    items = emoji.read(folder / "npm")
    tokenizer = words.build_tokenizer([caption for item in items for caption in item.captions])
    tokenizer.save_pretrained(folder / "tokenizer")
    examples = load_examples(folder, autoencoder, tokenizer)
    training = _begin(tokenizer, seed)
    if resume:
        training.load(folder / "denoiser.pt")
    start = time.monotonic() - training.seconds
    saved = sampled = training.seconds
    while training.seconds < 60 * minutes:
        _step(training, examples, training.seconds / (60 * minutes))
        training.seconds = time.monotonic() - start
        if training.seconds - saved > 60 * CHECKPOINT_MINUTES:
            saved = training.seconds
            training.save(folder / "denoiser.pt")
        if training.seconds - sampled > 60 * SAMPLE_MINUTES:
            sampled = training.seconds
            pipeline = make_pipeline(training.average.module, autoencoder, tokenizer)
            sheet = draw_sheet(pipeline, WATCHED_PROMPTS, columns=8)
            sheet.save(folder / f"sheet-{training.step:06d}.png")
    training.save(folder / "denoiser.pt")


def _begin(tokenizer: CLIPTokenizer, seed: int) -> Training:
    model = Denoiser(tokenizer)
    return Training(
        model=model,
        average=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY)),
        optimizer=torch.optim.AdamW(model.parameters(), LEARNING_RATE, (0.9, 0.99), fused=True),
        generator=torch.Generator().manual_seed(seed),
    )


def _step(training: Training, examples: Examples, share: float) -> None:
    warmup = min(1, (training.step + 1) / WARMUP_STEPS)
    for group in training.optimizer.param_groups:
        group["lr"] = LEARNING_RATE * warmup * (1 + math.cos(math.pi * share)) / 2
    loss, plain = _loss(training, examples, share)
    training.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.average.update_parameters(training.model)
    training.step += 1
    if training.step % 100 == 0:
        speed = training.step * BATCH_SIZE / max(1, training.seconds)
        print(f"{training.step} {share:.1%} loss {plain:.4f} {speed:.0f}/s", flush=True)


def _loss(
    training: Training, examples: Examples, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    latents, tokens = examples.draw(share >= NARROWED_FROM, training.generator)
    timestep = torch.randint(len(ALPHAS), (len(latents),), generator=training.generator)
    noise = torch.randn(latents.shape, generator=training.generator)
    alpha = ALPHAS[timestep]
    noisy = alpha.sqrt()[:, None, None, None] * latents
    noisy = noisy + (1 - alpha).sqrt()[:, None, None, None] * noise
    errors = (training.model(noisy, timestep, tokens) - noise).square().mean(dim=(1, 2, 3))
    snr = alpha / (1 - alpha)
    weights = (SNR_GAMMA / snr).clamp(max=1)
    if share >= HIGH_NOISE_FROM:
        weights = ((snr + 1).clamp(max=SNR_GAMMA) / snr).clamp(max=HIGH_NOISE_WEIGHT)
    return (errors * weights).mean(), errors.detach().mean()


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
