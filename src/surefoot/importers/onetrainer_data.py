"""OneTrainer's concepts, samples, steps and backups."""

from __future__ import annotations

from pathlib import PurePath

from surefoot.importers.account import Account
from surefoot.importers.reasons import FIRST_OF_SEVERAL, WHOLE_REPEATS
from surefoot.importers.training_data import run_name, set_folders, set_steps, whole_side
from surefoot.language import N_

WRITTEN_ELSEWHERE = N_("OneTrainer keeps the folders in this file; write them into data.folders")
NOT_TRAINED_ON = N_("switched off in OneTrainer")
PRIOR_CONCEPT = N_("surefoot has no {kind} concepts")


def set_onetrainer_data(account: Account) -> None:
    """Sets data, validation, previews, checkpoints, the name and the number of steps."""
    folders = _folders(account)
    set_folders(account, folders, "concept_file_name", WRITTEN_ELSEWHERE)
    resolution = account.text("resolution", "512")
    reason = FIRST_OF_SEVERAL if "," in resolution or "x" in resolution else ""
    account.set("data.resolution", whole_side(resolution) or "auto", "resolution", reason)
    account.set("captions.missing", "empty")
    key = "text_encoder.dropout_probability"
    account.set("captions.dropout", account.number(key, 0.0), key)
    cached = account.flag("latent_caching", True)
    account.set("data.cache", "disk" if cached else "off", "latent_caching")
    name = account.text("output_model_destination", "models/model.safetensors")
    account.set(
        "name", run_name(PurePath(name.replace("\\", "/")).stem), "output_model_destination"
    )
    set_steps(account, epochs=account.number("epochs", 100), epochs_key="epochs")
    _previews(account)
    _saves(account)


def _folders(account: Account) -> list[tuple[str, int]]:
    """Path and repeats of each concept that is trained on."""
    folders: list[tuple[str, int]] = []
    number = 0
    while account.document.has(f"concepts.{number}"):
        here = f"concepts.{number}"
        path = account.text(f"{here}.path")
        kind = account.text(f"{here}.type", "STANDARD")
        if not account.flag(f"{here}.enabled", True):
            account.drop(f"{here}.path", NOT_TRAINED_ON)
        elif kind == "VALIDATION":
            account.set("validation.folder", path, f"{here}.path")
            account.use(f"{here}.type", "validation.folder")
        elif kind != "STANDARD":
            account.drop(f"{here}.path", PRIOR_CONCEPT, kind=kind)
        elif path:
            repeats = account.number(f"{here}.balancing", 1.0)
            folders.append((path, max(1, round(repeats))))
            place = f"data.folders.{len(folders) - 1}"
            account.use(f"{here}.path", f"{place}.path")
            reason = "" if repeats == folders[-1][1] else WHOLE_REPEATS
            account.use(f"{here}.balancing", f"{place}.repeats", reason)
            if account.flag(f"{here}.image.enable_random_flip"):
                account.set("data.flip", True, f"{here}.image.enable_random_flip")
        number += 1
    return folders


def _previews(account: Account) -> None:
    prompts: list[str] = []
    number = 0
    while account.document.has(f"samples.{number}"):
        here = f"samples.{number}"
        prompt = account.text(f"{here}.prompt")
        if account.flag(f"{here}.enabled", True) and prompt:
            prompts.append(prompt)
            account.use(f"{here}.prompt", "preview.prompts")
        number += 1
    if prompts:
        account.set("preview.prompts", tuple(prompts))


def _saves(account: Account) -> None:
    for name in ("backup_after", "save_every"):
        if account.text(f"{name}_unit") == "STEP" and account.whole(name, 0) > 0:
            account.set("save.every", account.whole(name, 1), name)
            account.use(f"{name}_unit", "save.every")
    if account.flag("rolling_backup"):
        keep = max(1, account.whole("rolling_backup_count", 3))
        account.set("save.keep", keep, "rolling_backup_count")
        account.use("rolling_backup", "save.keep")
