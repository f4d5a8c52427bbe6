"""OneTrainer's JSON. Source: OneTrainer 23df383 (2026-08-19), modules/util/config/TrainConfig.py.

A key that is missing has OneTrainer's default, a value of the wrong kind is ignored, and unknown
keys are dropped without a word (modules/util/config/BaseConfig.py).
"""

from __future__ import annotations

from pathlib import Path

from surefoot.importers.account import Account
from surefoot.importers.document import Document
from surefoot.importers.onetrainer_data import set_onetrainer_data
from surefoot.importers.onetrainer_optimizer import (
    SCHEDULE_FREE,
    Meaning,
    OptimizerKeys,
    set_onetrainer_optimizer,
)
from surefoot.importers.onetrainer_versions import NEWEST, is_preset, newest
from surefoot.importers.part_rates import FIRST_ENCODERS, set_part_rate
from surefoot.importers.reasons import (
    CUSTOM_SCHEDULE,
    FROM_THE_OPTIMIZER,
    NO_ADAPTER,
    NO_FP16,
)
from surefoot.importers.record import Spelling, TheirRun
from surefoot.importers.settle import settled
from surefoot.language import N_

MEANINGS: tuple[Meaning, ...] = ("window", "command line")
_FAMILIES = {
    "STABLE_DIFFUSION_15": "sd15",
    "STABLE_DIFFUSION_20": "sd15",
    "STABLE_DIFFUSION_20_BASE": "sd15",
    "STABLE_DIFFUSION_21": "sd15",
    "STABLE_DIFFUSION_21_BASE": "sd15",
    "STABLE_DIFFUSION_XL_10_BASE": "sdxl",
    "FLUX_DEV_1": "flux",
}
_V_PREDICTING = ("STABLE_DIFFUSION_20", "STABLE_DIFFUSION_21")
_PARTS = ("unet", "prior", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3",
          "text_encoder_4")  # fmt: skip
_USUAL_PARTS = {
    "sd15": ("unet", "text_encoder"),
    "sdxl": ("unet", "text_encoder", "text_encoder_2"),
    "flux": ("transformer", "text_encoder", "text_encoder_2"),
}
_SCHEDULES = {
    "CONSTANT": "constant",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_RESTARTS": "cosine_restarts",
    "COSINE_WITH_HARD_RESTARTS": "cosine_restarts",
    "REX": "rex",
}
_TARGETS = {
    "full": "all",
    "attn-mlp": "attention+feed_forward",
    "attn-only": "attention",
}
_METHODS = ("FINE_TUNE", "LORA", "EMBEDDING", "FINE_TUNE_VAE")
_ADAPTERS = ("LORA", "LOHA", "LOKR", "OFT_2")
_DTYPES = ("FLOAT_16", "FLOAT_32", "TFLOAT_32", "BFLOAT_16")
_PRECISIONS = {"FLOAT_32": "fp32", "TFLOAT_32": "fp32", "BFLOAT_16": "bf16"}

LIKELY_TARGETS = N_(
    "the nearest preset of surefoot; OneTrainer takes layers by parts of their names"
)
NO_TARGETS = N_(
    "OneTrainer takes layers by parts of their names; write patterns for tuning.targets"
)
NO_LENGTHS = N_("surefoot's LoKr trains no lengths beside it")
SCALED_RATE = N_("multiplied by the square root of what learning_rate_scaler names")
SMOOTH_RESTARTS = N_("OneTrainer's falls and rises along a whole cosine, surefoot's jumps back")
FORCED_CONSTANT = N_("OneTrainer makes it constant for a schedule-free optimizer")
SPREAD_AVERAGE = N_("OneTrainer averages every {interval} steps; this is the same a step")
NO_WARMUP_HERE = N_("a schedule-free optimizer warms up by itself")
DIVIDED_WARMUP = N_("OneTrainer divides it by gradient_accumulation_steps")

_FIELDS = {
    field: Spelling(f"optimizer.{field}", off="null")
    for field in ("scale_parameter", "relative_step", "warmup_init", "clip_threshold")
}
SPELLINGS: dict[str, Spelling] = {
    **{f"optimizer.{field}": spelling for field, spelling in _FIELDS.items()},
    "optimizer.lr": Spelling("learning_rate"),
    "optimizer.rounding": Spelling("optimizer.stochastic_rounding", "true"),
    "optimizer.step_in_backward": Spelling("optimizer.fused_back_pass"),
    "optimizer.safeguard_warmup": Spelling("optimizer.safeguard_warmup"),
    "train.clip_grad_norm": Spelling("clip_grad_norm", off="null"),
    "train.ema": Spelling("ema_decay", off='"OFF"'),
    "train.precision": Spelling("train_dtype", '"BFLOAT_16"'),
    "tuning.alpha": Spelling("lora_alpha"),
    "tuning.dropout": Spelling("dropout_probability"),
    "tuning.norm_axis": Spelling("lora_decompose_output_axis", "true"),
    "optimizer.part_lr": Spelling("text_encoder.learning_rate"),
    "tuning.weights": Spelling("unet.weight_dtype", '"FLOAT_32"'),
    "schedule.kind": Spelling("learning_rate_scheduler"),
    "schedule.warmup_steps": Spelling("learning_rate_warmup_steps"),
    "schedule.warmup_fraction": Spelling("learning_rate_warmup_steps"),
    "schedule.cycles": Spelling("learning_rate_cycles"),
}
_ZERO_TERMINAL_SNR = "rescale_noise_scheduler_to_zero_terminal_snr"


def read_onetrainer(document: Document, path: Path) -> tuple[TheirRun, ...]:
    """The run as the window reads the file, and as the command line does.

    Raises:
        Refused: If a value is of a wrong type.
    """
    return tuple(_read(document, path, meaning) for meaning in MEANINGS)


def _read(document: Document, path: Path, meaning: Meaning) -> TheirRun:
    preset = is_preset(document.values, path.name)
    given = document.values.get("__version", NEWEST if preset else 0)
    version = given if isinstance(given, int) else 0
    upgraded, names = newest(document, version)
    account = Account("onetrainer", upgraded, _spellings(upgraded), names)
    if version == 0 and not preset and upgraded.has("unet.train", "optimizer.scale_parameter"):
        _without_version(account, document)
    account.drop("__version", N_("the version of OneTrainer's file"), matters=False)
    keys = OptimizerKeys(account, meaning, version)
    family = _model(account)
    parts = _tuning(account, family)
    _optimizer(account, keys, parts)
    _schedule(account, keys)
    _train(account)
    _objective(account)
    set_onetrainer_data(account, path.parent)
    _resumption(account)
    settled(account)
    return account.close(family, meaning=meaning)


def _spellings(document: Document) -> dict[str, Spelling]:
    rank = document.values.get("peft_type") == "LOKR"
    return {**SPELLINGS, "tuning.rank": Spelling("lokr_dim" if rank else "lora_rank")}


def _without_version(account: Account, document: Document) -> None:
    """A file of today's form without `__version` is upgraded from version 0, which breaks it."""
    if any("." in key for key in document.values):
        key = next(key for key in account.document.values if "." in key)
        account.find("SF710", "error", key, reason=NO_VERSION)


NO_VERSION = N_("without `__version` the file is taken for one of version 0; write \"__version\": "
                "11 into it")  # fmt: skip


def _model(account: Account) -> str:
    asked = account.text("model_type", "STABLE_DIFFUSION_15")
    family = _FAMILIES.get(asked, asked.lower())
    account.set("model.family", family, "model_type")
    path = account.text("base_model_name", "stable-diffusion-v1-5/stable-diffusion-v1-5")
    account.set("model.path", path, "base_model_name")
    prediction = "v_prediction" if asked in _V_PREDICTING else "auto"
    account.set("model.prediction", prediction)
    for key, value in (
        ("force_v_prediction", "v_prediction"),
        ("force_epsilon_prediction", "epsilon"),
    ):
        if account.flag(key):
            account.set("model.prediction", value, key)
    if account.flag(_ZERO_TERMINAL_SNR):
        account.set("model.zero_terminal_snr", True, _ZERO_TERMINAL_SNR)
    return family


def _tuning(account: Account, family: str) -> list[str]:
    """Sets what is trained; returns OneTrainer's names of the trained parts."""
    method = account.choice("training_method", _METHODS, "FINE_TUNE")
    parts = [part for part in _PARTS if account.has(f"{part}.train") or part in _usual(family)]
    parts = [part for part in parts if account.flag(f"{part}.train", True)]
    ours = ["text_encoder" if part.startswith("text") else "unet" for part in parts]
    if method == "LORA":
        _adapter(account)
    elif method == "FINE_TUNE":
        account.set("tuning.kind", "full", "training_method")
        _weights(account, parts)
    else:
        account.judged.discard("tuning")
        account.set("tuning.kind", "full", "training_method", N_("surefoot trains no {method}"),
                    method=method)  # fmt: skip
        account.find("SF722", "note", "training_method", given=method)
    account.set("tuning.parts", tuple(dict.fromkeys(ours)) or ("unet",))
    for part in parts:
        account.use(f"{part}.train", "tuning.parts")
    return parts


def _usual(family: str) -> tuple[str, ...]:
    """Parts that the model has, which are trained unless the file says otherwise."""
    return _USUAL_PARTS.get(family, ())


def _adapter(account: Account) -> None:
    kind = account.choice("peft_type", _ADAPTERS, "LORA")
    decomposed = account.flag("lora_decompose")
    rank, alpha = account.whole("lora_rank", 16), account.number("lora_alpha", 1.0)
    match kind:
        case "LORA":
            name = "dora" if decomposed else "lora"
            account.set("tuning.kind", name, "training_method")
            account.use("peft_type", "tuning.kind")
            account.use("lora_decompose", "tuning.kind")
            key = "lora_decompose_output_axis"
            if decomposed:
                by_output = account.flag(key)
                account.set("tuning.norm_axis", "output" if by_output else "input", key)
        case "LOHA" | "LOKR":
            account.set("tuning.kind", kind.lower(), "training_method")
            account.use("peft_type", "tuning.kind")
            if kind == "LOKR":
                rank = account.whole("lokr_dim", 16)
                _kronecker(account)
        case _:
            account.judged.discard("tuning")
            account.set("tuning.kind", "lora", "training_method")
            account.use("peft_type", "tuning.kind", NO_ADAPTER)  # fmt: skip
            account.find("SF722", "note", "peft_type", given=kind)
    account.set("tuning.rank", rank, "lokr_dim" if kind == "LOKR" else "lora_rank")
    account.set("tuning.alpha", alpha, "lora_alpha")
    key = "dropout_probability"
    account.set("tuning.dropout", account.number(key, 0.0), key)
    preset = account.text("layer_filter_preset", "full")
    if preset in _TARGETS:
        account.set("tuning.targets", _TARGETS[preset], "layer_filter_preset", LIKELY_TARGETS)
    else:
        account.set("tuning.targets", "all", "layer_filter", NO_TARGETS)


def _kronecker(account: Account) -> None:
    """LoKr's own keys: -1 stands for the largest factor."""
    factor = account.whole("lokr_decompose_factor", -1)
    account.set("tuning.factor", factor if factor > 1 else "auto", "lokr_decompose_factor")
    key = "lokr_decompose_both"
    account.set("tuning.decompose_both", account.flag(key), key)
    if account.flag("lokr_weight_decompose"):
        account.drop("lokr_weight_decompose", NO_LENGTHS)


def _weights(account: Account, parts: list[str]) -> None:
    part = next((part for part in parts if not part.startswith("text")), "unet")
    key = f"{part}.weight_dtype"
    dtype = account.text(key, "FLOAT_32")
    account.set("tuning.weights", _PRECISIONS.get(dtype, "bf16"), key,
                "" if dtype in _PRECISIONS else NO_FP16)  # fmt: skip


def _optimizer(account: Account, keys: OptimizerKeys, parts: list[str]) -> None:
    kind = set_onetrainer_optimizer(account, keys)
    denoisers = [part for part in parts if not part.startswith("text")]
    main = next(iter((*denoisers, *parts)), "")
    rate_key = _rate_key(account, main)
    rate = account.number(rate_key, 3e-6)
    factor = _rate_factor(account)
    relative = kind == "adafactor" and account.settings["optimizer.relative_step"].value
    if not (relative and not account.has(rate_key)):
        account.set("optimizer.lr", rate * factor, rate_key, SCALED_RATE if factor != 1 else "")
    encoders = [part for part in parts if part.startswith("text") and part != main]
    for part in encoders[:1]:
        key = _rate_key(account, part)
        reason = SCALED_RATE if factor != 1 else ""
        set_part_rate(account, "text_encoder", account.number(key, 3e-6) * factor, key, reason)
    for key in (f"{part}.learning_rate" for part in encoders[1:]):
        account.drop(key, FIRST_ENCODERS, matters=account.get(key) is not None)
    if relative and account.text("learning_rate_scheduler", "CONSTANT") != "ADAFACTOR":
        account.find("SF707", "note", rate_key, lr=rate)


def _rate_key(account: Account, part: str) -> str:
    """Where a part's rate stands: at the part, or the one of all."""
    own = f"{part}.learning_rate"
    return own if part and account.get(own) is not None else "learning_rate"


def _rate_factor(account: Account) -> float:
    batch = account.whole("batch_size", 1)
    accumulated = account.whole("gradient_accumulation_steps", 1)
    scaler = account.text("learning_rate_scaler", "NONE")
    scales = {"BATCH": batch, "GLOBAL_BATCH": batch, "GRADIENT_ACCUMULATION": accumulated,
              "BOTH": batch * accumulated, "GLOBAL_BOTH": batch * accumulated}  # fmt: skip
    if scaler not in scales:
        return 1.0
    account.use("learning_rate_scaler", "optimizer.lr", SCALED_RATE)
    return float(scales[scaler]) ** 0.5


def _schedule(account: Account, keys: OptimizerKeys) -> None:
    key = "learning_rate_scheduler"
    asked = account.choice(key, (*_SCHEDULES, "ADAFACTOR", "CUSTOM"), "CONSTANT")
    minimum = account.number("learning_rate_min_factor", 0.0)
    if keys.name in SCHEDULE_FREE:
        account.set(
            "schedule.kind", "constant", key, FORCED_CONSTANT if asked != "CONSTANT" else ""
        )
        account.drop("learning_rate_warmup_steps", NO_WARMUP_HERE)
        return
    if asked == "ADAFACTOR":
        account.set("schedule.kind", "constant", key, FROM_THE_OPTIMIZER)
        _adafactor_schedule(account)
        return
    if asked in _SCHEDULES:
        reason = SMOOTH_RESTARTS if asked == "COSINE_WITH_RESTARTS" else ""
        account.set("schedule.kind", _SCHEDULES[asked], key, reason)
    else:
        account.judged.discard("schedule")
        account.set("schedule.kind", "constant", key, CUSTOM_SCHEDULE)
    kind = str(account.settings["schedule.kind"].value)
    if kind != "constant":
        account.set("schedule.end_factor", minimum, "learning_rate_min_factor")
    if kind == "cosine_restarts":
        cycles = max(1, account.whole("learning_rate_cycles", 1))
        account.set("schedule.cycles", cycles, "learning_rate_cycles")
    _warmup(account)


def _adafactor_schedule(account: Account) -> None:
    """The proxy writes the scaled rate back as the rate, which is then scaled again."""
    switches = [account.settings.get(f"optimizer.{name}") for name in
                ("scale_parameter", "relative_step")]  # fmt: skip
    scaled, relative = (switch is not None and bool(switch.value) for switch in switches)
    if scaled and not relative:
        rate = account.number("learning_rate", 3e-6)
        account.find("SF706", "error", "learning_rate_scheduler", lr=rate, second=rate * 0.02,
                     third=rate * 0.02**2)  # fmt: skip


def _warmup(account: Account) -> None:
    key = "learning_rate_warmup_steps"
    warmup = account.number(key, 200.0)
    accumulated = max(1, account.whole("gradient_accumulation_steps", 1))
    if 0 < warmup < 1:
        account.set("schedule.warmup_fraction", warmup, key)
    elif warmup >= 1:
        steps = int(warmup / accumulated)
        account.set("schedule.warmup_steps", steps, key, DIVIDED_WARMUP if accumulated > 1 else "")
    else:
        account.set("schedule.warmup_steps", 0, key)


def _train(account: Account) -> None:
    account.set("train.batch_size", account.whole("batch_size", 1), "batch_size")
    key = "gradient_accumulation_steps"
    account.set("train.gradient_accumulation", account.whole(key, 1), key)
    clip = account.number("clip_grad_norm", 1.0)
    off = account.has("clip_grad_norm") and account.get("clip_grad_norm") is None
    fused = account.settings.get("optimizer.step_in_backward")
    if fused is not None and fused.value and not off:
        account.set("train.clip_grad_norm", "off")
        account.drop("clip_grad_norm", CLIPPED_ALONE)
        account.find("SF708", "warning", fused.key or "clip_grad_norm", clip=clip)
    else:
        account.set("train.clip_grad_norm", "off" if off or clip <= 0 else clip, "clip_grad_norm")
    dtype = account.choice("train_dtype", _DTYPES, "FLOAT_16")
    reason = "" if dtype in _PRECISIONS else NO_FP16
    account.set("train.precision", _PRECISIONS.get(dtype, "bf16"), "train_dtype", reason)
    key = "unet.gradient_checkpointing"
    account.set("train.gradient_checkpointing", account.flag(key, True), key)
    if account.choice("ema", ("OFF", "GPU", "CPU"), "OFF") == "OFF":
        account.set("train.ema", "off", "ema")
    else:
        decay, interval = (
            account.number("ema_decay", 0.999),
            account.whole("ema_update_step_interval", 5),
        )
        account.set("train.ema", decay ** (1 / max(1, interval)), "ema_decay", SPREAD_AVERAGE,
                    interval=interval)  # fmt: skip
        account.use("ema", "train.ema")
        account.use("ema_update_step_interval", "train.ema")


CLIPPED_ALONE = N_("with the step inside the backward pass OneTrainer clips each tensor alone; "
                   "surefoot does not")  # fmt: skip


def _objective(account: Account) -> None:
    if account.text("loss_weight_fn", "CONSTANT") == "MIN_SNR_GAMMA":
        gamma = account.number("loss_weight_strength", 5.0)
        account.set("objective.snr_gamma", gamma, "loss_weight_strength")
        account.use("loss_weight_fn", "objective.snr_gamma")
    offset = account.number("offset_noise_weight", 0.0)
    account.set("objective.noise_offset", offset, "offset_noise_weight")


def _resumption(account: Account) -> None:
    if account.flag("continue_last_backup"):
        account.find("SF709", "warning", "continue_last_backup")
