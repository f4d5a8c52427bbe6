"""Fine-tunes diffusion models and checks beforehand that optimizer and method fit each other.

Importing this package loads no torch; only `surefoot.engine` and what it assembles do.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("surefoot")
except PackageNotFoundError:
    # Run from a source folder that was never installed: it has no version of its own.
    __version__ = "0+unknown"
