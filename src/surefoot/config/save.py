"""Checkpoints and the result: the section `save`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from surefoot.config.adapter_format import AdapterFormat
from surefoot.config.section import Auto, Off, Positive, Section


class SaveConfig(Section):
    """Checkpoints, from which the same command goes on, and the result."""

    every: Positive | Auto | Off = "auto"
    """Steps between two checkpoints; `auto` is a quarter of the run, at most 500, and `off` where
    minutes or epochs are given. The last step is always saved."""

    every_minutes: Annotated[float, Field(gt=0)] | Off = "off"
    """Also a checkpoint when this many minutes have passed since the last one."""

    every_epochs: Annotated[float, Field(gt=0)] | Off = "off"
    """Also a checkpoint each time the pictures have been seen this many times more; parts such as
    0.5 too."""

    keep: Positive = 2
    """How many checkpoints are kept."""

    formats: Annotated[tuple[AdapterFormat, ...], Field(min_length=1)] | Auto = "auto"
    """For which programs an adapter is written at the end, a file for each: `diffusers`; `kohya`
    for sd-scripts, AUTOMATIC1111, Forge and, but for DoRA of the output axis, ComfyUI; `comfyui`;
    `comfyui-compat` for that DoRA in ComfyUI; `onetrainer-original`; `simpletuner`. The first
    gets the plain name. `auto` is `["diffusers", "kohya"]`, without what cannot hold the adapter;
    docs/adapter-files.md tells which can."""
