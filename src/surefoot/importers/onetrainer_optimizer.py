"""OneTrainer's optimizer, which its window and its command line read from different keys.

The window puts a table of its own in place of `optimizer`, and over that the entry of
`optimizer_defaults` for this optimizer; scripts/train.py takes `optimizer` and nothing else. A key
that is missing is false, one that is null means the optimizer's own default, which for Adafactor
is true. Source: OneTrainer 23df383, modules/util/create.py, modules/util/optimizer_util.py.
"""

from __future__ import annotations

from typing import Literal

from surefoot.importers.account import Account
from surefoot.importers.optimizers import Counterpart, has_field, library_class, set_optimizer
from surefoot.importers.reasons import DECOUPLED, WHOLE_MEMORY
from surefoot.language import N_

Meaning = Literal["window", "command line"]

_OF_ITS_OWN = (
    "ADAMW_ADV", "ADOPT_ADV", "LION_ADV", "SIGNSGD_ADV", "PRODIGY_ADV", "MUON_ADV", "ADAMUON_ADV",
)  # fmt: skip
_COUNTERPARTS: dict[str, Counterpart] = {
    "ADAFACTOR": Counterpart("adafactor"),
    "ADAMW": Counterpart("adamw"),
    "ADAM": Counterpart("adamw", reason=DECOUPLED),
    "ADAMW_8BIT": Counterpart("adamw_8bit"),
    "ADAM_8BIT": Counterpart("adamw_8bit", reason=DECOUPLED),
    "LION": Counterpart("lion"),
    "LION_8BIT": Counterpart("lion", reason=WHOLE_MEMORY),
    "CAME": Counterpart("came"),
    "CAME_8BIT": Counterpart("came", reason=WHOLE_MEMORY),
    "MUON": Counterpart("muon"),
    "PRODIGY": Counterpart("prodigy"),
    "PRODIGY_PLUS_SCHEDULE_FREE": Counterpart("prodigy_plus"),
    "DADAPT_ADAM": Counterpart("d_adaptation"),
    "SCHEDULE_FREE_ADAMW": Counterpart("schedule_free_adamw"),
    "SCHEDULE_FREE_SGD": library_class("ScheduleFreeSGD"),
    "DADAPT_ADA_GRAD": library_class("DAdaptAdaGrad"),
    "DADAPT_ADAN": library_class("DAdaptAdan"),
    "DADAPT_LION": library_class("DAdaptLion"),
    "DADAPT_SGD": library_class("DAdaptSGD"),
    "ADABELIEF": library_class("AdaBelief"),
    "ADOPT": library_class("ADOPT"),
    "AdEMAMix": library_class("AdEMAMix"),
    "AIDA": library_class("Aida"),
    "LAMB": library_class("Lamb"),
    "LARS": library_class("LARS"),
    "TIGER": library_class("Tiger"),
    "YOGI": library_class("Yogi"),
}
OPTIMIZERS = [
    *_COUNTERPARTS, *_OF_ITS_OWN,
    "ADAGRAD", "ADAGRAD_8BIT", "AdEMAMix_8BIT", "LAMB_8BIT", "LARS_8BIT", "RMSPROP",
    "RMSPROP_8BIT", "SGD", "SGD_8BIT",
]  # fmt: skip
SCHEDULE_FREE = ("SCHEDULE_FREE_ADAMW", "SCHEDULE_FREE_SGD", "PRODIGY_PLUS_SCHEDULE_FREE")

# Our field to theirs, and OneTrainer's default where ours is another.
_NUMBERS: dict[str, str] = {
    "beta1": "beta1", "beta2": "beta2", "beta3": "beta3", "eps": "eps", "eps1": "eps",
    "eps2": "eps2", "clip_threshold": "clip_threshold", "decay_rate": "decay_rate",
    "weight_decay": "weight_decay", "d0": "d0", "d_coef": "d_coef", "growth_rate": "growth_rate",
    "r": "r", "weight_lr_power": "weight_lr_power", "schedulefree_c": "schedulefree_c",
    "momentum": "momentum",
}  # fmt: skip
_COUNTS = {"prodigy_steps": "prodigy_steps", "ns_steps": "ns_steps",
           "min_8bit_size": "min_8bit_size"}  # fmt: skip
_FLAGS: dict[str, str] = {
    "bias_correction": "use_bias_correction", "use_bias_correction": "use_bias_correction",
    "safeguard_warmup": "safeguard_warmup", "d_limiter": "d_limiter",
    "split_groups": "split_groups", "factored": "factored", "use_speed": "use_speed",
    "use_stableadamw": "use_stableadamw", "nesterov": "nesterov",
}  # fmt: skip

STOPS_WITH_RATE = N_("null stands for true here, and Adafactor takes no learning rate with it")
NOT_BY_THE_WINDOW = N_("OneTrainer's window takes its own table or `optimizer_defaults` instead")
NOT_BY_THE_COMMAND = N_("scripts/train.py reads `optimizer` and not this")
OF_ANOTHER = N_("kept by the window for another optimizer")


class OptimizerKeys:
    """Where one meaning of the file has the optimizer's values.

    Attributes:
        name: OneTrainer's name of the optimizer.
        prefix: What is in front of its keys; nothing of the file is read if it is empty.
    """

    def __init__(self, account: Account, meaning: Meaning, version: int) -> None:
        self._account = account
        self.name = self._name()
        kept = f"optimizer_defaults.{self.name}"
        self.prefix = "optimizer."
        if meaning == "window" and version >= 1:
            self.prefix = f"{kept}." if account.document.has(kept) else ""
        self._drop_others(meaning)

    def _name(self) -> str:
        account = self._account
        name = account.text("optimizer.optimizer", "ADAMW")
        if name not in OPTIMIZERS:
            account.find("SF702", "error", "optimizer.optimizer", given=name, used="ADAMW",
                         known=", ".join(OPTIMIZERS))  # fmt: skip
            return "ADAMW"
        return name

    def _drop_others(self, meaning: Meaning) -> None:
        mine = self.prefix or "no such key"
        if self.prefix:
            self._account.drop(f"{self.prefix}optimizer", OF_ANOTHER, matters=False)
        for key in self._account.document.values:
            if key.startswith(mine) or key == "optimizer.optimizer":
                continue
            if key.startswith(f"optimizer_defaults.{self.name}."):
                self._account.drop(key, NOT_BY_THE_COMMAND, matters=False)
            elif key.startswith("optimizer_defaults."):
                self._account.drop(key, OF_ANOTHER, matters=False)
            elif key.startswith("optimizer.") and meaning == "window":
                self._account.drop(key, NOT_BY_THE_WINDOW, matters=False)

    def key(self, field: str) -> str:
        """Where a field is in the file, if anywhere."""
        return f"{self.prefix}{field}" if self.prefix else "optimizer.optimizer"

    def given(self, field: str) -> bool:
        """Whether the file has a value for it that is not null."""
        return bool(self.prefix) and self._account.get(self.key(field)) is not None

    def null(self, field: str) -> bool:
        """Whether the file says null."""
        return bool(self.prefix) and self._account.has(self.key(field)) and not self.given(field)

    def flag(self, field: str, default: bool) -> bool:
        """True or false as Python takes it: any text is true."""
        if not self.given(field):
            return default
        value = self._account.get(self.key(field))
        if isinstance(value, str):
            self._account.find("SF703", "warning", self.key(field), given=value)
        return bool(value)


def set_onetrainer_optimizer(account: Account, keys: OptimizerKeys) -> str:
    """Sets the optimizer's section, without its learning rate.

    Returns:
        The kind in run.toml.
    """
    kind = set_optimizer(account, _COUNTERPARTS.get(keys.name), "optimizer.optimizer")
    fields = {**_NUMBERS, **_COUNTS, **_FLAGS}
    for field, theirs in fields.items():
        if not has_field(kind, field) or not keys.given(theirs):
            continue
        if field in _FLAGS:
            account.set(f"optimizer.{field}", keys.flag(theirs, False), keys.key(theirs))
        elif field in _COUNTS:
            account.set(f"optimizer.{field}", account.whole(keys.key(theirs), 0), keys.key(theirs))
        elif account.get(keys.key(theirs)) not in ("inf", float("inf")):
            number = account.number(keys.key(theirs), 0.0)
            account.set(f"optimizer.{field}", number, keys.key(theirs))
    if kind == "adafactor":
        _set_adafactor(account, keys)
    return kind


def _set_adafactor(account: Account, keys: OptimizerKeys) -> None:
    """Its switches: a missing key is false, null is true (create.py)."""
    for field in ("scale_parameter", "relative_step"):
        value = keys.flag(field, keys.null(field))
        account.set(f"optimizer.{field}", value, keys.key(field))
    scaled = account.settings["optimizer.scale_parameter"].value
    if keys.null("scale_parameter") and scaled:
        account.find("SF705", "warning", keys.key("scale_parameter"), field="scale_parameter")
    if keys.null("relative_step"):
        account.find("SF710", "error", keys.key("relative_step"), reason=STOPS_WITH_RATE)
    account.set("optimizer.warmup_init", keys.flag("warmup_init", False), keys.key("warmup_init"))
    stochastic = keys.flag("stochastic_rounding", True)
    account.set(
        "optimizer.rounding",
        "stochastic" if stochastic else "nearest",
        keys.key("stochastic_rounding"),
    )
    fused = keys.flag("fused_back_pass", False)
    account.set("optimizer.step_in_backward", fused, keys.key("fused_back_pass"))
