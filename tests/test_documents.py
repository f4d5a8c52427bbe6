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
ENDINGS = (".md", ".zh-CN.md")
BILINGUAL = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "adafactor-speed",
            "adafactor-study",
            "findings",
            "adapter-tools",
            "check-any-loop",
            "import-and-check-other-trainers",
            "optimizer-memory",
            "schedules",
            "tunings",
            "use-adafactor-anywhere",
            "watch-and-probe",
            "optimizers/README",
            *(f"optimizers/{kind}" for kind in UNIONS["optimizer"]),
        )
    ),
]
IN_CHINESE = [page.with_name(f"{page.stem}.zh-CN.md") for page in BILINGUAL]

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
    for ending in ENDINGS:
        page = (ROOT / "docs" / f"findings{ending}").read_text(encoding="utf-8")
        assert re.findall(r"^### (SF\d{3})$", page, re.MULTILINE) == sorted(WORDS)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_page_of_optimizers_names_every_kind(ending: str) -> None:
    page = (ROOT / "docs" / "optimizers" / f"README{ending}").read_text(encoding="utf-8")
    linked = set(re.findall(rf"\]\((\w+){re.escape(ending)}\)", page))
    linked.discard("README")  # in the other language
    assert linked == set(UNIONS["optimizer"])


@pytest.mark.parametrize("page", BILINGUAL, ids=lambda page: page.name)
def test_a_page_and_its_other_language_lead_to_each_other(page: Path) -> None:
    chinese = page.with_name(f"{page.stem}.zh-CN.md")
    assert chinese.read_text(encoding="utf-8").splitlines()[2] == f"[English]({page.name})"
    if page.name != "adafactor.md":
        assert page.read_text(encoding="utf-8").splitlines()[2] == f"[简体中文]({chinese.name})"


@pytest.mark.parametrize("readme", READMES)
def test_run_toml_of_the_readme_is_one(readme: str, tmp_path: Path) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    run_file = tmp_path / "run.toml"
    run_file.write_text(block, encoding="utf-8")
    assert load(run_file).config.tuning.kind == "dora"


@pytest.mark.parametrize(
    "page",
    [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "demo-learning.md", *BILINGUAL, *IN_CHINESE],
    ids=lambda page: page.name,
)
def test_files_that_a_page_links_to_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not page.parent.joinpath(link).exists()] == []
