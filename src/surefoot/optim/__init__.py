"""Optimizers, the scaling of their steps, and learning-rate schedules."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surefoot.optim.adafactor import Adafactor
    from surefoot.optim.grouping import parameter_groups
    from surefoot.optim.in_backward import StepInBackward

__all__ = ["Adafactor", "StepInBackward", "parameter_groups"]

_MODULES = {
    "Adafactor": "surefoot.optim.adafactor",
    "StepInBackward": "surefoot.optim.in_backward",
    "parameter_groups": "surefoot.optim.grouping",
}


def __getattr__(name: str) -> object:
    """Loads what is asked for: they need torch, which the rest of the package does without."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
