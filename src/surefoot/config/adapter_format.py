"""The formats in which an adapter can be written."""

from __future__ import annotations

from typing import Literal, get_args

AdapterFormat = Literal[
    "diffusers", "kohya", "comfyui", "comfyui-compat", "onetrainer-original", "simpletuner"
]
ADAPTER_FORMATS: tuple[AdapterFormat, ...] = get_args(AdapterFormat)
