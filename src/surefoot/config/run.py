"""`RunConfig`: everything a run.toml can say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.captions import CaptionsConfig
from surefoot.config.data import DataConfig
from surefoot.config.objective import ObjectiveConfig
from surefoot.config.optimizer import AdafactorConfig, OptimizerConfig
from surefoot.config.save import SaveConfig
from surefoot.config.schedule import CosineConfig, ScheduleConfig
from surefoot.config.section import NAME, Auto, PathText, Positive, Section
from surefoot.config.train import TrainConfig
from surefoot.config.tuning import DoraConfig, TuningConfig
from surefoot.config.waiver import WaiverConfig

FORMAT = 1


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

    zero_terminal_snr: bool | Auto = "auto"
    """Whether the last noise level has no picture left in it (Lin et al. 2023), so that very dark
    and bright pictures can be learned; for `v_prediction` alone. `auto` reads the model's scheduler
    config."""


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
    """Keep the checkpoint with the lowest validation loss in `best/`, besides those of `save`;
    without one, the last from before the weights came to harm."""


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

    captions: CaptionsConfig = CaptionsConfig()
    """What becomes of their captions at each step."""

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
