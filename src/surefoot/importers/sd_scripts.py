"""sd-scripts' TOML and command lines, and the JSON of its window, kohya_ss.

Sections of the TOML are flattened, keys are the arguments' names, nothing is converted or refused:
a key with a slip is as if it were not there. Source: sd-scripts 48d368f (2026-02-16),
library/train_util.py read_config_from_file; kohya_ss 45088f0.
"""

from __future__ import annotations

import re
from pathlib import Path

from surefoot.importers.account import Account
from surefoot.importers.document import Document, Leaf
from surefoot.importers.kohya_optimizer import (
    NEEDS_RELATIVE,
    SPELLINGS,
    WORDS,
    set_kohya_optimizer,
)
from surefoot.importers.kohya_training import (
    network_rate,
    set_data,
    set_encoder_rate,
    set_network,
    set_training,
)
from surefoot.importers.kohya_window import arguments_of_window, is_of_window
from surefoot.importers.reasons import FROM_THE_NAME, NO_FP16
from surefoot.importers.record import TheirRun
from surefoot.importers.settle import settled

_SCRIPT_FAMILIES = (("sdxl", "sdxl"), ("flux", "flux"), ("sd3", "sd3"), ("lumina", "lumina"),
                    ("anima", "anima"), ("hunyuan", "hunyuan_image"))  # fmt: skip
_LARGE = re.compile(r"sdxl|sd_xl|[-_]xl|xl[-_.]|pony|illustrious|noobai", re.IGNORECASE)


def read_sd_scripts(document: Document, path: Path) -> tuple[TheirRun, ...]:
    """The run that sd-scripts makes of the file.

    Raises:
        Refused: If a value is of a wrong type.
    """
    flat, names = _flattened(document)
    if is_of_window(flat):
        flat, names = arguments_of_window(flat)
    account = Account("sd_scripts", flat, SPELLINGS, names)
    family = _model(account)
    network = bool(account.text("network_module")) or "network" in document.script
    set_training(account)
    if network:
        set_network(account)
        rate, key = network_rate(account)
    else:
        _full(account)
        rate, key = account.number("learning_rate", 2e-6), "learning_rate"
    set_kohya_optimizer(account, rate, key)
    if network:
        set_encoder_rate(account)
    _fused(account, network=network)
    set_data(account, path.parent)
    settled(account)
    return (account.close(family, words=WORDS),)


def _flattened(document: Document) -> tuple[Document, dict[str, str]]:
    """Keys without their sections, and what the file calls them."""
    if document.format != "toml":
        return document, {}
    names = {key.partition(".")[2] or key: key for key in document.values}
    values = {short: document.values[key] for short, key in names.items()}
    renamed = {short: key for short, key in names.items() if short != key}
    return Document(document.format, values, document.lines), renamed


def _model(account: Account) -> str:
    path = account.text("pretrained_model_name_or_path", "unknown")
    family, reason = _family(account, path)
    account.set("model.family", family)
    account.set("model.path", path or "unknown", "pretrained_model_name_or_path", reason)
    predicts_v = account.flag("v_parameterization")
    account.set("model.prediction", "v_prediction" if predicts_v else "epsilon",
                "v_parameterization")  # fmt: skip
    if account.flag("zero_terminal_snr"):
        account.set("model.zero_terminal_snr", True, "zero_terminal_snr")
    account.use("sdxl", "model.family")
    account.use("v2", "model.family")
    return family


def _family(account: Account, path: str) -> tuple[str, str]:
    hints: list[Leaf] = [account.document.script, account.text("network_module")]
    for word, family in _SCRIPT_FAMILIES:
        if any(word in str(hint) for hint in hints) or account.flag(word):
            return family, ""
    if account.text("t5xxl"):
        return ("sd3" if account.text("clip_g") else "flux"), ""
    if not account.document.script and not account.has("sdxl") and _LARGE.search(path):
        return "sdxl", FROM_THE_NAME
    return "sd15", ""


def _full(account: Account) -> None:
    account.set("tuning.kind", "full")
    parts = ("unet", "text_encoder") if account.flag("train_text_encoder") else ("unet",)
    account.set("tuning.parts", parts)
    account.use("train_text_encoder", "tuning.parts")
    low = account.flag("full_bf16") or account.flag("full_fp16")
    key = "full_fp16" if account.flag("full_fp16") else "full_bf16"
    reason = NO_FP16 if account.flag("full_fp16") else ""
    account.set("tuning.weights", "bf16" if low else "fp32", key, reason)


def _fused(account: Account, *, network: bool) -> None:
    """The step inside the backward pass: whole models with Adafactor only."""
    if not account.flag("fused_backward_pass") or network:
        return
    adafactor = account.settings["optimizer.kind"].value == "adafactor"
    if not adafactor or account.whole("gradient_accumulation_steps", 1) > 1:
        account.find("SF710", "error", "fused_backward_pass", reason=NEEDS_RELATIVE)
        return
    account.set("optimizer.step_in_backward", True, "fused_backward_pass")
    account.set("optimizer.rounding", "stochastic")
    clip = account.number("max_grad_norm", 1.0)
    if clip > 0:
        account.set("train.clip_grad_norm", "off", "max_grad_norm")
        account.find("SF708", "warning", "fused_backward_pass", clip=clip)
