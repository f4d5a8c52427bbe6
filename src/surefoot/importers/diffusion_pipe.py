"""diffusion-pipe's TOML. Source: diffusion-pipe 8f83dbf (2026-08-20), train.py."""

from __future__ import annotations

from pathlib import Path, PurePath

from surefoot.importers.account import Account
from surefoot.importers.beside import read_beside
from surefoot.importers.diffusion_pipe_data import (
    BELOW,
    directory_folders,
    set_of_directories,
)
from surefoot.importers.document import Document
from surefoot.importers.optimizer_options import options_below, set_options
from surefoot.importers.optimizers import Counterpart, library_class, set_optimizer
from surefoot.importers.reasons import (
    ALPHA_IS_RANK,
    NAMED_TARGETS,
    NO_ADAPTER,
    NO_SCHEDULE,
    WHOLE_MEMORY,
)
from surefoot.importers.record import Spelling, TheirRun
from surefoot.importers.settle import settled
from surefoot.importers.training_data import run_name, set_folders_of_file, set_steps
from surefoot.language import N_

_OWN: dict[str, Counterpart | None] = {
    "adamw": Counterpart("adamw"),
    "adamw8bit": Counterpart("adamw_8bit"),
    "adamw_optimi": Counterpart("adamw"),
    "stableadamw": Counterpart("stable_adamw"),
    "adamw8bitkahan": Counterpart("adamw", reason=WHOLE_MEMORY),
    "offload": None,
    "automagic": None,
    "genericoptim": None,
    "sgd": None,
}
SPELLINGS: dict[str, Spelling] = {
    **{
        f"optimizer.{field}": Spelling(f"optimizer.{field}")
        for field in ("scale_parameter", "relative_step", "warmup_init", "weight_decay", "lr")
    },
    "train.clip_grad_norm": Spelling("gradient_clipping"),
    "tuning.rank": Spelling("adapter.rank"),
    "schedule.kind": Spelling("lr_scheduler"),
    "schedule.warmup_steps": Spelling("warmup_steps"),
}
ALPHA_FORBIDDEN = N_("it takes no alpha: remove the key, alpha is always the rank")
NEVER_SAVES = N_("one of save_every_n_steps, save_every_n_epochs and save_every_n_examples is "
                 "needed")  # fmt: skip
IGNORED_RATE = N_("relative_step is true unless the file says false")


def read_diffusion_pipe(document: Document, path: Path) -> tuple[TheirRun, ...]:
    """The run that diffusion-pipe makes of the file.

    Raises:
        Refused: If a value is of a wrong type.
    """
    account = Account("diffusion_pipe", document, SPELLINGS)
    family = account.text("model.type", "unknown")
    account.set("model.family", family, "model.type")
    paths = [key for key in ("model.diffusers_path", "model.checkpoint_path", "model.ckpt_path",
                             "model.transformer_path") if account.has(key)]  # fmt: skip
    path_key = paths[0] if paths else "model.diffusers_path"
    account.set("model.path", account.text(path_key, "unknown"), path_key)
    _train(account)
    _tuning(account)
    _optimizer(account)
    _schedule(account)
    _data(account, path.parent)
    settled(account)
    return (account.close(family),)


def _train(account: Account) -> None:
    key = "micro_batch_size_per_gpu"
    account.set("train.batch_size", max(1, account.whole(key, 1)), key)
    key = "gradient_accumulation_steps"
    account.set("train.gradient_accumulation", account.whole(key, 1), key)
    released = account.flag("optimizer.gradient_release")
    clip = account.number("gradient_clipping", 1.0)
    account.set("train.clip_grad_norm", "off" if released or clip <= 0 else clip,
                "gradient_clipping")  # fmt: skip
    account.set("train.precision", "bf16", "model.dtype")
    checkpointing = account.get("activation_checkpointing") not in (None, False)
    account.set("train.gradient_checkpointing", checkpointing, "activation_checkpointing")


def _tuning(account: Account) -> None:
    if not account.document.has("adapter"):
        account.set("tuning.kind", "full")
        account.set("tuning.weights", "bf16")
        return
    kind = account.text("adapter.type", "lora")
    known = kind in ("lora", "lokr")
    account.set(
        "tuning.kind", kind if known else "lora", "adapter.type", "" if known else NO_ADAPTER
    )
    rank = account.whole("adapter.rank", 32)
    account.set("tuning.rank", rank, "adapter.rank")
    account.set("tuning.alpha", float(rank))
    account.set("tuning.dropout", account.number("adapter.dropout", 0.0), "adapter.dropout")
    if kind == "lokr":
        factor = account.whole("adapter.decompose_factor", -1)
        account.set("tuning.factor", factor if factor > 1 else "auto", "adapter.decompose_factor")
    account.set("tuning.targets", "linear", "", NAMED_TARGETS)
    if account.has("adapter.alpha"):
        account.drop("adapter.alpha", ALPHA_IS_RANK)
        account.find("SF710", "error", "adapter.alpha", reason=ALPHA_FORBIDDEN)


def _optimizer(account: Account) -> None:
    key = "optimizer.type"
    name = account.text(key, "adamw_optimi")
    found = _OWN.get(name.lower(), None if name.lower() in _OWN else _of_the_library(name))
    kind = set_optimizer(account, found, key)
    account.set("optimizer.lr", account.number("optimizer.lr", 1e-3), "optimizer.lr")
    options = options_below(account, "optimizer.")
    for own in ("type", "lr", "gradient_release"):
        options.pop(own, None)
    account.use("optimizer.gradient_release", "train.clip_grad_norm")
    set_options(account, kind, options)
    if name == "AdaFactor":
        _adafactor(account)
    elif kind == "adamw" and not account.has("optimizer.weight_decay"):
        account.set("optimizer.weight_decay", 0.0 if "optimi" in name.lower() else 0.01)


def _of_the_library(name: str) -> Counterpart:
    return Counterpart("adafactor") if name == "AdaFactor" else library_class(name)


def _adafactor(account: Account) -> None:
    """pytorch_optimizer's: both switches are true, and momentum is on, unless said otherwise."""
    for field in ("scale_parameter", "relative_step"):
        key = f"optimizer.{field}"
        account.set(key, account.flag(key, True), key if account.has(key) else "optimizer.type")
    if "optimizer.beta1" not in account.settings:
        account.set("optimizer.beta1", 0.9)
    account.find("SF713", "warning", "optimizer.type")
    if account.settings["optimizer.relative_step"].value and account.has("optimizer.lr"):
        rate = account.number("optimizer.lr", 1e-3)
        account.settings.pop("optimizer.lr")
        account.drop("optimizer.lr", IGNORED_RATE)
        account.find("SF711", "error", "optimizer.lr", given=f"{rate:g}", used="1e-2",
                     reason=IGNORED_RATE)  # fmt: skip


def _schedule(account: Account) -> None:
    key = "lr_scheduler"
    name = account.text(key, "constant")
    if name in ("constant", "linear", "cosine"):
        account.set("schedule.kind", name, key)
    else:
        account.judged.discard("schedule")
        account.set("schedule.kind", "constant", key, NO_SCHEDULE)
    account.set("schedule.warmup_steps", account.whole("warmup_steps", 0), "warmup_steps")


def _data(account: Account, folder: Path) -> None:
    unread = read_beside(account, folder, BELOW, BELOW)
    kept, folders = directory_folders(account)
    set_folders_of_file(account, folders, BELOW, unread)
    set_of_directories(account, kept)
    account.set("captions.missing", "empty")
    rate = account.number("uncond_fraction", 0.0)
    account.set("captions.dropout", rate, "uncond_fraction")
    name = PurePath(account.text("output_dir", "imported")).name
    account.set("name", run_name(name), "output_dir")
    every = account.whole("save_every_n_steps", 0)
    if every > 0:
        account.set("save.every", every, "save_every_n_steps")
    epochs = account.whole("save_every_n_epochs", 0)
    if epochs > 0:
        account.set("save.every_epochs", float(epochs), "save_every_n_epochs")
    minutes = account.number("checkpoint_every_n_minutes", 0.0)
    if minutes > 0:
        account.set("save.every_minutes", minutes, "checkpoint_every_n_minutes")
    saves = ("save_every_n_steps", "save_every_n_epochs", "save_every_n_examples")
    if not any(account.has(save) for save in saves):
        account.find("SF710", "error", "save_every_n_epochs", reason=NEVER_SAVES)
    set_steps(
        account,
        steps=account.whole("max_steps", 0),
        steps_key="max_steps",
        epochs=account.number("epochs", 1),
        epochs_key="epochs",
    )
