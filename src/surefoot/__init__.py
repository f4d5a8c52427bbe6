"""Fine-tunes diffusion models and checks beforehand that optimizer and method fit each other.

Importing this package loads no torch; only `surefoot.engine` and what it assembles do, and what is
asked for by name from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surefoot.engine.loop_review import LoopReview
    from surefoot.engine.trainer_review import TrainerReview
    from surefoot.optim import Adafactor, StepInBackward, parameter_groups
    from surefoot.optim.review import review_training

    __version__: str

__all__ = [
    "Adafactor",
    "LoopReview",
    "StepInBackward",
    "TrainerReview",
    "__version__",
    "parameter_groups",
    "review_training",
]

_MODULES = {
    "Adafactor": "surefoot.optim",
    "LoopReview": "surefoot.engine.loop_review",
    "StepInBackward": "surefoot.optim",
    "TrainerReview": "surefoot.engine.trainer_review",
    "parameter_groups": "surefoot.optim",
    "review_training": "surefoot.optim.review",
}


def __getattr__(name: str) -> object:
    """Loads what is asked for, and torch with it; looks the version up then."""
    if name == "__version__":
        return import_module("surefoot.release").VERSION
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
