"""What the documentation shows is what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from surefoot.config.load import UNIONS, load
from surefoot.wording import WORDS

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.zh-CN.md")

PACKAGES = (
    "surefoot.data",
    "surefoot.formats",
    "surefoot.objective",
    "surefoot.optim",
    "surefoot.tuning",
)


def modules() -> list[str]:
    return [
        f"{package}.{module.name}"
        for package in PACKAGES
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__)
    ]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_give_what_they_show(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, capsys.readouterr().out


def test_the_schedules_have_an_example() -> None:
    # Otherwise the test above could find nothing to run and pass.
    assert doctest.testmod(importlib.import_module("surefoot.optim.schedules")).attempted > 0


def test_generated_pages_are_up_to_date() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "reference"), "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_code_has_a_section_in_the_page_of_findings() -> None:
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (SF\d{3})$", page, re.MULTILINE) == sorted(WORDS)


def test_the_page_of_optimizers_names_every_kind() -> None:
    page = (ROOT / "docs" / "optimizers" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\((\w+)\.md\)", page))
    assert linked == set(UNIONS["optimizer"])


@pytest.mark.parametrize("readme", READMES)
def test_run_toml_of_the_readme_is_one(readme: str, tmp_path: Path) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    run_file = tmp_path / "run.toml"
    run_file.write_text(block, encoding="utf-8")
    assert load(run_file).config.tuning.kind == "dora"


@pytest.mark.parametrize(
    "page",
    [
        *READMES,
        "CONTRIBUTING.md",
        "docs/demo-learning.md",
        "docs/adafactor-study.md",
        "docs/adafactor-study.zh-CN.md",
        "docs/use-adafactor-anywhere.md",
        "docs/use-adafactor-anywhere.zh-CN.md",
        "docs/optimizers/README.md",
        *(f"docs/optimizers/{kind}.md" for kind in UNIONS["optimizer"]),
    ],
)
def test_files_that_a_page_links_to_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert links or page.startswith("docs/optimizers/")
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
