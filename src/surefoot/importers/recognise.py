"""Whose file it is, told from what is in it and not from its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from surefoot.finding import Finding, Refused
from surefoot.importers.command_text import read_commands, read_variables
from surefoot.importers.document import FORMAT_NAMES, Document, Format, Unreadable, read_text
from surefoot.importers.json_text import read_json
from surefoot.importers.record import TRAINER_NAMES, Trainer
from surefoot.importers.signs import SIGNS, is_run_toml
from surefoot.importers.toml_text import read_toml

_READERS: dict[Format, Callable[[str], Document]] = {
    "json": read_json,
    "toml": read_toml,
    "yaml": lambda text: _read_yaml(text),
    "env": read_variables,
}
_BY_SUFFIX: dict[str, Format] = {
    ".json": "json", ".jsonc": "json", ".json5": "json", ".toml": "toml", ".yaml": "yaml",
    ".yml": "yaml", ".env": "env", ".sh": "command", ".bat": "command", ".cmd": "command",
    ".ps1": "command",
}  # fmt: skip


@dataclass(frozen=True)
class Theirs:
    """A file of another trainer."""

    trainer: Trainer
    document: Document
    text: str


def recognise(path: Path) -> Theirs | None:
    """The trainer that a file is for; `None` if it is a run.toml.

    Raises:
        Refused: If it cannot be read, is no trainer's, or could be of several.
    """
    text = read_text(path)
    documents, faults = _documents(path, text)
    if any(document.format == "toml" and is_run_toml(document) for document in documents):
        return None
    found = [
        Theirs(trainer, document, text)
        for document in documents
        for trainer, signs in SIGNS.items()
        if signs(document)
    ]
    trainers: list[Trainer] = list(dict.fromkeys(theirs.trainer for theirs in found))
    if len(trainers) > 1:
        raise Refused([_several(path, trainers)])
    if len(found) > 1:
        raise Refused([_several_commands(path, found)])
    if found:
        return found[0]
    raise Refused([_nobodys(path, documents, faults)])


def _read_yaml(text: str) -> Document:
    # Imported late: a run.toml, which is also asked whose it is, needs no YAML.
    from surefoot.importers.yaml_text import read_yaml

    return read_yaml(text)


def _documents(path: Path, text: str) -> tuple[list[Document], dict[Format, Unreadable]]:
    """The file in every format that it can be read as."""
    faults: dict[Format, Unreadable] = {}
    commands = read_commands(text)
    if commands:
        return commands, faults
    suffix = _BY_SUFFIX.get(path.suffix.lower())
    formats: list[Format] = [suffix] if suffix in _READERS else list(_READERS)
    documents: list[Document] = []
    for name in formats:
        try:
            documents.append(_READERS[name](text))
        except Unreadable as fault:
            faults[name] = fault
        if documents:
            break
    return documents, faults


def _several(path: Path, trainers: Sequence[Trainer]) -> Finding:
    names = " / ".join(TRAINER_NAMES[trainer] for trainer in trainers)
    return Finding("SF092", "error", "", {"file": str(path), "trainers": names})


def _several_commands(path: Path, found: Sequence[Theirs]) -> Finding:
    scripts = ", ".join(theirs.document.script for theirs in found)
    return Finding("SF095", "error", "", {"file": str(path), "scripts": scripts})


def _nobodys(
    path: Path, documents: Sequence[Document], faults: dict[Format, Unreadable]
) -> Finding:
    suffix = _BY_SUFFIX.get(path.suffix.lower())
    if not documents and suffix in faults:
        fault = faults[suffix]
        values = {
            "file": str(path), "format": FORMAT_NAMES[suffix], "line": fault.line,
            "reason": fault.reason,
        }  # fmt: skip
        return Finding("SF090", "error", "", dict(values))
    names = ", ".join(TRAINER_NAMES.values())
    return Finding("SF091", "error", "", {"file": str(path), "trainers": names})
