"""Findings that are known and accepted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from surefoot.config.section import CODE, WORDS, Section


class WaiverConfig(Section):
    """A finding that is known and does not matter here: it is printed, and counts no longer."""

    code: Annotated[str, Field(pattern=CODE)]
    """The finding's code, such as `SF107`."""

    reason: Annotated[str, Field(pattern=WORDS)]
    """Why it does not matter here; printed with it each time."""
