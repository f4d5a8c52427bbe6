"""import-linter reads the imports; here they are run, packages' `__init__` and all."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "surefoot"
HEAVY = ("torch", "diffusers", "transformers")
# Packages in which some modules use torch; the contract names the others one by one. Everything
# else in surefoot belongs into the contract whole.
MIXED = {"adapters", "data", "engine", "families", "formats", "objective", "optim", "tuning"}
# They import the engine inside the functions that train; `--help` and `check` are run below.
LAZY = {"__main__", "adapter_commands", "cli", "probe_command", "run_commands"}

RUN_TOML = """
name = "torch-free"
[model]
path = "builtin"
[[data.folders]]
path = "builtin"
[train]
steps = 10
"""

CALL_SUREFOOT = """
import sys
from surefoot.cli import main
try:
    main()
except SystemExit:
    pass
"""


def contract() -> list[str]:
    """What the import-linter contract calls torch-free."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (found,) = (
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "forbidden"
    )
    assert set(found["forbidden_modules"]) == set(HEAVY)
    return found["source_modules"]


def modules_of(dotted: str) -> list[str]:
    """A module, or a package with all that is in it, as dotted names."""
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    if not path.is_dir():
        return [dotted]
    files = sorted(path.rglob("*.py"))
    names = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def loaded_modules(code: str, *arguments: str, folder: Path) -> set[str]:
    """Names in `sys.modules` after a fresh Python has run the code."""
    report = folder / "modules.txt"
    tail = f"\nimport pathlib\npathlib.Path({str(report)!r}).write_text('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(report.read_text(encoding="utf-8").split())


def test_contract_names_every_module_outside_the_packages_that_use_torch() -> None:
    expected = {
        f"surefoot.{path.stem}"
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file())
        and path.stem not in MIXED | LAZY | {"__init__"}
    }
    assert sorted(expected - set(contract())) == []


def test_modules_of_the_contract_load_no_torch(tmp_path: Path) -> None:
    names = [name for listed in contract() for name in modules_of(listed)]
    assert "surefoot.config.load" in names
    code = "import importlib, sys\n" + "\n".join(
        f"importlib.import_module({name!r})\n"
        f"assert not set(sys.modules).intersection({HEAVY!r}), {name!r} + ' loads torch'"
        for name in names
    )
    assert loaded_modules(code, folder=tmp_path).issuperset(names)


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("check", "--help"), ("train", "--help"), ("merge", "--help")]
)
def test_help_loads_no_torch(arguments: tuple[str, ...], tmp_path: Path) -> None:
    loaded = loaded_modules(CALL_SUREFOOT, *arguments, folder=tmp_path)
    assert "surefoot.cli" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_check_plans_and_reviews_without_torch(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN_TOML, encoding="utf-8")
    loaded = loaded_modules(CALL_SUREFOOT, "check", "run.toml", folder=tmp_path)
    assert {"surefoot.plan", "surefoot.check.rules"} <= loaded
    assert loaded.isdisjoint(HEAVY)
