from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def module_names() -> list[str]:
    source = ROOT / "src"
    names = (
        ".".join(path.relative_to(source).with_suffix("").parts)
        for path in sorted((source / "surefoot").rglob("*.py"))
    )
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("name", module_names())
def test_module_imports_and_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
