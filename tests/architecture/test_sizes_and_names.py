from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "surefoot"
FOLDERS = ("src", "tests", "tools", "scripts", "benchmarks")
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 60
# Names that say nothing about what is inside, so that everything ends up there.
DRAWERS = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def function_lengths(tree: ast.Module) -> dict[str, int]:
    return {
        f"{node.name}:{node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def drawers(relative: Path) -> set[str]:
    return {part for part in relative.with_suffix("").parts if part in DRAWERS}


def family_comparisons(tree: ast.Module) -> list[int]:
    """Lines that ask which family it is by `==`, `!=` or `in` a written-out collection."""

    def is_family(node: ast.expr) -> bool:
        return (isinstance(node, ast.Name) and node.id == "family") or (
            isinstance(node, ast.Attribute) and node.attr == "family"
        )

    lines: list[int] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        equality = any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        listed = any(isinstance(side, ast.Tuple | ast.Set | ast.List) for side in sides)
        if any(map(is_family, sides)) and (equality or listed):
            lines.append(node.lineno)
    return lines


def exported_names(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "__all__"
        ):
            return list(ast.literal_eval(node.value))
    return []


def test_modules_are_small() -> None:
    lengths = {
        name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(*FOLDERS)
    }
    assert "src/surefoot/__init__.py" in lengths
    assert {file: lines for file, lines in lengths.items() if lines > MOST_MODULE_LINES} == {}


def test_functions_are_small() -> None:
    long = {
        f"{name(path)}:{function}": lines
        for path in python_files(*FOLDERS)
        for function, lines in function_lengths(parse(path)).items()
        if lines > MOST_FUNCTION_LINES
    }
    assert long == {}


def test_no_file_or_folder_is_a_drawer() -> None:
    found = [name(path) for path in python_files(*FOLDERS) if drawers(path.relative_to(ROOT))]
    assert found == []


def test_exported_names_are_sorted() -> None:
    unsorted = [
        name(path)
        for path in python_files("src")
        if (names := exported_names(parse(path))) != sorted(names)
    ]
    assert unsorted == []


def test_only_families_asks_which_family_it_is() -> None:
    asking = {
        name(path): lines
        for path in python_files("src")
        if PACKAGE / "families" not in path.parents and (lines := family_comparisons(parse(path)))
    }
    assert asking == {}, "what differs between families is a row in families/facts.py"


def test_no_module_asks_hasattr() -> None:
    asking = [
        f"{name(path)}:{node.lineno}"
        for path in python_files("src")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "hasattr"
    ]
    assert asking == [], "a type says what an object has"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("if family == 'sd15': pass", [1]),
        ("if plan.model.family != other: pass", [1]),
        ("if family in ('sd15', 'sdxl'): pass", [1]),
        ("facts = FACTS[family]", []),
        ("if family in FACTS: pass", []),
        ("if font_family == 'serif': pass", []),
    ],
)
def test_family_comparisons_are_found_and_lookups_are_let_be(source: str, lines: list[int]) -> None:
    assert family_comparisons(ast.parse(source)) == lines


def test_a_drawer_is_found_by_file_and_by_folder() -> None:
    assert drawers(Path("src/surefoot/utils.py")) == {"utils"}
    assert drawers(Path("src/surefoot/core/loop.py")) == {"core"}
    assert drawers(Path("tools/base_model/vae.py")) == set()
