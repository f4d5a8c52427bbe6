"""Fine-tunes diffusion models and checks beforehand that optimizer and method fit each other.

Importing this package loads no torch; only `surefoot.engine` and what it assembles do, and
`Adafactor`, `StepInBackward` and `parameter_groups` when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surefoot.optim import Adafactor, StepInBackward, parameter_groups
    from surefoot.optim.review import review_training

    __version__: str

__all__ = ["Adafactor", "StepInBackward", "__version__", "parameter_groups", "review_training"]


def __getattr__(name: str) -> object:
    """Loads the optimizer, and torch with it, when it is asked for; looks the version up then."""
    if name == "__version__":
        return import_module("surefoot.release").VERSION
    if name in ("Adafactor", "StepInBackward", "parameter_groups"):
        return getattr(import_module("surefoot.optim"), name)
    if name == "review_training":
        return import_module("surefoot.optim.review").review_training
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
