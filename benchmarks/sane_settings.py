"""What people rightly do: methods times optimizers. Neither check nor watch may call it wrong."""

from __future__ import annotations

BF16 = ("tuning.weights=bf16", "train.precision=bf16")
METHODS: dict[str, tuple[str, ...]] = {
    "full": ("tuning.kind=full",),
    "full in bf16": ("tuning.kind=full", *BF16),
    "full with text encoder": ("tuning.kind=full", "tuning.parts=['unet', 'text_encoder']"),
    "lora": ("tuning.kind=lora", "tuning.rank=8"),
    "lora on everything": ("tuning.kind=lora", "tuning.targets=all", "tuning.alpha=16"),
    "dora": ("tuning.kind=dora",),
    "loha": ("tuning.kind=loha", "tuning.rank=8"),
    "lokr": ("tuning.kind=lokr", "tuning.rank=8"),
}
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adafactor": (),
    "adafactor by 1e-2": ("optimizer.lr=1e-2", "schedule.warmup_fraction=0.05"),
    "adafactor unscaled": ("optimizer.scale_parameter=false",),
    "adafactor with momentum": ("optimizer.beta1=0.9",),
    "adamw": ("optimizer.kind=adamw",),
    "adamw clipped": ("optimizer.kind=adamw", "train.clip_grad_norm=1.0"),
    "adamw in 8 bits": ("optimizer.kind=adamw_8bit",),
    "lion": ("optimizer.kind=lion",),
    "came": ("optimizer.kind=came",),
    "stable adamw": ("optimizer.kind=stable_adamw",),
    "adan": ("optimizer.kind=adan",),
    "muon": ("optimizer.kind=muon",),
    "soap": ("optimizer.kind=soap",),
    "prodigy": ("optimizer.kind=prodigy",),
    "d-adaptation": ("optimizer.kind=d_adaptation",),
    "schedule-free": ("optimizer.kind=schedule_free_adamw",),
    "prodigy plus": ("optimizer.kind=prodigy_plus",),
    "by name": ("optimizer.kind=pytorch_optimizer", "optimizer.name=AdaBelief"),
}


def is_sane(method: str, optimizer: str) -> bool:
    """Whether they go together: weights in bf16 lose most optimizers' steps (the check's SF129)."""
    return method != "full in bf16" or optimizer.startswith("adafactor")


SANE = tuple(
    (method, optimizer)
    for method in METHODS
    for optimizer in OPTIMIZERS
    if is_sane(method, optimizer)
)
