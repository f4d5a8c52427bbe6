"""What the classes of pytorch-optimizer take, read from its source. No torch.

Importing the library would import torch, which takes seconds; its list of optimizers and the
signatures are plain source text.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

_OURS = frozenset({"self", "params", "lr", "foreach", "maximize"})
"""Arguments that the run itself decides."""


@dataclass(frozen=True)
class Argument:
    """One argument of a class.

    Attributes:
        kinds: Names of the types it takes: `bool`, `int`, `float`, `str`, `list`; empty if the
            source says none.
        choices: The words it takes, where the source lists them.
        required: It has no default.
    """

    kinds: frozenset[str]
    choices: tuple[str, ...]
    required: bool


def installed(package: str) -> bool:
    """Whether a package could be imported."""
    return find_spec(package) is not None


@lru_cache(maxsize=1)
def class_sources() -> dict[str, Path]:
    """Every class in the library's own list of optimizers, and the file that holds it.

    Empty where the library is missing, or is built otherwise than this reader knows.
    """
    spec = find_spec("pytorch_optimizer")
    if spec is None or spec.origin is None:
        return {}
    root = Path(spec.origin).parent
    try:
        tree = _parse(root / "optimizer" / "__init__.py")
    except (OSError, SyntaxError):
        return {}
    modules = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    found = ((name, _source(root, *modules[name])) for name in _listed(tree) if name in modules)
    return {name: path for name, path in found if path is not None}


def _listed(tree: ast.Module) -> list[str]:
    """The names in `OPTIMIZER_LIST`."""
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id="OPTIMIZER_LIST"), value=ast.List(elts=items)):
                return [item.id for item in items if isinstance(item, ast.Name)]
            case _:
                continue
    return []


def _source(root: Path, module: str, name: str) -> Path | None:
    """The file of a class that a module gives; through one `__init__` if it only passes it on."""
    if module == "torch.optim":
        # torch names the file after the class; finding torch does not import it.
        spec = find_spec("torch")
        origin = spec.origin if spec else None
        path = Path(origin).parent / "optim" / f"{name.lower()}.py" if origin else None
        return path if path and path.is_file() else None
    relative = Path(*module.split(".")[1:])
    file = root / relative.with_suffix(".py")
    if file.is_file():
        return file
    for node in _parse(root / relative / "__init__.py").body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if any(alias.name == name for alias in node.names):
            return _source(root, node.module, name)
    return None


@lru_cache(maxsize=64)
def arguments_of(name: str) -> dict[str, Argument]:
    """The arguments of a class in `class_sources`, without those that the run decides."""
    classes = {
        node.name: node
        for node in _parse(class_sources()[name]).body
        if isinstance(node, ast.ClassDef)
    }
    return _constructor(classes, name)


def _constructor(classes: dict[str, ast.ClassDef], name: str) -> dict[str, Argument]:
    for node in classes[name].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _arguments(node.args)
    bases = [item.id for item in classes[name].bases if isinstance(item, ast.Name)]
    inherited = [base for base in bases if base in classes]
    return _constructor(classes, inherited[0]) if inherited else {}


def _arguments(signature: ast.arguments) -> dict[str, Argument]:
    positional = [*signature.posonlyargs, *signature.args]
    # Defaults belong to the last ones.
    bare = len(positional) - len(signature.defaults)
    required = {item.arg for item in positional[:bare]}
    required |= {
        item.arg
        for item, default in zip(signature.kwonlyargs, signature.kw_defaults, strict=True)
        if default is None
    }
    return {
        item.arg: Argument(*_kinds(item.annotation), item.arg in required)
        for item in [*positional, *signature.kwonlyargs]
        if item.arg not in _OURS
    }


_KINDS = {
    "bool": {"bool"},
    "int": {"int"},
    "float": {"int", "float"},
    "str": {"str"},
    "Betas": {"list"},
    "tuple": {"list"},
    "list": {"list"},
    "Tuple": {"list"},
}


def _kinds(annotation: ast.expr | None) -> tuple[frozenset[str], tuple[str, ...]]:
    """The types in an annotation such as `float | None`, and the words of a `Literal`."""
    if annotation is None:
        return frozenset(), ()
    choices: list[str] = []
    kinds: set[str] = set()
    heads = [annotation]
    while heads:
        node = heads.pop()
        if isinstance(node, ast.BinOp):
            heads += [node.left, node.right]
        elif isinstance(node, ast.Subscript):
            inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
            head = node.value.id if isinstance(node.value, ast.Name) else ""
            if head == "Literal":
                words = [item.value for item in inner if isinstance(item, ast.Constant)]
                choices += [word for word in words if isinstance(word, str)]
                kinds.add("str")
            elif head in ("Optional", "Union"):
                heads += inner
            else:
                kinds |= _KINDS.get(head, set())
        elif isinstance(node, ast.Name):
            kinds |= _KINDS.get(node.id, {"any"})
    # A type that this reader does not know may take anything: the class itself will say.
    return frozenset() if "any" in kinds else frozenset(kinds), tuple(choices)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
