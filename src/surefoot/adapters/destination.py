"""Where a result goes: refused while something is in the way, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from surefoot.finding import Finding
from surefoot.formats.files import sync_folder, sync_tree


def destination_findings(
    out: Path, sources: Sequence[Path], *, force: bool, folder: bool = False
) -> list[Finding]:
    """What speaks against writing to `out`.

    Args:
        out: The file or folder to be.
        sources: What is read for it, which must not be replaced.
        force: Whether something that is there may be replaced.
        folder: Whether it is to be a model's folder.
    """
    values = {"file": str(out)}
    if any(_same(out, source) for source in sources):
        return [Finding("SF073", "error", "", dict(values))]
    if _exists(out):
        if not force:
            return [Finding("SF071", "error", "", dict(values))]
        # Whatever else a folder holds is not ours to delete.
        if out.is_dir() and not (folder and (out / "model_index.json").is_file()):
            return [Finding("SF087", "error", "", dict(values))]
    try:
        # Asking for permission bits is not enough: read-only mounts and root tell otherwise.
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        return [unwritable(out, error)]
    return []


def unwritable(out: Path, error: OSError) -> Finding:
    """The finding about a result that could not be written."""
    reason = error.strerror or type(error).__name__
    return Finding("SF072", "error", "", {"file": str(out), "reason": reason})


@contextmanager
def replacing_folder(out: Path) -> Generator[Path]:
    """Gives an empty folder beside `out` to fill; at the end it takes the place of `out`.

    After an error it is removed, and what was at `out` is still there.

    Raises:
        OSError: The disk is full, the folder around is not writable.
    """
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    old = part.with_suffix(".old")
    try:
        part.mkdir()
        yield part
        sync_tree(part)
        if out.exists():
            out.rename(old)
        part.rename(out)
        sync_folder(out.parent)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        for left_over in (part, old):
            shutil.rmtree(left_over, ignore_errors=True)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one, or one holds the other."""
    first, second = Path(os.path.realpath(one)), Path(os.path.realpath(other))
    return first == second or first in second.parents or second in first.parents
