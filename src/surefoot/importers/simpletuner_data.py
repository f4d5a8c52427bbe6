"""SimpleTuner's list of data sets, which `data_backend_config` names.

Source: SimpleTuner bc8e6ab (2026-08-22), documentation/DATALOADER.md.
"""

from __future__ import annotations

import math

from surefoot.importers.account import Account
from surefoot.importers.reasons import SWITCHED_OFF
from surefoot.importers.training_data import set_for_all, whole_side
from surefoot.language import N_

BELOW = "data_backend_config"

NOT_LOCAL = N_("surefoot reads folders on this machine alone")
OTHER_KIND = N_("surefoot trains on pictures alone")
REPEATED_FURTHER = N_("SimpleTuner counts how often further, surefoot how often in all")
FROM_AREA = N_("the side of a square of that area")
OF_SHORTER_EDGE = N_(
    "SimpleTuner's is the shorter edge, surefoot's the side of a square of that area"
)


def backend_folders(account: Account) -> tuple[list[str], list[tuple[str, int]]]:
    """Where the keys of each folder of pictures begin, and the folders with their repeats."""
    kept: list[str] = []
    folders: list[tuple[str, int]] = []
    for number in range(account.document.items(BELOW)):
        here = f"{BELOW}.{number}"
        place = f"data.folders.{len(folders)}"
        if not _is_of_pictures(account, here):
            continue
        key = f"{here}.repeats"
        account.use(f"{here}.instance_data_dir", f"{place}.path")
        account.use(key, f"{place}.repeats", REPEATED_FURTHER)
        account.use(f"{here}.type", f"{place}.path")
        account.use(f"{here}.dataset_type", f"{place}.path")
        folders.append(
            (account.text(f"{here}.instance_data_dir"), 1 + max(0, account.whole(key, 0)))
        )
        kept.append(here)
    return kept, folders


def _is_of_pictures(account: Account, here: str) -> bool:
    key = f"{here}.instance_data_dir"
    if account.text(f"{here}.dataset_type", "image") != "image":
        account.drop(f"{here}.dataset_type", OTHER_KIND, matters=False)
        account.drop(key, OTHER_KIND, matters=False)
        return False
    for name in ("disabled", "disable"):
        if account.flag(f"{here}.{name}"):
            account.drop(key, SWITCHED_OFF, trainer="SimpleTuner")
            return False
    if account.text(f"{here}.type", "local") != "local":
        account.drop(f"{here}.type", NOT_LOCAL)
        return False
    return bool(account.text(key))


def set_of_backends(account: Account, kept: list[str]) -> None:
    """Sets what run.toml has once: the resolution."""
    keys = [key if account.has(key := f"{here}.resolution") else "" for here in kept]
    if not any(keys):
        return
    set_for_all(account, "data.resolution", keys, lambda key: _side(account, key))
    for here, key in zip(kept, keys, strict=True):
        kind_key = f"{here}.resolution_type"
        kind = account.text(kind_key, account.text("resolution_type", "pixel_area"))
        reasons = {"area": FROM_AREA, "pixel": OF_SHORTER_EDGE}
        account.use(kind_key, "data.resolution", reasons.get(kind, ""))
        if key and account.has(kind_key) and kind == "area":
            account.use(key, "data.resolution", FROM_AREA)


def _side(account: Account, key: str) -> int | str:
    """Pixels; an area is given in millions of them, and sides are multiples of 64."""
    begin = key.rpartition(".")[0]
    kind = account.text(f"{begin}.resolution_type", account.text("resolution_type", "pixel_area"))
    if not key:
        return "auto"
    if kind == "area":
        area = account.number(key, 1.0)
        side = round(math.sqrt(max(0.0, area) * 1e6) / 64) * 64
    else:
        side = whole_side(account.text(key))
    return side if 8 <= side <= 8192 else "auto"
