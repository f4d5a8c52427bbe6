"""OneTrainer's concepts, samples, steps and backups."""

from __future__ import annotations

from pathlib import Path, PurePath

from surefoot.importers.account import Account
from surefoot.importers.beside import read_beside
from surefoot.importers.reasons import FIRST_OF_SEVERAL, SWITCHED_OFF, WHOLE_REPEATS
from surefoot.importers.training_data import (
    run_name,
    set_folders_of_file,
    set_steps,
    whole_side,
)
from surefoot.language import N_

PRIOR_CONCEPT = N_("surefoot has no {kind} concepts")


def set_onetrainer_data(account: Account, folder: Path) -> None:
    """Sets data, validation, previews, checkpoints, the name and the number of steps.

    Args:
        account: The account.
        folder: The config's, beside which the files of concepts and samples may lie.
    """
    key = "concept_file_name"
    # What stands in the config itself goes before the file.
    packed = account.document.items("concepts") > 0
    unread = ("", "") if packed else read_beside(account, folder, key, "concepts")
    set_folders_of_file(account, _folders(account), key, unread)
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
    _previews(account, folder)
    _saves(account)


def _folders(account: Account) -> list[tuple[str, int]]:
    """Path and repeats of each concept that is trained on."""
    folders: list[tuple[str, int]] = []
    for number in range(account.document.items("concepts")):
        here = f"concepts.{number}"
        path = account.text(f"{here}.path")
        kind = _kind(account, here)
        if not account.flag(f"{here}.enabled", True):
            account.drop(f"{here}.path", SWITCHED_OFF, trainer="OneTrainer")
        elif kind == "VALIDATION":
            account.set("validation.folder", path, f"{here}.path")
            account.use(f"{here}.type", "validation.folder")
        elif kind != "STANDARD":
            account.drop(f"{here}.path", PRIOR_CONCEPT, kind=kind)
        elif path:
            repeats_key = f"{here}.{'balancing' if account.has(f'{here}.balancing') else 'repeats'}"
            repeats = account.number(repeats_key, 1.0)
            folders.append((path, max(1, round(repeats))))
            place = f"data.folders.{len(folders) - 1}"
            account.use(f"{here}.path", f"{place}.path")
            reason = "" if repeats == folders[-1][1] else WHOLE_REPEATS
            account.use(repeats_key, f"{place}.repeats", reason)
            if account.flag(f"{here}.image.enable_random_flip"):
                account.set("data.flip", True, f"{here}.image.enable_random_flip")
    return folders


def _kind(account: Account, here: str) -> str:
    """What a concept is for; before version 2 of concepts a switch said so."""
    older = account.flag(f"{here}.validation_concept")
    return account.text(f"{here}.type", "VALIDATION" if older else "STANDARD")


def _previews(account: Account, folder: Path) -> None:
    key = "sample_definition_file_name"
    if account.document.items("samples") == 0:
        reason, why = read_beside(account, folder, key, "samples")
        if reason:
            account.drop(key, reason, trainer="OneTrainer", reason=why, matters=False)
    prompts: list[str] = []
    for number in range(account.document.items("samples")):
        here = f"samples.{number}"
        prompt = account.text(f"{here}.prompt")
        if account.flag(f"{here}.enabled", True) and prompt:
            prompts.append(prompt)
            account.use(f"{here}.prompt", "preview.prompts")
    if prompts:
        account.set("preview.prompts", tuple(prompts))


# The trainer's units, and how many of ours each is.
_SAVE_UNITS = {
    "STEP": ("save.every", 1.0),
    "EPOCH": ("save.every_epochs", 1.0),
    "SECOND": ("save.every_minutes", 1 / 60),
    "MINUTE": ("save.every_minutes", 1.0),
    "HOUR": ("save.every_minutes", 60.0),
}


def _saves(account: Account) -> None:
    for name in ("backup_after", "save_every"):
        unit, every = account.text(f"{name}_unit"), account.number(name, 0.0)
        if unit in _SAVE_UNITS and every > 0:
            key, factor = _SAVE_UNITS[unit]
            account.set(key, round(every) if unit == "STEP" else every * factor, name)
            account.use(f"{name}_unit", key)
    if account.flag("rolling_backup"):
        keep = max(1, account.whole("rolling_backup_count", 3))
        account.set("save.keep", keep, "rolling_backup_count")
        account.use("rolling_backup", "save.keep")
