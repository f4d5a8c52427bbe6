"""What becomes of a picture's captions at each step: the section `captions`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import LINE, Section

Share = Annotated[float, Field(ge=0, le=1)]
Line = Annotated[str, Field(pattern=LINE)]


class CaptionsConfig(Section):
    """What becomes of a picture's captions at each step."""

    missing: Literal["error", "empty"] = "error"
    """A picture without a caption is an `error`, or gets an `empty` one."""

    lines: Literal["one", "several"] = "one"
    """Several lines in a `.txt` or `.caption` are `one` caption, or `several`, of which each step
    draws one."""

    dropout: Share = 0.1
    """Share of captions left empty, so that guidance keeps working."""

    trigger: Line = ""
    """A word of your own for what is learned, put in front of every caption that lacks it."""

    prefix: Line = ""
    """Text in front of every caption, as it stands here, spaces and commas included."""

    suffix: Line = ""
    """Text behind every caption, as it stands here."""

    separator: Annotated[str, Field(min_length=1, pattern=LINE)] = ","
    """What stands between the tags of a caption."""

    shuffle: bool = False
    """Put the tags of a caption in another order at each step. Not for sentences."""

    tag_dropout: Share = 0.0
    """Share of tags left out at each step."""

    keep_tags: Annotated[int, Field(ge=0)] = 0
    """How many tags at the beginning are neither moved nor left out (`keep_tokens` of others)."""

    keep_mark: Line = ""
    """A mark such as `|||`: in a caption that has it, the tags before it are kept instead. The mark
    itself is taken out."""

    wildcards: bool = False
    """Of `{red|blue}` in a caption, each step draws one."""
