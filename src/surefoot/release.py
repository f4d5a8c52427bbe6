"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("surefoot")
except PackageNotFoundError:
    # Run from a source folder that was never installed: it has no version of its own.
    VERSION = "0+unknown"
