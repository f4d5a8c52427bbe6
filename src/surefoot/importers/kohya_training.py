"""What sd-scripts and musubi-tuner share besides the optimizer: network, precision, batch, loss.

Source: sd-scripts 48d368f (2026-02-16), train_network.py and library/train_util.py.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from surefoot.importers.account import Account
from surefoot.importers.beside import read_beside
from surefoot.importers.kohya_datasets import (
    BELOW,
    CAPTION_TEXTS,
    NOT_WITH_A_FILE,
    caption_text,
    dataset_folders,
    set_of_datasets,
)
from surefoot.importers.part_rates import (
    FIRST_ENCODERS,
    OWN_RATES,
    first_rate,
    set_part_rate,
)
from surefoot.importers.reasons import NAMED_TARGETS, NO_ADAPTER, NO_FP16
from surefoot.importers.training_data import (
    run_name,
    set_folders,
    set_folders_of_file,
    set_steps,
    whole_side,
)
from surefoot.language import N_

_ALGORITHMS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
_LYCORIS_ONLY = ("dora_wd", "algo", "wd_on_output", "factor", "preset", "use_tucker")
_REPEATED = re.compile(r"(\d{1,5})_.+")

PART_OF_NETWORK = N_("options of the network; those that surefoot has are in its section")
NO_DROPOUT_WITH_LENGTHS = N_("LyCORIS ignores it together with dora_wd")
ZERO_IS_RANK = N_("0 stands for the rank")
REPEATS_IN_NAMES = N_("its folders 10_name are repeated as often as their names say")


def set_network(account: Account) -> None:
    """Sets an adapter from network_module, network_dim, network_alpha and network_args."""
    module = account.text("network_module", "networks.lora")
    options = dict(item.split("=", 1) for item in account.items("network_args") if "=" in item)
    account.use("network_args", "tuning", PART_OF_NETWORK)
    kind = "lora"
    if module.startswith("lycoris"):
        kind = _ALGORITHMS.get(options.get("algo", "lora").lower(), "")
        if kind == "lora" and options.get("dora_wd", "").lower() == "true":
            kind = "dora"
    elif not module.startswith(("networks.lora", "networks.dylora")):
        kind = module.rpartition(".")[2] if module.endswith(("loha", "lokr")) else ""
    else:
        for option in (name for name in _LYCORIS_ONLY if name in options):
            account.find("SF714", "error", "network_args", given=option, used=module)
    if kind:
        account.set("tuning.kind", kind, "network_module")
    else:
        account.judged.discard("tuning")
        account.set("tuning.kind", "lora", "network_module", NO_ADAPTER)
        account.find("SF722", "note", "network_module", given=options.get("algo", module))
    rank = account.whole("network_dim", 4)
    alpha = account.number("network_alpha", 1.0)
    account.set("tuning.rank", rank, "network_dim")
    account.set(
        "tuning.alpha", alpha or float(rank), "network_alpha", "" if alpha else ZERO_IS_RANK
    )
    whole = "conv_dim" in options or kind in ("loha", "lokr")
    _set_network_options(account, kind, options)
    account.set("tuning.targets", "all" if whole else "attention+feed_forward", "", NAMED_TARGETS)
    parts = ["unet"] if not account.flag("network_train_text_encoder_only") else []
    if not account.flag("network_train_unet_only"):
        parts.append("text_encoder")
    account.set("tuning.parts", tuple(parts) or ("unet",))
    for key in ("network_train_unet_only", "network_train_text_encoder_only"):
        account.use(key, "tuning.parts")


def network_rate(account: Account) -> tuple[float, str]:
    """The learning rate of the denoiser's adapter, and its key."""
    main = account.number("learning_rate", 2e-6)
    key = "unet_lr" if account.get("unet_lr") is not None else "learning_rate"
    rate = account.number(key, main)
    return rate, key


def set_encoder_rate(account: Account) -> None:
    """The rate of the text encoder; it comes after the optimizer."""
    given = account.get("text_encoder_lr")
    key = "text_encoder_lr" if given is not None else "learning_rate"
    rate = first_rate(given if given is not None else account.number("learning_rate", 2e-6))
    if rate is None:
        account.wrong(key, N_("a number"))
        return
    several = isinstance(given, tuple) and len(set(given)) > 1
    set_part_rate(account, "text_encoder", rate, key, FIRST_ENCODERS if several else "")
    if key != "learning_rate" and account.get("unet_lr") is not None:
        account.drop("learning_rate", OWN_RATES, matters=False)


def _set_network_options(account: Account, kind: str, options: dict[str, str]) -> None:
    """Dropout, largest norm, and what LyCORIS is told in network_args."""
    for key, path in (("network_dropout", "dropout"), ("scale_weight_norms", "max_norm")):
        value = account.number(key, 0.0)
        if value <= 0 or not kind:
            continue
        if key == "network_dropout" and kind == "dora":
            account.drop(key, NO_DROPOUT_WITH_LENGTHS, matters=False)
        else:
            account.set(f"tuning.{path}", value, key)
    if kind == "dora" and options.get("wd_on_output", "True").lower() == "false":
        account.set("tuning.norm_axis", "input", "network_args")
    if kind == "lokr":
        given = re.fullmatch(r"[2-9]|[1-9][0-9]{1,5}", options.get("factor", "-1"))
        account.set("tuning.factor", int(given[0]) if given else "auto", "network_args")
        if options.get("decompose_both", "").lower() == "true":
            account.set("tuning.decompose_both", True, "network_args")
    if kind and options.get("rs_lora", "").lower() == "true":
        account.set("tuning.rslora", True, "network_args")


def set_training(account: Account) -> None:
    """Sets batch, clipping, precision, seed, loss and checkpoints."""
    account.set("train.batch_size", account.whole("train_batch_size", 1), "train_batch_size")
    key = "gradient_accumulation_steps"
    account.set("train.gradient_accumulation", account.whole(key, 1), key)
    clip = account.number("max_grad_norm", 1.0)
    account.set("train.clip_grad_norm", clip if clip > 0 else "off", "max_grad_norm")
    precision = account.text("mixed_precision", "no").lower()
    account.set("train.precision", "fp32" if precision == "no" else "bf16", "mixed_precision",
                NO_FP16 if precision == "fp16" else "")  # fmt: skip
    account.set("train.gradient_checkpointing", account.flag("gradient_checkpointing"),
                "gradient_checkpointing")  # fmt: skip
    if account.get("seed") not in (None, ""):
        account.set("seed", max(0, account.whole("seed", 0)), "seed")
    gamma = account.number("min_snr_gamma", 0.0)
    if gamma > 0:
        account.set("objective.snr_gamma", gamma, "min_snr_gamma")
    if account.number("noise_offset", 0.0) > 0:
        account.set("objective.noise_offset", account.number("noise_offset", 0.0), "noise_offset")
    name = account.text("output_name") or PurePath(account.text("output_dir", "imported")).name
    account.set(
        "name", run_name(name), "output_name" if account.has("output_name") else "output_dir"
    )
    every = account.whole("save_every_n_steps", 0)
    if every > 0:
        account.set("save.every", every, "save_every_n_steps")
    epochs = account.whole("save_every_n_epochs", 0)
    if epochs > 0:
        account.set("save.every_epochs", float(epochs), "save_every_n_epochs")
    if account.text("resume"):
        account.find("SF709", "warning", "resume")


def set_data(account: Account, folder: Path) -> None:
    """Sets folders, resolution and steps; `folder` is the config's."""
    resolution = account.get("resolution")
    side = whole_side(str(resolution[0] if isinstance(resolution, tuple) else resolution))
    if side:
        account.set("data.resolution", side, "resolution")
    _captions(account)
    if account.flag("flip_aug"):
        account.set("data.flip", True, "flip_aug")
    _set_folders(account, folder)
    cached = account.flag("cache_latents") or account.flag("cache_latents_to_disk")
    account.set("data.cache", "disk" if cached else "off")
    for key in ("cache_latents", "cache_latents_to_disk"):
        account.use(key, "data.cache")
    epochs = account.number("max_train_epochs", 0.0)
    if epochs > 0:
        set_steps(account, epochs=epochs, epochs_key="max_train_epochs")
    else:
        steps = account.whole("max_train_steps", 1600)
        set_steps(account, epochs=0, epochs_key="", steps=steps, steps_key="max_train_steps")


def _captions(account: Account) -> None:
    account.set("captions.missing", "empty")
    rate = account.number("caption_dropout_rate", 0.0)
    account.set("captions.dropout", rate, "caption_dropout_rate")
    account.set("captions.shuffle", account.flag("shuffle_caption"), "shuffle_caption")
    account.set("captions.keep_tags", account.whole("keep_tokens", 0), "keep_tokens")
    if account.number("caption_tag_dropout_rate", 0.0) > 0:
        rate = account.number("caption_tag_dropout_rate", 0.0)
        account.set("captions.tag_dropout", rate, "caption_tag_dropout_rate")
    for theirs, ours in CAPTION_TEXTS.items():
        if account.text(theirs):
            account.set(f"captions.{ours}", caption_text(account, theirs, theirs), theirs)
    if account.flag("enable_wildcard"):
        account.set("captions.wildcards", True, "enable_wildcard")
        account.set("captions.lines", "several")


def _set_folders(account: Account, folder: Path) -> None:
    """From the data set's file, which goes before a folder among the arguments."""
    pictures = account.text("train_data_dir")
    if not account.text(BELOW):
        set_folders(account, _folders(pictures))
        account.use("train_data_dir", "data.folders", REPEATS_IN_NAMES)
        return
    unread = read_beside(account, folder, BELOW, BELOW, refuses=True)
    kept, folders = dataset_folders(account)
    set_folders_of_file(account, folders, BELOW, unread)
    set_of_datasets(account, kept)
    account.drop("train_data_dir", NOT_WITH_A_FILE)


def _folders(given: str) -> list[tuple[str, int]]:
    """The folders `10_name` inside, each so many times; the folder itself if there are none."""
    if not given:
        return []
    try:
        inside = sorted(path.name for path in Path(given).iterdir() if path.is_dir())
    except (OSError, ValueError):
        inside = []
    named = [(name, found) for name in inside if (found := _REPEATED.fullmatch(name))]
    if not named:
        return [(given, 1)]
    return [(f"{given}/{name}", max(1, int(found[1]))) for name, found in named]
