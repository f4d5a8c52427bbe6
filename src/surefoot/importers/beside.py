"""Files that a config names and that lie beside it, such as those of the data set."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from surefoot.finding import Refused
from surefoot.importers.account import Account
from surefoot.importers.document import Document, Unreadable, read_text
from surefoot.importers.json_text import read_json
from surefoot.importers.toml_text import read_toml
from surefoot.language import N_

NOT_BESIDE = N_("{trainer} keeps this in a file that is not beside the config: put it there, or "
                "write its settings into run.toml")  # fmt: skip
NOT_READ = N_("{trainer} keeps this in a file that cannot be read ({reason}): write its settings "
              "into run.toml")  # fmt: skip


def read_beside(
    account: Account, folder: Path, key: str, below: str, *, refuses: bool = False
) -> tuple[str, str]:
    """Adds to an account what the file says that one of its keys names.

    Only regular files are opened, of the size that a config may have. The file's keys are called
    by the file's name and their own.

    Args:
        account: The account.
        folder: The config's folder, from which relative paths start.
        key: The key with the file's path.
        below: The key under which its keys go.
        refuses: Whether the trainer stops at a key there that it does not know.

    Returns:
        Why it was not read, a message, and what stands there for `{reason}`; empty if it was, or if
        no file is named.
    """
    given = account.text(key)
    if not given:
        return "", ""
    path = _found(folder, given)
    if path is None:
        return NOT_BESIDE, ""
    try:
        document = _read(path, below)
    except Unreadable as fault:
        return NOT_READ, fault.reason
    except Refused as refused:
        return NOT_READ, str(refused.findings[0].values.get("reason", ""))
    names = {name: f"{path.name}: {name.removeprefix(f'{below}.')}" for name in document.values}
    account.add(document.values, names, refuses=refuses)
    return "", ""


def _found(folder: Path, given: str) -> Path | None:
    """The file as the path says, or of the same name in the config's folder."""
    # Trainers start relative paths at their own folder, and files are copied together.
    for candidate in (folder / given, folder / PureWindowsPath(given).name):
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):
            continue
    return None


def _read(path: Path, below: str) -> Document:
    read = read_toml if path.suffix.lower() == ".toml" else read_json
    return read(read_text(path), below)
