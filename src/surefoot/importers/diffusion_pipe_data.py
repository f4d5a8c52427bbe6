"""diffusion-pipe's file of the data set, which `dataset` names.

Source: diffusion-pipe 8f83dbf (2026-08-20), utils/dataset.py, examples/dataset.toml.
"""

from __future__ import annotations

from surefoot.importers.account import Account
from surefoot.importers.reasons import FIRST_OF_SEVERAL, WHOLE_REPEATS
from surefoot.importers.training_data import set_for_all, whole_side
from surefoot.language import N_

BELOW = "dataset"

FROM_SHAPE = N_("the first number stands for the side; surefoot makes shapes of one area itself")


def directory_folders(account: Account) -> tuple[list[str], list[tuple[str, int]]]:
    """Where the keys of each folder begin, and the folders with their repeats."""
    kept: list[str] = []
    folders: list[tuple[str, int]] = []
    for number in range(account.document.items(f"{BELOW}.directory")):
        here = f"{BELOW}.directory.{number}"
        path = account.text(f"{here}.path")
        if not path:
            continue
        place = f"data.folders.{len(folders)}"
        given = account.number(f"{here}.num_repeats", 1.0)
        repeats = max(1, round(given))
        account.use(f"{here}.path", f"{place}.path")
        account.use(f"{here}.num_repeats", f"{place}.repeats",
                    "" if given == repeats else WHOLE_REPEATS)  # fmt: skip
        folders.append((path, repeats))
        kept.append(here)
    return kept, folders


def set_of_directories(account: Account, kept: list[str]) -> None:
    """Sets what run.toml has once: the resolution."""
    keys = [_resolutions(account, here) for here in kept]
    if not any(keys):
        return
    set_for_all(account, "data.resolution", keys, lambda key: _side(account, key))
    for key in dict.fromkeys(key for key in keys if key):
        given = account.get(key)
        if isinstance(given, tuple) and len(given) > 1:
            account.use(key, "data.resolution", FIRST_OF_SEVERAL)
        elif not account.has(key):
            for part in (f"{key}.{number}" for number in range(account.document.items(key))):
                account.use(part, "data.resolution", FROM_SHAPE)


def _resolutions(account: Account, here: str) -> str:
    """The folder's own, or those of all; pairs of numbers stand one level deeper."""
    places = (f"{here}.resolutions", f"{BELOW}.resolutions")
    return next((key for key in places if account.document.has(key)), "")


def _side(account: Account, key: str) -> int | str:
    given = account.get(key if account.has(key) else f"{key}.0")
    side = whole_side(str(given[0] if isinstance(given, tuple) and given else given))
    return side if 8 <= side <= 8192 else "auto"
