"""The bytes of a file that a user names, or one sentence on why there are none."""

from __future__ import annotations

import stat
from pathlib import Path

from surefoot.finding import Finding, Refused
from surefoot.language import N_

MOST_BYTES = 4_000_000


def read_whole(path: Path) -> bytes:
    """All bytes of a file that is to be a config.

    Raises:
        Refused: If it cannot be read, is no regular file, or is too large for a config.
    """
    try:
        # A pipe that nothing writes to would be waited for without end.
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise unreadable(path, N_("not a regular file"))
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise unreadable(path, N_("file not found")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise unreadable(path, reason or type(error).__name__) from None
    if len(content) > MOST_BYTES:
        raise unreadable(path, N_("larger than 4 MB, which no config is"))
    return content


def unreadable(path: Path, reason: str) -> Refused:
    """The refusal of a file, with its reason."""
    return Refused([Finding("SF001", "error", "", {"file": str(path), "reason": reason})])
