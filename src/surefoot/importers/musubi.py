"""musubi-tuner's TOML and command lines, for models that surefoot has none of.

Optimizer and schedule are those of sd-scripts. Source: musubi-tuner 30c658c (2026-06-24),
training/parser_common.py, training/trainer_base.py.
"""

from __future__ import annotations

from pathlib import Path

from surefoot.importers.account import Account
from surefoot.importers.document import Document
from surefoot.importers.kohya_optimizer import SPELLINGS, WORDS, set_kohya_optimizer
from surefoot.importers.kohya_training import set_data, set_network, set_training
from surefoot.importers.record import TheirRun
from surefoot.importers.settle import settled

_FAMILIES = ("wan", "hv_1_5", "hv", "fpack", "flux_kontext", "flux_2", "qwen_image", "zimage",
             "kandinsky5", "hidream_o1", "ideogram4", "krea2")  # fmt: skip


def read_musubi(document: Document, path: Path) -> tuple[TheirRun, ...]:
    """The run that musubi-tuner makes of the file.

    Raises:
        Refused: If a value is of a wrong type.
    """
    names = {key.rpartition(".")[2]: key for key in document.values}
    values = {short: document.values[key] for short, key in names.items()}
    renamed = {short: key for short, key in names.items() if short != key}
    account = Account("musubi", Document(document.format, values, document.lines, document.script),
                      SPELLINGS, renamed)  # fmt: skip
    hint = f"{document.script} {account.text('network_module')}"
    family = next((name for name in _FAMILIES if name in hint), "unknown")
    account.set("model.family", family)
    account.set("model.path", account.text("dit", "unknown") or "unknown", "dit")
    set_training(account)
    full = document.script.endswith("_train.py") or not account.text("network_module")
    if full:
        account.set("tuning.kind", "full")
        account.set("tuning.weights", "bf16" if account.flag("full_bf16") else "fp32", "full_bf16")
    else:
        set_network(account)
        account.set("tuning.parts", ("unet",))
    rate = account.number("learning_rate", 2e-6)
    set_kohya_optimizer(account, rate, "learning_rate")
    set_data(account, path.parent)
    settled(account)
    return (account.close(family, words=WORDS),)
