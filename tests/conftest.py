"""What every folder of tests may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from surefoot.optim import stepping


@pytest.fixture(params=["compiled", "blocks", "parts"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way in which Adafactor is computed, in turn; in `parts` a block holds 16 numbers."""
    name = str(request.param)
    if name == "compiled":
        pytest.importorskip("numba")
    else:
        stepping.use_compiled(False)
    if name == "parts":
        monkeypatch.setattr(stepping, "_BLOCK_ON_CPU", 16)
    yield name
    stepping.use_compiled(True)
