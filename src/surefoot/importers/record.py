"""The neutral record of another trainer's run: what it will really do, key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from surefoot.finding import Finding, Value

Trainer = Literal[
    "onetrainer", "sd_scripts", "musubi", "ai_toolkit", "simpletuner", "diffusion_pipe", "diffusers"
]
TRAINER_NAMES: dict[Trainer, str] = {
    "onetrainer": "OneTrainer",
    "sd_scripts": "sd-scripts (kohya)",
    "musubi": "musubi-tuner",
    "ai_toolkit": "ai-toolkit",
    "simpletuner": "SimpleTuner",
    "diffusion_pipe": "diffusion-pipe",
    "diffusers": "diffusers' example scripts",
}
Fate = Literal["kept", "changed", "dropped"]
TomlValue = bool | int | float | str | tuple[str, ...] | tuple[dict[str, str | int], ...]


@dataclass(frozen=True)
class Setting:
    """A value in surefoot's terms, and their key that it comes from, if it stands in the file."""

    value: TomlValue
    key: str
    reason: str = ""
    values: Mapping[str, Value] = field(default_factory=dict[str, Value])


@dataclass(frozen=True)
class KeyNote:
    """What became of one key of their file.

    Attributes:
        given: Its value, as text.
        ours: The dotted path in run.toml, empty if dropped.
        reason: A message, with `values` for its names in braces; empty if kept as it is.
        matters: Whether the run could learn something else for it.
    """

    key: str
    line: int
    given: str
    fate: Fate
    ours: str = ""
    reason: str = ""
    values: Mapping[str, Value] = field(default_factory=dict[str, Value])
    matters: bool = False


@dataclass(frozen=True)
class Spelling:
    """How a value of ours is written in their file.

    Attributes:
        key: Their key.
        form: Their value, with `{value}` for ours as they write it.
        off: What they write for "off".
    """

    key: str
    form: str = "{value}"
    off: str = "0"


@dataclass(frozen=True)
class TheirRun:
    """A run of another trainer.

    Attributes:
        meaning: Which of the trainer's ways of reading the file, where it has several.
        family: The model family in one word, whether surefoot has it or not.
        settings: Dotted path of run.toml to its value; the trainer's defaults are in it.
        notes: Every key of the file, once.
        findings: What only this trainer does; `path` is their key.
        lines: Their key to its line.
        spellings: Dotted path of run.toml to how it is said in their file.
        words: How they write true and false.
        steps_known: Whether `train.steps` is what will be run, and not a stand-in.
        judged: Sections of run.toml that stand for what the trainer really does; findings about
            others are about a stand-in and not given.
    """

    trainer: Trainer
    meaning: str
    family: str
    settings: Mapping[str, Setting]
    notes: tuple[KeyNote, ...]
    findings: tuple[Finding, ...]
    lines: Mapping[str, int]
    spellings: Mapping[str, Spelling]
    words: tuple[str, str] = ("true", "false")
    steps_known: bool = True
    judged: frozenset[str] = frozenset({"tuning", "optimizer", "schedule", "train", "objective"})
