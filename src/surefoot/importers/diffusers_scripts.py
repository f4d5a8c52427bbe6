"""The arguments of diffusers' example training scripts, in a command line.

Source: diffusers 58eb52c, examples/: dreambooth, text_to_image, advanced_diffusion_training,
controlnet.
"""

from __future__ import annotations

from surefoot.importers.account import Account
from surefoot.importers.document import Document
from surefoot.importers.optimizers import Counterpart, set_field, set_optimizer
from surefoot.importers.part_rates import first_rate, set_part_rate
from surefoot.importers.reasons import NAMED_TARGETS, NO_FP16, NO_SCHEDULE
from surefoot.importers.record import Spelling, TheirRun
from surefoot.importers.settle import settled
from surefoot.importers.training_data import run_name, set_folders, set_steps, whole_side
from surefoot.language import N_

_FAMILIES = (("sdxl", "sdxl"), ("flux2", "flux2"), ("flux", "flux"), ("sd3", "sd3"),
             ("sana", "sana"), ("lumina2", "lumina2"), ("hidream", "hidream"),
             ("qwen", "qwen_image"), ("z_image", "z_image"), ("kandinsky", "kandinsky"),
             ("cosmos", "cosmos"), ("cogvideox", "cogvideox"))  # fmt: skip
_SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine_restarts",
    "polynomial": "polynomial",
}
_ADAM = {"beta1": "adam_beta1", "beta2": "adam_beta2", "eps": "adam_epsilon",
         "weight_decay": "adam_weight_decay"}  # fmt: skip
SPELLINGS: dict[str, Spelling] = {
    "optimizer.lr": Spelling("learning_rate"),
    "optimizer.safeguard_warmup": Spelling("prodigy_safeguard_warmup"),
    "train.clip_grad_norm": Spelling("max_grad_norm"),
    "train.precision": Spelling("mixed_precision", "bf16"),
    "tuning.rank": Spelling("rank"),
    "tuning.alpha": Spelling("lora_alpha"),
    "schedule.kind": Spelling("lr_scheduler"),
    "schedule.warmup_steps": Spelling("lr_warmup_steps"),
    "schedule.cycles": Spelling("lr_num_cycles"),
}
FROM_THE_HUB = N_("surefoot reads folders of pictures, not data sets of the hub")


def read_diffusers(document: Document) -> tuple[TheirRun, ...]:
    """The run that the script makes of the arguments.

    Raises:
        Refused: If a value is of a wrong type.
    """
    account = Account("diffusers", document, SPELLINGS)
    script = document.script.lower()
    family = next((name for word, name in _FAMILIES if word in script), "sd15")
    account.set("model.family", family)
    key = "pretrained_model_name_or_path"
    account.set("model.path", account.text(key, "unknown"), key)
    _train(account)
    _tuning(account, lora="lora" in script or "advanced" in script)
    _optimizer(account, lora="lora" in script)
    _schedule(account)
    _data(account)
    settled(account)
    return (account.close(family),)


def _train(account: Account) -> None:
    account.set("train.batch_size", account.whole("train_batch_size", 4), "train_batch_size")
    key = "gradient_accumulation_steps"
    account.set("train.gradient_accumulation", account.whole(key, 1), key)
    clip = account.number("max_grad_norm", 1.0)
    account.set("train.clip_grad_norm", clip if clip > 0 else "off", "max_grad_norm")
    precision = account.text("mixed_precision", "no")
    account.set("train.precision", "fp32" if precision == "no" else "bf16", "mixed_precision",
                NO_FP16 if precision == "fp16" else "")  # fmt: skip
    key = "gradient_checkpointing"
    account.set("train.gradient_checkpointing", account.flag(key), key)
    if account.flag("use_ema"):
        account.set("train.ema", 0.9999, "use_ema")
    if account.number("snr_gamma", 0.0) > 0:
        account.set("objective.snr_gamma", account.number("snr_gamma", 0.0), "snr_gamma")
    if account.number("noise_offset", 0.0) > 0:
        account.set("objective.noise_offset", account.number("noise_offset", 0.0), "noise_offset")
    if account.get("seed") is not None:
        account.set("seed", max(0, account.whole("seed", 0)), "seed")
    if account.text("resume_from_checkpoint"):
        account.find("SF709", "warning", "resume_from_checkpoint")


def _tuning(account: Account, *, lora: bool) -> None:
    text = account.flag("train_text_encoder")
    account.set("tuning.parts", ("unet", "text_encoder") if text else ("unet",),
                "train_text_encoder")  # fmt: skip
    if not lora:
        account.set("tuning.kind", "full")
        return
    account.set("tuning.kind", "dora" if account.flag("use_dora") else "lora", "use_dora")
    rank = account.whole("rank", 4)
    account.set("tuning.rank", rank, "rank")
    account.set("tuning.alpha", account.number("lora_alpha", float(rank)), "lora_alpha")
    account.set("tuning.dropout", account.number("lora_dropout", 0.0), "lora_dropout")
    account.set("tuning.targets", "attention", "", NAMED_TARGETS)


def _optimizer(account: Account, *, lora: bool) -> None:
    name = account.text("optimizer", "AdamW").lower()
    if account.flag("use_adafactor"):
        kind = set_optimizer(account, Counterpart("adafactor"), "use_adafactor")
        for field in ("scale_parameter", "relative_step"):
            account.set(f"optimizer.{field}", False)
    elif account.flag("use_8bit_adam"):
        kind = set_optimizer(account, Counterpart("adamw_8bit"), "use_8bit_adam")
    else:
        known = {"adamw": Counterpart("adamw"), "prodigy": Counterpart("prodigy")}
        kind = set_optimizer(account, known.get(name), "optimizer")
    account.use("optimizer", "optimizer.kind")
    rate = account.number("learning_rate", 1e-4 if lora else 5e-6)
    account.set("optimizer.lr", rate, "learning_rate")
    own = first_rate(account.get("text_encoder_lr"))
    if own is not None:
        set_part_rate(account, "text_encoder", own, "text_encoder_lr")
    for field, key in _ADAM.items():
        if account.get(key) is not None and kind != "adafactor":
            set_field(account, kind, field, account.number(key, 0.0), key)
    if kind == "prodigy":
        key = "prodigy_safeguard_warmup"
        account.set("optimizer.safeguard_warmup", account.flag(key, True), key)
        account.set("optimizer.bias_correction", account.flag("prodigy_use_bias_correction", True),
                    "prodigy_use_bias_correction")  # fmt: skip


def _schedule(account: Account) -> None:
    name = account.text("lr_scheduler", "constant")
    if name in _SCHEDULES:
        account.set("schedule.kind", _SCHEDULES[name], "lr_scheduler")
    else:
        account.judged.discard("schedule")
        account.set("schedule.kind", "constant", "lr_scheduler", NO_SCHEDULE)
    if name != "constant":
        account.set("schedule.warmup_steps", account.whole("lr_warmup_steps", 500),
                    "lr_warmup_steps")  # fmt: skip
    if name == "cosine_with_restarts":
        account.set("schedule.cycles", account.whole("lr_num_cycles", 1), "lr_num_cycles")
    if name == "polynomial":
        account.set("schedule.power", account.number("lr_power", 1.0), "lr_power")


def _data(account: Account) -> None:
    key = "instance_data_dir" if account.has("instance_data_dir") else "train_data_dir"
    path = account.text(key)
    set_folders(account, [(path, max(1, account.whole("repeats", 1)))] if path else [])
    account.use(key, "data.folders.0.path")
    account.drop("dataset_name", FROM_THE_HUB)
    side = whole_side(account.text("resolution", "512"))
    if side >= 8:
        account.set("data.resolution", side, "resolution")
    account.set("captions.missing", "empty")
    account.set("captions.dropout", 0.0)
    if account.flag("random_flip"):
        account.set("data.flip", True, "random_flip")
    prompt = account.text("validation_prompt")
    if prompt:
        account.set("preview.prompts", (prompt,), "validation_prompt")
    every = account.whole("checkpointing_steps", 500)
    account.set("save.every", max(1, every), "checkpointing_steps")
    account.set("name", run_name(account.text("output_dir", "imported")), "output_dir")
    set_steps(
        account,
        steps=account.whole("max_train_steps", 0),
        steps_key="max_train_steps",
        epochs=account.number("num_train_epochs", 1),
        epochs_key="num_train_epochs",
    )
