"""The formats in which an adapter can be written."""

from __future__ import annotations

from typing import Literal

AdapterFormat = Literal[
    "diffusers", "kohya", "comfyui", "comfyui-compat", "onetrainer-original", "simpletuner"
]
