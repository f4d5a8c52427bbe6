"""The pictures to learn from: the sections `data` and `data.folders`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Auto, PathText, Positive, Section


class FolderConfig(Section):
    """One folder of pictures with captions beside them."""

    path: PathText
    """A folder of pictures; `cat.png` has its caption in `cat.txt` or `cat.caption`.
    Folders inside count too. `builtin` is the example set."""

    repeats: Positive = 1
    """How often each picture is seen in one epoch."""


class DataConfig(Section):
    """The pictures to learn from."""

    folders: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]
    """The folders."""

    resolution: Annotated[int, Field(ge=8, le=8192)] | Auto = "auto"
    """Side in pixels; pictures are scaled to cover it and cropped at the centre. `auto` is what
    the model was trained on."""

    flip: bool = False
    """Mirror half of the pictures. Not for things with a left and a right, such as letters."""

    cache: Literal["disk", "off"] = "disk"
    """`disk`: encode each picture once and keep the latents beside the run folders, in
    `.cache`."""
