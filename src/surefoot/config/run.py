"""`RunConfig`: everything a run.toml can say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.adapter_format import AdapterFormat
from surefoot.config.optimizer import AdafactorConfig, OptimizerConfig
from surefoot.config.schedule import CosineConfig, ScheduleConfig
from surefoot.config.section import DEVICE, NAME, PathText, Section
from surefoot.config.tuning import DoraConfig, TuningConfig
from surefoot.config.waiver import WaiverConfig

FORMAT = 1
Off = Literal["off"]
Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]


class ModelConfig(Section):
    """The model to start from."""

    family: Literal["sd15"] = "sd15"
    """The model family: `sd15` (Stable Diffusion 1.x and 2.x)."""

    path: PathText
    """A diffusers folder, a single `.safetensors` checkpoint, a hub id, or `builtin`."""

    config: PathText = "auto"
    """For a single file: a diffusers folder or hub id with the configs and the tokenizer."""

    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto"
    """What the network predicts. `auto` reads the model's scheduler config."""


class FolderConfig(Section):
    """One folder of pictures with captions beside them."""

    path: PathText
    """A folder of pictures; `cat.png` has its caption in `cat.txt`. Folders inside count too.
    `builtin` is the example set."""

    repeats: Positive = 1
    """How often each picture is seen in one epoch."""


class DataConfig(Section):
    """The pictures to learn from."""

    folders: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]
    """The folders."""

    resolution: Annotated[int, Field(ge=8, le=8192)] | Auto = "auto"
    """Side in pixels; pictures are scaled to cover it and cropped at the centre. `auto` is what
    the model was trained on."""

    captions: Literal["required", "optional"] = "required"
    """`optional`: a picture without a `.txt` gets an empty caption."""

    caption_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of captions left empty, so that guidance keeps working."""

    flip: bool = False
    """Mirror half of the pictures. Not for things with a left and a right, such as letters."""

    cache: Literal["disk", "off"] = "disk"
    """`disk`: encode each picture once and keep the latents beside the run folders, in
    `.cache`."""


class ObjectiveConfig(Section):
    """What is minimised."""

    loss: Literal["mse"] = "mse"
    """`mse`: mean squared error."""

    snr_gamma: Annotated[float, Field(gt=0)] | Off = "off"
    """Min-SNR weighting (Hang et al. 2023); 5 is customary."""

    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Adds this much of one shared number per channel to the noise, for very dark and bright
    pictures."""


class TrainConfig(Section):
    """The loop."""

    steps: Positive
    """Optimizer steps."""

    batch_size: Positive = 1
    """Pictures in one forward pass."""

    gradient_accumulation: Positive = 1
    """Forward passes in one step; the pictures of a step are this times `batch_size`."""

    clip_grad_norm: Annotated[float, Field(gt=0)] | Off = "off"
    """Largest norm of all gradients together. Adafactor clips its updates itself."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: the forward pass in bfloat16; trained weights stay as `tuning` has them."""

    gradient_checkpointing: bool = False
    """Compute activations twice to hold fewer of them."""

    ema: Annotated[float, Field(gt=0, lt=1)] | Off = "off"
    """Decay of a moving average of the trained weights, which is then what is exported."""

    device: Annotated[str, Field(pattern=DEVICE)] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""


class ValidationConfig(Section):
    """The loss on pictures that are not trained on, always with the same noise and timesteps."""

    folder: PathText = "off"
    """A folder like those of `data`, or `builtin`, or `off`."""

    every: Positive | Auto = "auto"
    """Steps between two validations; `auto` is a quarter of the run."""

    draws: Positive = 4
    """Noise levels for each picture, spread evenly."""


class PreviewConfig(Section):
    """Pictures of the same prompts and seeds before, during and after."""

    prompts: tuple[str, ...] = ()
    """The prompts; none for no previews."""

    every: Positive | Auto = "auto"
    """Steps between two previews; `auto` is half of the run."""

    steps: Annotated[int, Field(ge=1, le=1000)] = 30
    """Denoising steps of a picture."""

    guidance: Annotated[float, Field(ge=1)] = 4.0
    """Classifier-free guidance scale."""

    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    """Seed of the first prompt; each further prompt takes the next."""


class WatchConfig(Section):
    """What looks on in the run and says whether it learns."""

    on_trouble: Literal["warn", "stop"] = "warn"
    """`stop`: end the run at the first verdict of trouble, with the best checkpoint as the
    result."""

    every: Positive | Auto = "auto"
    """Steps between two verdicts; `auto` is a twentieth of the run, at least 5."""

    keep_best: bool = True
    """Keep the checkpoint with the lowest validation loss in `best/`, besides those of `save`."""


class SaveConfig(Section):
    """Checkpoints, from which the same command goes on, and the result."""

    every: Positive | Auto = "auto"
    """Steps between two checkpoints; `auto` is a quarter of the run, at most 500."""

    keep: Positive = 2
    """How many checkpoints are kept."""

    formats: Annotated[tuple[AdapterFormat, ...], Field(min_length=1)] | Auto = "auto"
    """For which programs an adapter is written at the end, a file for each: `diffusers`; `kohya`
    for sd-scripts, AUTOMATIC1111, Forge and, but for DoRA of the output axis, ComfyUI; `comfyui`;
    `comfyui-compat` for that DoRA in ComfyUI; `onetrainer-original`; `simpletuner`. The first
    gets the plain name. `auto` is `["diffusers", "kohya"]`, without what cannot hold the adapter;
    docs/adapter-files.md tells which can."""


class RunConfig(Section):
    """A run.toml."""

    format: Literal[1] = FORMAT
    """Version of this file's format."""

    name: Annotated[str, Field(pattern=NAME)]
    """The run's name, and its folder's."""

    folder: PathText = "runs"
    """Where run folders go."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all randomness."""

    model: ModelConfig
    """The model to start from."""

    tuning: TuningConfig = DoraConfig()
    """How the weights may move; `kind` says which."""

    optimizer: OptimizerConfig = AdafactorConfig()
    """What makes steps of gradients; `kind` says which."""

    schedule: ScheduleConfig = CosineConfig()
    """The learning rate over the run; `kind` says which."""

    data: DataConfig
    """The pictures to learn from."""

    objective: ObjectiveConfig = ObjectiveConfig()
    """What is minimised."""

    train: TrainConfig
    """The loop."""

    validation: ValidationConfig = ValidationConfig()
    """The loss on held-out pictures."""

    preview: PreviewConfig = PreviewConfig()
    """Pictures drawn on the way."""

    watch: WatchConfig = WatchConfig()
    """Verdicts on the way."""

    save: SaveConfig = SaveConfig()
    """Checkpoints and the result."""

    waive: tuple[WaiverConfig, ...] = ()
    """Findings that are known and accepted, each with its reason."""
