"""The small real model and the pictures that come with surefoot."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
BUILTIN_MODEL = _FOLDER / "model"
"""A Stable-Diffusion-1.x pipeline of 64x64 pixels, trained on Noto emoji; see its README.md."""

BUILTIN_TRAIN = _FOLDER / "twemoji" / "train"
"""200 Twemoji pictures with captions."""

BUILTIN_VALIDATION = _FOLDER / "twemoji" / "validation"
"""100 others, held out."""

DEMO_RUN = _FOLDER / "demo.toml"
"""The run.toml of `surefoot demo`."""
