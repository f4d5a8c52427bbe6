"""Which adapters each format can hold such that its readers apply them rightly. No torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from surefoot.config.adapter_format import AdapterFormat
from surefoot.config.tuning import (
    DoraConfig,
    FullConfig,
    LohaConfig,
    LokrConfig,
    LoraConfig,
    TuningConfig,
)
from surefoot.formats.leaves import AdapterKind, Axis

USUAL_FORMATS: tuple[AdapterFormat, ...] = ("diffusers", "kohya")

Hindrance = Literal["method", "input_axis", "comfyui_norm"]


def hindrance(
    adapter_format: AdapterFormat, kind: AdapterKind, axis: Axis | Literal["none"]
) -> Hindrance | Literal["none"]:
    """Why the format cannot hold an adapter.

    - `method`: its readers know LoRA and DoRA only.
    - `input_axis`: PEFT has one magnitude for each output, never for each input.
    - `comfyui_norm`: ComfyUI divides by the norm of W where DoRA of the output axis divides by that
      of W and its update.
    """
    match adapter_format:
        case "diffusers" if kind != "lora":
            return "method"
        case "diffusers" if axis == "input":
            return "input_axis"
        case "comfyui" if axis == "output":
            return "comfyui_norm"
        case _:
            return "none"


def taken_wrongly(adapter_format: AdapterFormat, axis: Axis | Literal["none"]) -> bool:
    """Whether well-known readers of a format that can hold an adapter draw something else of it.

    ComfyUI and Forge, which has taken ComfyUI's function over, read all names that have a
    `dora_scale`; LyCORIS and OneTrainer take that of the output axis rightly.
    """
    return axis == "output" and adapter_format in ("kohya", "simpletuner", "onetrainer-original")


def made_by(tuning: TuningConfig) -> tuple[AdapterKind, Axis | Literal["none"]] | None:
    """What kind of adapter a tuning makes; None for full fine-tuning, which makes a whole model."""
    match tuning:
        case FullConfig():
            return None
        case LoraConfig():
            return "lora", "none"
        case DoraConfig():
            return "lora", tuning.norm_axis
        case LohaConfig() | LokrConfig():
            return tuning.kind, "none"


def still_for_comfyui(
    formats: Collection[AdapterFormat], tuning: TuningConfig
) -> AdapterFormat | Literal["none"]:
    """The format to convert to for ComfyUI where it draws none of these rightly, else `none`.

    Of names that it reads a part of, such as diffusers', it leaves out the rest without a word.
    """
    made = made_by(tuning)
    if made is None:
        return "none"
    usable: AdapterFormat
    for usable in formats:
        if usable == "comfyui-compat" or not (
            usable == "diffusers"
            or hindrance(usable, *made) != "none"
            or taken_wrongly(usable, made[1])
        ):
            return "none"
    return "comfyui" if hindrance("comfyui", *made) == "none" else "comfyui-compat"


def planned_formats(
    asked: tuple[AdapterFormat, ...] | Literal["auto"], tuning: TuningConfig
) -> tuple[AdapterFormat, ...]:
    """The formats to write; `auto` are the two that most programs read, as far as they can."""
    made = made_by(tuning)
    if made is None:
        return ()
    if asked != "auto":
        return tuple(dict.fromkeys(asked))
    return tuple(
        name
        for name in USUAL_FORMATS
        if hindrance(name, *made) == "none" and not taken_wrongly(name, made[1])
    )
