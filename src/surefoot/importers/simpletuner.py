"""SimpleTuner's JSON, TOML and env files.

Keys are arguments, with or without `--`, values may be text. Source: SimpleTuner bc8e6ab
(2026-08-22), helpers/configuration, helpers/training/optimizer_param.py, custom_schedule.py.
"""

from __future__ import annotations

from pathlib import Path

from surefoot.importers.account import Account
from surefoot.importers.beside import read_beside
from surefoot.importers.document import Document, Leaf
from surefoot.importers.optimizer_options import set_options
from surefoot.importers.optimizers import Counterpart, library_class, set_optimizer
from surefoot.importers.reasons import (
    DECOUPLED,
    NAMED_TARGETS,
    NO_ADAPTER,
    NO_FP16,
    NO_SCHEDULE,
    OPTION_OF_OPTIMIZER,
    WHOLE_MEMORY,
)
from surefoot.importers.record import Spelling, TheirRun
from surefoot.importers.settle import settled
from surefoot.importers.simpletuner_data import BELOW, backend_folders, set_of_backends
from surefoot.importers.training_data import (
    run_name,
    set_folders_of_file,
    set_steps,
    whole_side,
)
from surefoot.language import N_

_VARIABLES = {
    "RESUME_CHECKPOINT": "resume_from_checkpoint", "DATALOADER_CONFIG": "data_backend_config",
    "TRAINING_SEED": "seed", "MAX_NUM_STEPS": "max_train_steps", "NUM_EPOCHS": "num_train_epochs",
    "CHECKPOINTING_STEPS": "checkpoint_step_interval", "LR_SCHEDULE": "lr_scheduler",
    "MODEL_NAME": "pretrained_model_name_or_path",
    "USE_GRADIENT_CHECKPOINTING": "gradient_checkpointing",
    "CHECKPOINTING_LIMIT": "checkpoints_total_limit", "TRAINING_NUM_PROCESSES": "num_processes",
}  # fmt: skip
_FAMILIES = {"sd1x": "sd15", "sd2x": "sd15", "sd15": "sd15", "sdxl": "sdxl", "flux": "flux"}
_COUNTERPARTS: dict[str, Counterpart] = {
    "adamw_bf16": Counterpart("adamw", reason=N_("its weights are in bf16, adapters here in fp32")),
    "torch-adamw": Counterpart("adamw"),
    "torch-adam": Counterpart("adamw", reason=DECOUPLED),
    "optimi-adamw": Counterpart("adamw"),
    "optimi-stableadamw": Counterpart("stable_adamw"),
    "optimi-lion": Counterpart("lion"),
    "bnb-adamw": Counterpart("adamw"),
    "bnb-adamw8bit": Counterpart("adamw_8bit"),
    "bnb-adamw8bit-paged": Counterpart("adamw_8bit"),
    "bnb-lion": Counterpart("lion"),
    "bnb-lion8bit": Counterpart("lion", reason=WHOLE_MEMORY),
    "bnb-lion8bit-paged": Counterpart("lion", reason=WHOLE_MEMORY),
    "adamw_schedulefree": Counterpart("schedule_free_adamw"),
    "optimi-adan": Counterpart("adan"),
    "soap": Counterpart("soap"),
    "muon": Counterpart("muon"),
    "prodigy": Counterpart("prodigy_plus"),
    "torch-adafactor": Counterpart("adafactor"),
    "torch-radam": library_class("RAdam"),
}
_REMOVED = ("adafactor", "dadaptation", "adamw8bit", "fused_adamw")
_PERIODIC = ("cosine", "sine", "cosine_with_restarts")
_OPTIONS = {"scale_parameter", "relative_step", "warmup_init"}
_TORCH_NAMES = {"d": "clip_threshold", "beta2_decay": "decay_rate"}
SPELLINGS: dict[str, Spelling] = {
    # torch's Adafactor has no switch, so another optimizer is the way out.
    "optimizer.scale_parameter": Spelling("optimizer", '"optimi-stableadamw"'),
    "optimizer.lr": Spelling("learning_rate"),
    "optimizer.weight_decay": Spelling("optimizer_config", "weight_decay={value}"),
    "train.clip_grad_norm": Spelling("max_grad_norm"),
    "train.ema": Spelling("ema_decay", off="use_ema: false"),
    "train.precision": Spelling("mixed_precision", '"bf16"'),
    "tuning.alpha": Spelling("lora_alpha"),
    "tuning.dropout": Spelling("lora_dropout"),
    "tuning.rank": Spelling("lora_rank"),
    "schedule.kind": Spelling("lr_scheduler"),
    "schedule.warmup_steps": Spelling("lr_warmup_steps"),
}

REMOVED = N_("it was removed from the trainer")
UNKNOWN_OPTIMIZER = N_("it knows no optimizer of that name")
ELEMENTS_CLAMPED = N_("the trainer cuts off each number of the gradients there and does not look "
                      "at their norm")  # fmt: skip
IN_OTHER_FILE = N_("the network's settings are in this file of LyCORIS")
HALF_PERIOD = N_("the trainer takes it for half of a period of the schedule")


def read_simpletuner(document: Document, path: Path) -> tuple[TheirRun, ...]:
    """The run that SimpleTuner makes of the file.

    Raises:
        Refused: If a value is of a wrong type.
    """
    names = {_argument(key, document): key for key in document.values}
    values: dict[str, Leaf] = {short: document.values[key] for short, key in names.items()}
    renamed = {short: key for short, key in names.items() if short != key}
    account = Account(
        "simpletuner", Document(document.format, values, document.lines), SPELLINGS, renamed
    )
    asked = account.text("model_family", "sdxl")
    family = _FAMILIES.get(asked, asked)
    account.set("model.family", family, "model_family")
    model = account.text("pretrained_model_name_or_path", "unknown")
    account.set("model.path", model or "unknown", "pretrained_model_name_or_path")
    _train(account)
    _tuning(account)
    _optimizer(account)
    _schedule(account)
    _data(account, path.parent)
    settled(account)
    return (account.close(family),)


def _argument(key: str, document: Document) -> str:
    if document.format == "env":
        return _VARIABLES.get(key, key.lower())
    return key.rpartition(".")[2].removeprefix("--").replace("-", "_")


def _train(account: Account) -> None:
    account.set("train.batch_size", account.whole("train_batch_size", 4), "train_batch_size")
    key = "gradient_accumulation_steps"
    account.set("train.gradient_accumulation", account.whole(key, 1), key)
    clip = account.number("max_grad_norm", 2.0)
    if account.text("grad_clip_method", "value") == "norm":
        account.set("train.clip_grad_norm", clip if clip > 0 else "off", "max_grad_norm")
        account.use("grad_clip_method", "train.clip_grad_norm")
    else:
        account.set("train.clip_grad_norm", "off", "max_grad_norm", ELEMENTS_CLAMPED)
        account.use("grad_clip_method", "train.clip_grad_norm", ELEMENTS_CLAMPED)
    precision = account.text("mixed_precision", "bf16")
    account.set("train.precision", "fp32" if precision in ("no", "fp32") else "bf16",
                "mixed_precision", NO_FP16 if precision == "fp16" else "")  # fmt: skip
    key = "gradient_checkpointing"
    account.set("train.gradient_checkpointing", account.flag(key), key)
    if account.flag("use_ema"):
        account.set("train.ema", account.number("ema_decay", 0.995), "ema_decay")
        account.use("use_ema", "train.ema")
    if account.number("snr_gamma", 0.0) > 0:
        account.set("objective.snr_gamma", account.number("snr_gamma", 0.0), "snr_gamma")
    if account.get("seed") not in (None, ""):
        account.set("seed", max(0, account.whole("seed", 0)), "seed")
    if account.text("resume_from_checkpoint"):
        account.find("SF709", "warning", "resume_from_checkpoint")


def _tuning(account: Account) -> None:
    method = account.text("model_type", "full")
    if method == "full":
        account.set("tuning.kind", "full", "model_type")
        account.set("tuning.weights", account.settings["train.precision"].value)
        return
    account.use("model_type", "tuning.kind")
    if account.text("lora_type", "standard") == "lycoris":
        account.judged.discard("tuning")
        account.set("tuning.kind", "lora", "lora_type", NO_ADAPTER)
        account.drop("lycoris_config", IN_OTHER_FILE)
        account.find("SF722", "note", "lycoris_config", given="LyCORIS")
        return
    decomposed = account.flag("use_dora")
    account.set("tuning.kind", "dora" if decomposed else "lora", "lora_type")
    account.use("use_dora", "tuning.kind")
    rank = account.whole("lora_rank", 16)
    account.set("tuning.rank", rank, "lora_rank")
    account.set("tuning.alpha", account.number("lora_alpha", float(rank)), "lora_alpha")
    account.set("tuning.dropout", account.number("lora_dropout", 0.1), "lora_dropout")
    account.set("tuning.targets", "attention", "", NAMED_TARGETS)


def _optimizer(account: Account) -> None:
    key = "optimizer"
    name = account.text(key, "adamw_bf16")
    if name in _REMOVED:
        account.find("SF710", "error", key, reason=REMOVED)
    elif name == "sdnq-adafactor":
        account.find("SF719", "error", key)
    elif "-" not in name and name not in _COUNTERPARTS:
        account.find("SF710", "error", key, reason=UNKNOWN_OPTIMIZER)
    kind = set_optimizer(account, _COUNTERPARTS.get(name), key)
    account.set("optimizer.lr", account.number("learning_rate", 4e-7), "learning_rate")
    options = _options(account, name, kind)
    set_options(account, kind, options)
    account.use("optimizer_config", "optimizer", OPTION_OF_OPTIMIZER)
    if kind == "adafactor":
        account.set("optimizer.scale_parameter", True, key)
        account.set("optimizer.rounding", "nearest")


def _options(account: Account, name: str, kind: str) -> dict[str, tuple[Leaf, str]]:
    """`k=v,k=v`; what the class does not take is dropped by SimpleTuner with a warning."""
    options: dict[str, tuple[Leaf, str]] = {}
    for item in account.text("optimizer_config").split(","):
        option, sign, text = (part.strip() for part in item.partition("="))
        if not sign:
            continue
        if kind == "adafactor" and option in _OPTIONS:
            account.find("SF718", "error", "optimizer_config", given=option, used=name)
            continue
        options[_TORCH_NAMES.get(option, option)] = (_value(text), "optimizer_config")
    return options


def _value(text: str) -> Leaf:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _schedule(account: Account) -> None:
    key = "lr_scheduler"
    name = account.text(key, "constant_with_warmup")
    warmup = account.whole("lr_warmup_steps", 0)
    if name in _PERIODIC:
        account.judged.discard("schedule")
        account.set("schedule.kind", "cosine", key, HALF_PERIOD)
        account.drop("lr_warmup_steps", HALF_PERIOD)
        account.find("SF717", "warning", "lr_warmup_steps", given=warmup, used=name)
        return
    kinds = {"constant": "constant", "constant_with_warmup": "constant", "linear": "linear",
             "polynomial": "polynomial"}  # fmt: skip
    if name not in kinds:
        account.judged.discard("schedule")
        account.set("schedule.kind", "constant", key, NO_SCHEDULE)
        return
    account.set("schedule.kind", kinds[name], key)
    if name != "constant":
        account.set("schedule.warmup_steps", warmup, "lr_warmup_steps")
    if name == "polynomial":
        account.set("schedule.power", account.number("lr_power", 0.8), "lr_power")
        rate = account.number("learning_rate", 4e-7)
        account.set("schedule.end_factor", min(1.0, account.number("lr_end", 4e-7) / rate)
                    if rate > 0 else 0.0, "lr_end")  # fmt: skip


def _data(account: Account, folder: Path) -> None:
    unread = read_beside(account, folder, BELOW, BELOW)
    kept, folders = backend_folders(account)
    if account.text("resolution_type", "pixel") != "area":
        side = whole_side(account.text("resolution", "1024"))
        if side >= 8:
            account.set("data.resolution", side, "resolution")
    set_folders_of_file(account, folders, BELOW, unread)
    set_of_backends(account, kept)
    account.set("captions.missing", "empty")
    key = "caption_dropout_probability"
    account.set("captions.dropout", account.number(key, 0.1), key)
    prompt = account.text("validation_prompt")
    if prompt:
        account.set("preview.prompts", (prompt,), "validation_prompt")
    every = account.whole("checkpoint_step_interval", 0)
    if every > 0:
        account.set("save.every", every, "checkpoint_step_interval")
    keep = account.whole("checkpoints_total_limit", 0)
    if keep > 0:
        account.set("save.keep", keep, "checkpoints_total_limit")
    name = account.text("tracker_run_name") or account.text("output_dir", "imported")
    account.set("name", run_name(name))
    set_steps(
        account,
        steps=account.whole("max_train_steps", 0),
        steps_key="max_train_steps",
        epochs=account.number("num_train_epochs", 1),
        epochs_key="num_train_epochs",
    )
