"""ai-toolkit's YAML and JSON.

Every class takes its keys with a default and looks at no others, so that a slip is as if the key
were not there. Source: ai-toolkit 27a03a9 (2026-08-21), toolkit/config_modules.py,
toolkit/optimizer.py, toolkit/scheduler.py, toolkit/lora_special.py.
"""

from __future__ import annotations

from surefoot.importers.account import Account
from surefoot.importers.document import Document
from surefoot.importers.optimizer_options import options_below, set_options
from surefoot.importers.optimizers import Counterpart, library_class, set_optimizer
from surefoot.importers.part_rates import first_rate, set_part_rate
from surefoot.importers.reasons import (
    ALPHA_IS_RANK,
    DECOUPLED,
    FIRST_OF_SEVERAL,
    NAMED_TARGETS,
    NO_FP16,
    NO_SCHEDULE,
    WHOLE_MEMORY,
)
from surefoot.importers.record import Spelling, TheirRun
from surefoot.importers.settle import settled
from surefoot.importers.training_data import run_name, set_folders, set_steps, whole_side
from surefoot.language import N_

_PROCESS = "config.process.0."
_COUNTERPARTS: dict[str, Counterpart] = {
    "adam": Counterpart("adamw", reason=DECOUPLED),
    "adamw": Counterpart("adamw"),
    "adamw8bit": Counterpart("adamw_8bit"),
    "adamw8": Counterpart("adamw_8bit"),
    "adam8bit": Counterpart("adamw_8bit", reason=DECOUPLED),
    "adam8": Counterpart("adamw_8bit", reason=DECOUPLED),
    "lion": Counterpart("lion"),
    "lion8bit": Counterpart("lion", reason=WHOLE_MEMORY),
    "adafactor": Counterpart("adafactor"),
    "prodigy": Counterpart("prodigy"),
    "prodigy8bit": Counterpart("prodigy", reason=WHOLE_MEMORY),
    "dadaptation": Counterpart("d_adaptation"),
    "dadaptationlion": library_class("DAdaptLion"),
    "dadaptationadam": library_class("DAdaptLion"),
}
_KNOWN_WITHOUT = ("ademamix8bit", "adagrad", "automagic", "automagic2", "automagic3",
                  "automagicexperiment")  # fmt: skip
_ARCHITECTURES = {"sd1": "sd15", "sd15": "sd15", "sd2": "sd15", "sd": "sd15"}
_OLD_FLAGS = {"is_xl": "sdxl", "is_flux": "flux", "is_v3": "sd3", "is_auraflow": "auraflow",
              "is_pixart": "pixart", "is_lumina2": "lumina2"}  # fmt: skip
_WITH_ALPHA = ("sd15", "sdxl")
_ADAPTERS = {"lora": "lora", "locon": "lora", "lycoris": "lora", "dora": "dora", "lokr": "lokr"}

_FIELDS = ("scale_parameter", "relative_step", "warmup_init", "weight_decay", "clip_threshold",
           "decay_rate", "safeguard_warmup")  # fmt: skip
SPELLINGS: dict[str, Spelling] = {
    **{
        f"optimizer.{field}": Spelling(f"{_PROCESS}train.optimizer_params.{field}")
        for field in _FIELDS
    },
    "optimizer.lr": Spelling(f"{_PROCESS}train.lr"),
    "optimizer.rounding": Spelling(f"{_PROCESS}train.optimizer_params.stochastic_rounding", "true"),
    "train.clip_grad_norm": Spelling(f"{_PROCESS}train.max_grad_norm"),
    "train.ema": Spelling(f"{_PROCESS}train.ema_config.ema_decay", off="use_ema: false"),
    "tuning.dropout": Spelling(f"{_PROCESS}network.dropout"),
    "optimizer.part_lr": Spelling(f"{_PROCESS}train.text_encoder_lr"),
    "tuning.alpha": Spelling(f"{_PROCESS}network.linear_alpha"),
    "tuning.rank": Spelling(f"{_PROCESS}network.linear"),
    "tuning.weights": Spelling(f"{_PROCESS}train.dtype", "fp32"),
    "train.precision": Spelling(f"{_PROCESS}train.dtype", "bf16"),
    "schedule.kind": Spelling(f"{_PROCESS}train.lr_scheduler"),
}

NOT_FOR_ADAPTERS = N_("the trainer gives adapters train.lr and does not use it")
TOO_SMALL_A_FACTOR = N_("with this optimizer a learning rate below 0.1 counts as 1")
OTHER_CLASS = N_("the name stands for another class")
RATE_IS_ALWAYS_GIVEN = N_("the trainer always gives a learning rate, which relative_step refuses")
UNKNOWN_OPTIMIZER = N_("it knows no optimizer of that name")
ANY_OTHER_IS_LORA = N_("any other type is taken for lora")
NOT_A_PICTURE = N_("surefoot has no regularisation pictures")


def read_ai_toolkit(document: Document) -> tuple[TheirRun, ...]:
    """The run that ai-toolkit makes of the file.

    Raises:
        Refused: If a value is of a wrong type.
    """
    names = {key.removeprefix(_PROCESS): key for key in document.values if key.startswith(_PROCESS)}
    values = {
        key: value for key, value in document.values.items() if not key.startswith(_PROCESS)
    } | {short: document.values[key] for short, key in names.items()}
    account = Account("ai_toolkit", Document(document.format, values, document.lines), SPELLINGS,
                      names)  # fmt: skip
    family = _model(account)
    full = not account.document.has("network")
    _train(account)
    if full:
        _full(account)
    else:
        _network(account, family)
    _optimizer(account, full=full)
    _schedule(account)
    _data(account)
    name = account.text("config.name", "imported")
    account.set("name", run_name(name), "config.name")
    account.find("SF709", "note", "config.name")
    settled(account)
    return (account.close(family),)


def _model(account: Account) -> str:
    asked = account.text("model.arch").partition(":")[0]
    family = _ARCHITECTURES.get(asked, asked)
    for flag, name in _OLD_FLAGS.items():
        if not family and account.flag(f"model.{flag}"):
            family = name
        account.use(f"model.{flag}", "model.family")
    family = family or "sd15"
    account.set("model.family", family, "model.arch")
    account.set("model.path", account.text("model.name_or_path", "unknown"), "model.name_or_path")
    if account.flag("model.is_v_pred"):
        account.set("model.prediction", "v_prediction", "model.is_v_pred")
    return family


def _train(account: Account) -> None:
    account.set("train.batch_size", account.whole("train.batch_size", 1), "train.batch_size")
    steps = "train.gradient_accumulation_steps"
    key = steps if account.has(steps) else "train.gradient_accumulation"
    account.set("train.gradient_accumulation", max(1, account.whole(key, 1)), key)
    clip = account.number("train.max_grad_norm", 1.0)
    account.set("train.clip_grad_norm", clip if clip > 0 else "off", "train.max_grad_norm")
    dtype = account.text("train.dtype", "fp32").lower()
    whole = dtype in ("fp32", "float32", "float")
    low = dtype in ("fp16", "float16")
    account.set(
        "train.precision", "fp32" if whole else "bf16", "train.dtype", NO_FP16 if low else ""
    )
    key = "train.gradient_checkpointing"
    account.set(key, account.flag(key, True), key)
    if account.flag("train.ema_config.use_ema"):
        key = "train.ema_config.ema_decay"
        account.set("train.ema", account.number(key, 0.999), key)
        account.use("train.ema_config.use_ema", "train.ema")
    for key in ("train.snr_gamma", "train.min_snr_gamma"):
        if account.number(key, 0.0) > 0:
            account.set("objective.snr_gamma", account.number(key, 0.0), key)
    if account.number("train.noise_offset", 0.0) > 0:
        account.set("objective.noise_offset", account.number("train.noise_offset", 0.0),
                    "train.noise_offset")  # fmt: skip


def _network(account: Account, family: str) -> None:
    kind = account.text("network.type", "lora").lower()
    if kind not in _ADAPTERS:
        account.find("SF711", "error", "network.type", given=kind, used="lora",
                     reason=ANY_OTHER_IS_LORA)  # fmt: skip
    account.set("tuning.kind", _ADAPTERS.get(kind, "lora"), "network.type")
    key = "network.linear" if account.has("network.linear") else "network.rank"
    rank = account.whole(key, 4)
    account.set("tuning.rank", rank, key)
    alpha_key = "network.linear_alpha" if account.has("network.linear_alpha") else "network.alpha"
    alpha = account.number(alpha_key, 1.0)
    if family in _WITH_ALPHA:
        account.set("tuning.alpha", alpha, alpha_key)
    else:
        account.set("tuning.alpha", float(rank), alpha_key, ALPHA_IS_RANK)
        if account.has(alpha_key) and alpha != rank:
            account.find("SF715", "warning", alpha_key, given=f"{alpha:g}")
    account.set("tuning.dropout", account.number("network.dropout", 0.0), "network.dropout")
    if kind == "lokr":
        factor = account.whole("network.lokr_factor", -1)
        account.set("tuning.factor", factor if factor > 1 else "auto", "network.lokr_factor")
    whole = account.whole("network.conv", 0) > 0
    account.set("tuning.targets", "all" if whole else "attention+feed_forward",
                "network.conv", NAMED_TARGETS)  # fmt: skip
    text = account.flag("train.train_text_encoder")
    account.set("tuning.parts", ("unet", "text_encoder") if text else ("unet",),
                "train.train_text_encoder")  # fmt: skip
    account.use("train.train_unet", "tuning.parts")
    for name in ("unet_lr", "text_encoder_lr"):
        account.drop(f"train.{name}", NOT_FOR_ADAPTERS)


def _full(account: Account) -> None:
    account.set("tuning.kind", "full")
    precision = account.settings["train.precision"].value
    account.set("tuning.weights", precision)
    text = account.flag("train.train_text_encoder")
    account.set("tuning.parts", ("unet", "text_encoder") if text else ("unet",),
                "train.train_text_encoder")  # fmt: skip
    account.use("train.train_unet", "tuning.parts")


def _optimizer(account: Account, *, full: bool) -> None:
    key = "train.optimizer"
    name = account.text(key, "adamw").lower()
    if name not in _COUNTERPARTS and name not in _KNOWN_WITHOUT:
        account.find("SF710", "error", key, reason=UNKNOWN_OPTIMIZER)
    kind = set_optimizer(account, _COUNTERPARTS.get(name), key)
    if name == "dadaptationadam":
        account.find("SF711", "warning", key, given=name, used="DAdaptLion", reason=OTHER_CLASS)
    rate = account.number("train.lr", 1e-6)
    if name.startswith(("prodigy", "dadaptation")) and rate < 0.1:
        account.find("SF711", "warning", "train.lr", given=f"{rate:g}", used="1",
                     reason=TOO_SMALL_A_FACTOR)  # fmt: skip
        account.set("optimizer.lr", 1.0, "train.lr", TOO_SMALL_A_FACTOR)
    else:
        account.set("optimizer.lr", rate, "train.lr")
    if full:
        for part in ("unet", "text_encoder"):
            key = f"train.{part}_lr"
            own = first_rate(account.get(key))
            if own is not None:
                set_part_rate(account, part, own, key)
    options = options_below(account, "train.optimizer_params.")
    rounding = options.pop("stochastic_rounding", None)
    set_options(account, kind, options)
    if kind == "adafactor":
        _adafactor(account, full=full, rounding=rounding is None or bool(rounding[0]))
    elif kind in ("adamw", "adamw_8bit"):
        account.set("optimizer.eps", 1e-6)


def _adafactor(account: Account, *, full: bool, rounding: bool) -> None:
    """Its switches are false unless the file says true; a rate is always given."""
    for name in ("scale_parameter", "relative_step", "warmup_init"):
        key = f"train.optimizer_params.{name}"
        account.set(f"optimizer.{name}", account.flag(key), key)
    if account.settings["optimizer.relative_step"].value:
        account.find("SF710", "error", "train.optimizer_params.relative_step",
                     reason=RATE_IS_ALWAYS_GIVEN)  # fmt: skip
    key = "train.optimizer_params.stochastic_rounding"
    account.set("optimizer.rounding", "stochastic" if rounding else "nearest", key)
    low = full and account.settings["train.precision"].value == "bf16"
    if not rounding and low:
        account.find("SF712", "error", key)


def _schedule(account: Account) -> None:
    key = "train.lr_scheduler"
    name = account.text(key, "constant")
    match name:
        case "constant" | "cosine":
            account.set("schedule.kind", name, key)
        case "constant_with_warmup":
            account.set("schedule.kind", "constant", key)
            warmup = "train.lr_scheduler_params.num_warmup_steps"
            account.set("schedule.warmup_steps", account.whole(warmup, 1000), warmup)
        case _:
            account.judged.discard("schedule")
            account.set("schedule.kind", "constant", key, NO_SCHEDULE)
            if name == "linear":
                account.find("SF716", "warning", key)


def _captions(account: Account) -> None:
    key = "trigger_word" if account.has("trigger_word") else "datasets.0.trigger_word"
    if word := account.text(key):
        account.set("captions.trigger", word, key)
    here = "datasets.0"
    account.set(
        "captions.shuffle", account.flag(f"{here}.shuffle_tokens"), f"{here}.shuffle_tokens"
    )
    account.set(
        "captions.keep_tags", account.whole(f"{here}.keep_tokens", 0), f"{here}.keep_tokens"
    )
    rate = account.number(f"{here}.token_dropout_rate", 0.0)
    account.set("captions.tag_dropout", rate, f"{here}.token_dropout_rate")


def _data(account: Account) -> None:
    folders: list[tuple[str, int]] = []
    number = 0
    while account.document.has(f"datasets.{number}"):
        here = f"datasets.{number}"
        key = (
            f"{here}.folder_path" if account.has(f"{here}.folder_path") else f"{here}.dataset_path"
        )
        path = account.text(key)
        if account.flag(f"{here}.is_reg"):
            account.drop(key, NOT_A_PICTURE)
        elif path:
            folders.append((path, max(1, account.whole(f"{here}.num_repeats", 1))))
            place = f"data.folders.{len(folders) - 1}"
            account.use(key, f"{place}.path")
            account.use(f"{here}.num_repeats", f"{place}.repeats")
        number += 1
    set_folders(account, folders)
    sizes = account.get("datasets.0.resolution")
    first = sizes[0] if isinstance(sizes, tuple) and sizes else sizes
    side = whole_side(str(first)) if first else 512
    several = isinstance(sizes, tuple) and len(sizes) > 1
    account.set("data.resolution", side or 512, "datasets.0.resolution",
                FIRST_OF_SEVERAL if several else "")  # fmt: skip
    account.set("captions.missing", "empty")
    _captions(account)
    key = "datasets.0.caption_dropout_rate"
    account.set("captions.dropout", account.number(key, 0.0), key)
    if account.flag("datasets.0.flip_x"):
        account.set("data.flip", True, "datasets.0.flip_x")
    account.use("datasets.0.cache_latents_to_disk", "data.cache")
    prompts = account.items("sample.prompts")
    if prompts:
        account.set("preview.prompts", prompts, "sample.prompts")
    every = account.whole("save.save_every", 0)
    if every > 0:
        account.set("save.every", every, "save.save_every")
    keep = account.whole("save.max_step_saves_to_keep", 0)
    if keep > 0:
        account.set("save.keep", keep, "save.max_step_saves_to_keep")
    steps = account.whole("train.steps", 1000)
    set_steps(account, epochs=0, epochs_key="", steps=steps, steps_key="train.steps")
