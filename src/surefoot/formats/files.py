"""Files that are whole, or as they were before, whatever happens meanwhile. No torch."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Gives a name beside `path` to write to; at the end that file takes the place of `path`.

    The file is brought to the disk and only then renamed. After an error it is removed, and what
    was at `path` is still there.

    Raises:
        OSError: The disk is full, the folder is missing or not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        _sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a text, in UTF-8 with its line ends as they are, or bytes; whole or not at all.

    Raises:
        OSError: As `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_tree(folder: Path) -> None:
    """Brings everything in a folder to the disk, such as one that is about to be renamed."""
    for parent, _folders, files in os.walk(folder):
        for name in files:
            _sync_file(Path(parent) / name)
        sync_folder(Path(parent))


def sync_folder(folder: Path) -> None:
    """Brings a rename in this folder to the disk. Windows opens no folders; it journals renames."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
