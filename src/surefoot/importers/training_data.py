"""Folders of pictures, steps and names, which all trainers have in some way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from surefoot.data.scan import IMAGE_SUFFIXES
from surefoot.finding import Value
from surefoot.importers.account import Account
from surefoot.importers.record import TRAINER_NAMES, Setting, TomlValue
from surefoot.language import N_

ASSUMED_STEPS = 1500
EXAMPLE_FOLDER = "pictures"
EPOCHS_OF = N_("{epochs:g} epochs of {pictures} pictures in steps of {batch}")
UNKNOWN_STEPS = N_("the pictures were not found, so that {epochs:g} epochs cannot be counted in "
                   "steps; set train.steps")  # fmt: skip
NO_FOLDER = N_("the file names no folder of pictures; write yours here")
FIRST_FOLDER = N_("surefoot has it once for all folders, and takes the first one's")
READ_TOO = N_("the file beside it was read too")
_MOST_COUNTED = 1_000_000


def set_folders_of_file(
    account: Account, folders: list[tuple[str, int]], key: str, unread: tuple[str, str]
) -> None:
    """Sets `data.folders` from a file beside the config.

    Args:
        account: The account.
        folders: What the file says; nothing if it was not read.
        key: The key that names the file.
        unread: Why it was not read, as `read_beside` says it.
    """
    reason, why = unread
    set_folders(account, folders)
    if reason:
        trainer = TRAINER_NAMES[account.trainer]
        if not folders:
            values: dict[str, Value] = {"trainer": trainer, "reason": why}
            setting = account.settings["data.folders"]
            account.settings["data.folders"] = replace(setting, reason=reason, values=values)
        account.drop(key, reason, trainer=trainer, reason=why)
    elif folders:
        account.use(key, "data.folders", READ_TOO)


def set_folders(account: Account, folders: list[tuple[str, int]]) -> None:
    """Sets `data.folders` from paths and repeats; without any, an example stands there."""
    if folders:
        tables: tuple[dict[str, str | int], ...] = tuple(
            {"path": path, "repeats": repeats} for path, repeats in folders
        )
        account.settings["data.folders"] = Setting(tables, "")
        return
    example: dict[str, str | int] = {"path": EXAMPLE_FOLDER}
    account.settings["data.folders"] = Setting((example,), "", NO_FOLDER)


def set_for_all(
    account: Account, path: str, keys: Sequence[str], value: Callable[[str], TomlValue]
) -> None:
    """Sets what run.toml has once from keys of several folders, of which the first counts.

    Args:
        account: The account.
        path: What to set.
        keys: For each folder the key that it goes by; empty where it has the trainer's default.
        value: The value of such a key in surefoot's terms, and of an empty one.
    """
    chosen = value(keys[0])
    account.set(path, chosen, keys[0])
    for key in dict.fromkeys(keys[1:]):
        if key not in ("", keys[0]):
            account.use(key, path, "" if value(key) == chosen else FIRST_FOLDER)


def set_steps(
    account: Account, *, epochs: float, epochs_key: str, steps: int = 0, steps_key: str = ""
) -> None:
    """Sets `train.steps`: as given, or epochs of the pictures if these are on this machine.

    It comes after the batch and the folders, of which it is made.
    """
    if steps > 0:
        account.set("train.steps", steps, steps_key)
        return
    pictures, batch = counted_pictures(account), _pictures_in_a_step(account)
    if pictures:
        counted = max(1, int(epochs * pictures / batch))
        account.set("train.steps", counted, epochs_key, EPOCHS_OF, epochs=epochs,
                    pictures=pictures, batch=batch)  # fmt: skip
    else:
        account.steps_known = False
        account.set("train.steps", ASSUMED_STEPS, epochs_key, UNKNOWN_STEPS, epochs=epochs)


def _pictures_in_a_step(account: Account) -> int:
    batch = 1
    for path in ("train.batch_size", "train.gradient_accumulation"):
        size = account.settings[path].value if path in account.settings else 1
        batch *= max(1, size) if isinstance(size, int) else 1
    return batch


def counted_pictures(account: Account) -> int:
    """Pictures times repeats in the folders of the run; 0 if one is not there."""
    setting = account.settings.get("data.folders")
    tables = setting.value if setting is not None else ()
    total = 0
    for table in tables if isinstance(tables, tuple) else ():
        if isinstance(table, dict):
            count = _pictures_in(Path(str(table["path"])).expanduser())
            if not count:
                return 0
            total += count * int(table.get("repeats", 1))
    return total


def _pictures_in(folder: Path) -> int:
    count = 0
    for _where, _folders, files in os.walk(folder):
        count += sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files)
        if count > _MOST_COUNTED:
            break
    return count


def run_name(text: str) -> str:
    """A name that a run may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:100]
    return name or "imported"


def whole_side(text: str) -> int:
    """The first number of a resolution such as `1024`, `512,768` or `1024x768`; 0 if none."""
    found = re.match(r"\s*\[?\(?\s*(\d{1,5})", text)
    return int(found[1]) if found else 0
