"""The shared base of every section of a run.toml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
PATH = r"^[^\x00-\x1f]+$"
LINE = r"^[^\x00-\x1f]*$"
CODE = r"^SF[0-9]{3}$"
WORDS = r"\S"
DEVICE = r"^(auto|cpu|mps|cuda(:[0-9]{1,3})?)$"

Off = Literal["off"]
Auto = Literal["auto"]
Positive = Annotated[int, Field(ge=1)]
PathText = Annotated[str, Field(min_length=1, pattern=PATH)]


class Section(BaseModel):
    """Frozen, closed to unknown keys; the line under a field is its help text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        # Built once, as parts of the whole: a tenth of a second at every start.
        defer_build=True,
    )


def key_help(section: type[BaseModel]) -> dict[str, str]:
    """What each key of a section is for: the text under its field, in one line.

    Its own keys first, then those that it shares with its relatives.
    """
    own = section.__annotations__
    fields = sorted(section.model_fields.items(), key=lambda item: item[0] not in own)
    return {key: " ".join((field.description or "").split()) for key, field in fields}
