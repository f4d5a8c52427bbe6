"""The optimizers and schedules of sd-scripts and musubi-tuner, which are the same.

Source: sd-scripts 48d368f (2026-02-16), library/train_util.py get_optimizer and
get_scheduler_fix; musubi-tuner 30c658c, training/trainer_base.py.
"""

from __future__ import annotations

import ast

from surefoot.importers.account import Account
from surefoot.importers.document import Leaf
from surefoot.importers.optimizers import Counterpart, has_field, library_class, set_optimizer
from surefoot.importers.reasons import (
    CUSTOM_SCHEDULE,
    DECOUPLED,
    FROM_THE_OPTIMIZER,
    NO_SCHEDULE,
    OPTION_OF_OPTIMIZER,
    WHOLE_MEMORY,
)
from surefoot.importers.record import Spelling
from surefoot.language import N_

_COUNTERPARTS: dict[str, Counterpart] = {
    "adamw": Counterpart("adamw"),
    "adamw8bit": Counterpart("adamw_8bit"),
    "pagedadamw": Counterpart("adamw", reason=WHOLE_MEMORY),
    "pagedadamw8bit": Counterpart("adamw_8bit"),
    "pagedadamw32bit": Counterpart("adamw"),
    "adafactor": Counterpart("adafactor"),
    "torch.optim.adafactor": Counterpart("adafactor"),
    "transformers.optimization.adafactor": Counterpart("adafactor"),
    "torch.optim.adam": Counterpart("adamw", reason=DECOUPLED),
    "torch.optim.adamw": Counterpart("adamw"),
    "lion": Counterpart("lion"),
    "lion8bit": Counterpart("lion", reason=WHOLE_MEMORY),
    "pagedlion8bit": Counterpart("lion", reason=WHOLE_MEMORY),
    "prodigy": Counterpart("prodigy"),
    "prodigyopt.prodigy": Counterpart("prodigy"),
    "prodigyplus.prodigyplusschedulefree": Counterpart("prodigy_plus"),
    "dadaptation": Counterpart("d_adaptation"),
    "dadaptadampreprint": Counterpart("d_adaptation"),
    "dadaptadam": Counterpart("d_adaptation"),
    "dadaptadagrad": library_class("DAdaptAdaGrad"),
    "dadaptadan": library_class("DAdaptAdan"),
    "dadaptlion": library_class("DAdaptLion"),
    "dadaptsgd": library_class("DAdaptSGD"),
    "adamwschedulefree": Counterpart("schedule_free_adamw"),
    "radamschedulefree": library_class("ScheduleFreeRAdam"),
    "sgdschedulefree": library_class("ScheduleFreeSGD"),
    "came_pytorch.came": Counterpart("came"),
}
_KNOWN_WITHOUT = ("sgdnesterov", "sgdnesterov8bit", "dadaptadanip", "ademamix8bit",
                  "pagedademamix8bit")  # fmt: skip
_SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_restarts",
    "cosine_with_min_lr": "cosine",
    "polynomial": "polynomial",
    "inverse_sqrt": "inverse_sqrt",
}
_FIELDS = {
    "clip_threshold": "clip_threshold", "decay_rate": "decay_rate", "weight_decay": "weight_decay",
    "beta1": "beta1", "d0": "d0", "d_coef": "d_coef", "growth_rate": "growth_rate",
    "safeguard_warmup": "safeguard_warmup", "use_bias_correction": "bias_correction",
    "beta3": "beta3", "split_groups": "split_groups", "prodigy_steps": "prodigy_steps",
    "schedulefree_c": "schedulefree_c", "use_speed": "use_speed", "warmup_init": "warmup_init",
    "scale_parameter": "scale_parameter", "relative_step": "relative_step",
    "min_8bit_size": "min_8bit_size",
}  # fmt: skip
SPELLINGS: dict[str, Spelling] = {
    **{
        f"optimizer.{field}": Spelling("optimizer_args", f"{theirs}={{value}}")
        for theirs, field in _FIELDS.items()
    },
    "optimizer.lr": Spelling("learning_rate"),
    "train.clip_grad_norm": Spelling("max_grad_norm"),
    "train.precision": Spelling("mixed_precision", '"bf16"'),
    "tuning.alpha": Spelling("network_alpha"),
    "tuning.dropout": Spelling("network_dropout"),
    "tuning.max_norm": Spelling("scale_weight_norms"),
    "tuning.norm_axis": Spelling("network_args", "wd_on_output=True"),
    "optimizer.part_lr": Spelling("text_encoder_lr"),
    "tuning.rank": Spelling("network_dim"),
    "schedule.kind": Spelling("lr_scheduler"),
    "schedule.warmup_steps": Spelling("lr_warmup_steps"),
    "schedule.warmup_fraction": Spelling("lr_warmup_steps"),
    "schedule.cycles": Spelling("lr_scheduler_num_cycles"),
}
WORDS = ("True", "False")
_LONGEST_OPTION = 200

NOT_GIVEN = N_("relative_step is true unless optimizer_args say relative_step=False")
ASKED_FOR = N_("relative_step makes the rate itself")
NOT_PYTHON = N_("an option's value is no Python literal: true and false need a capital")
NOT_AN_OPTION = N_("an option is not key=value with one equals sign")
NO_SUCH_CLASS = N_("there is no optimizer of that name, and no module with a class of it")
NO_INITIAL_RATE = N_("the schedule adafactor works with relative_step only")
NEEDS_RELATIVE = N_("fused_backward_pass takes Adafactor and no accumulation of gradients")


def set_kohya_optimizer(account: Account, rate: float, rate_key: str) -> None:
    """Sets optimizer and schedule as sd-scripts resolves them.

    Args:
        account: The keys.
        rate: The learning rate of what is trained, and `rate_key` where it is written.
        rate_key: See above.
    """
    name = _optimizer_name(account)
    options = _options(account)
    found = _COUNTERPARTS.get(name)
    if found is None and name not in _KNOWN_WITHOUT and "." not in name:
        account.find("SF710", "error", "optimizer_type", reason=NO_SUCH_CLASS)
    kind = set_optimizer(account, found, "optimizer_type")
    _set_options(account, kind, options)
    if kind == "adafactor":
        _set_adafactor(account, options, rate, rate_key, by_torch=name.startswith("torch."))
    else:
        account.set("optimizer.lr", rate, rate_key)
        _set_schedule(account, rate)
    account.use("optimizer_args", "optimizer", OPTION_OF_OPTIMIZER)


def _optimizer_name(account: Account) -> str:
    for flag, name in (("use_8bit_adam", "adamw8bit"), ("use_lion_optimizer", "lion")):
        if account.flag(flag):
            account.use(flag, "optimizer.kind")
            return name
    return account.text("optimizer_type", "AdamW").lower() or "adamw"


def _options(account: Account) -> dict[str, Leaf]:
    """`key=value` of optimizer_args, read as sd-scripts does, by Python's literals."""
    options: dict[str, Leaf] = {}
    for item in account.items("optimizer_args"):
        if not item.strip():
            continue
        key, sign, text = item.partition("=")
        if not sign or "=" in text or len(item) > _LONGEST_OPTION:
            account.find("SF710", "error", "optimizer_args", reason=NOT_AN_OPTION)
            continue
        try:
            value: object = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            account.find("SF710", "error", "optimizer_args", reason=NOT_PYTHON)
            continue
        options[key.strip()] = value if isinstance(value, bool | int | float | str) else str(value)
        _unpack(options, key.strip(), value)
    return options


def _unpack(options: dict[str, Leaf], key: str, value: object) -> None:
    """`betas=(0.9, 0.99)` and `eps=(1e-30, 1e-3)` are several of our fields."""
    names = {"betas": ("beta1", "beta2", "beta3"), "eps": ("eps1", "eps2")}.get(key, ())
    if isinstance(value, tuple | list):
        for name, item in zip(names, value, strict=False):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            if isinstance(item, int | float):
                options[name] = float(item)


def _set_options(account: Account, kind: str, options: dict[str, Leaf]) -> None:
    fields = {**_FIELDS, "beta2": "beta2", "eps": "eps", "eps1": "eps1", "eps2": "eps2"}
    for theirs, field in fields.items():
        value = options.get(theirs)
        if value is None or not has_field(kind, field) or isinstance(value, str | tuple):
            continue
        account.set(f"optimizer.{field}", value, "optimizer_args")


def _set_adafactor(
    account: Account, options: dict[str, Leaf], rate: float, rate_key: str, *, by_torch: bool
) -> None:
    """relative_step is true unless said otherwise, and takes rate, schedule and clipping along."""
    ramp = bool(options.get("warmup_init", False))
    relative = not by_torch and (bool(options.get("relative_step", True)) or ramp)
    scaled = by_torch or bool(options.get("scale_parameter", True))
    key = "optimizer_args" if account.has("optimizer_args") else "optimizer_type"
    account.set("optimizer.scale_parameter", scaled, "optimizer_type" if by_torch else key)
    account.set("optimizer.relative_step", relative, key)
    if by_torch:  # which has no switch for it
        account.spellings["optimizer.scale_parameter"] = Spelling("optimizer_type", '"AdaFactor"')
    account.set("optimizer.rounding", "nearest")
    if not relative:
        account.set("optimizer.lr", rate, rate_key)
        if account.text("lr_scheduler", "constant") == "adafactor":
            account.find("SF710", "error", "lr_scheduler", reason=NO_INITIAL_RATE)
        _set_schedule(account, rate)
        return
    for dropped in ("learning_rate", "unet_lr", "text_encoder_lr"):
        account.drop(dropped, ASKED_FOR)
    scheduler = account.text("lr_scheduler", "constant")
    account.set("schedule.kind", "constant", "lr_scheduler", FROM_THE_OPTIMIZER)
    reason = ASKED_FOR if ramp or "relative_step" in options else NOT_GIVEN
    if account.has(rate_key):
        account.find("SF711", "error", rate_key, given=f"{rate:g}", used="None", reason=reason)
    if scheduler != "adafactor" and account.has("lr_scheduler"):
        used = f"adafactor:{rate:g}"
        account.find("SF711", "warning", "lr_scheduler", given=scheduler, used=used,
                     reason=reason)  # fmt: skip


def _set_schedule(account: Account, rate: float) -> None:
    if account.text("lr_scheduler_type"):
        account.judged.discard("schedule")
        account.set("schedule.kind", "constant", "lr_scheduler_type", CUSTOM_SCHEDULE)
        return
    name = account.text("lr_scheduler", "constant")
    if name not in _SCHEDULES:
        account.judged.discard("schedule")
        reason = FROM_THE_OPTIMIZER if name.startswith("adafactor") else NO_SCHEDULE
        account.set("schedule.kind", "constant", "lr_scheduler", reason)
        return
    kind = _SCHEDULES[name]
    account.set("schedule.kind", kind, "lr_scheduler")
    if kind == "cosine_restarts":
        cycles = account.whole("lr_scheduler_num_cycles", 1)
        account.set("schedule.cycles", cycles, "lr_scheduler_num_cycles")
    if kind == "polynomial":
        account.set("schedule.power", account.number("lr_scheduler_power", 1.0),
                    "lr_scheduler_power")  # fmt: skip
    least = account.number("lr_scheduler_min_lr_ratio", 0.0)
    if name == "cosine_with_min_lr" and least:
        account.set("schedule.end_factor", least, "lr_scheduler_min_lr_ratio")
    warmup = account.number("lr_warmup_steps", 0.0)
    if 0 < warmup < 1:
        account.set("schedule.warmup_fraction", warmup, "lr_warmup_steps")
    elif name != "constant":
        account.set("schedule.warmup_steps", int(warmup), "lr_warmup_steps")
