"""For each rule, overrides of a plain run that trip it: what `explain` shows with real numbers."""

from __future__ import annotations

PLAIN_RUN = """
name = "example"
[model]
path = "builtin"
[[data.folders]]
path = "builtin"
[train]
steps = 1500
batch_size = 4
"""

_ADAMW = "optimizer.kind=adamw"
_PRODIGY = "optimizer.kind=prodigy"
_FREE = "optimizer.kind=schedule_free_adamw"
_FULL = "tuning.kind=full"
_BF16 = (_FULL, "tuning.weights=bf16", "train.precision=bf16")
_RELATIVE = "optimizer.relative_step=true"
_INSIDE = "optimizer.step_in_backward=true"
_CLIP = "train.clip_grad_norm=1.0"

EXAMPLES: dict[str, tuple[str, ...]] = {
    "SF026": ('tuning.targets=["attn3.to_k"]',),
    "SF027": ("data.resolution=50",),
    "SF101": ("optimizer.scale_parameter=true", "optimizer.lr=1e-4"),
    "SF102": (_RELATIVE, "optimizer.lr=1e-3"),
    "SF103": ("optimizer.warmup_init=true",),
    "SF104": (_RELATIVE,),
    "SF105": (_CLIP,),
    "SF106": ("schedule.warmup_steps=2000",),
    "SF107": (_ADAMW, "tuning.alpha=1.0"),
    "SF108": ("train.ema=0.9999",),
    "SF109": ("optimizer.lr=0.1",),
    "SF110": (_FULL, "optimizer.scale_parameter=false", _RELATIVE),
    "SF118": (_PRODIGY, "optimizer.lr=1e-4"),
    "SF119": (_PRODIGY, "schedule.kind=constant"),
    "SF120": (_PRODIGY, _CLIP),
    "SF121": ("optimizer.kind=stable_adamw", _CLIP),
    "SF122": (_PRODIGY, "schedule.warmup_steps=10"),
    "SF123": (_FREE, "schedule.kind=cosine"),
    "SF124": (_FREE, "train.ema=0.9"),
    "SF125": (_FREE, "optimizer.lr=1e-5"),
    "SF126": ("optimizer.kind=pytorch_optimizer", "optimizer.name=DAdaptAdaGrad"),
    "SF127": ("optimizer.kind=adamw_8bit",),
    "SF128": ("optimizer.kind=pytorch_optimizer", "optimizer.name=Kron"),
    "SF129": (*_BF16, _ADAMW, "optimizer.lr=1e-5"),
    "SF130": (_FULL, "tuning.weights=bf16"),
    "SF131": ("schedule.warmup_steps=3", "schedule.warmup_fraction=0.1"),
    "SF132": ("schedule.kind=cosine_restarts", "schedule.cycles=100", "schedule.warmup_steps=1450"),
    "SF133": (_INSIDE, _CLIP),
    "SF134": (_INSIDE, "train.gradient_accumulation=2"),
    "SF135": (_INSIDE,),
    "SF136": (_INSIDE, "train.precision=fp16"),
    "SF137": ("train.ema_device=cpu",),
    "SF139": ("tuning.base_weights=nf4",),
    "SF140": ('tuning.rank_pattern={"attn3.to_k"=4}',),
    "SF141": ("tuning.rslora=true", "optimizer.kind=adamw", "tuning.rank=64"),
    "SF142": ("tuning.rank=256",),
    "SF143": ("optimizer.part_lr={text_encoder=1e-5}",),
    "SF144": ("optimizer.part_lr={unet=1e-3}", "optimizer.relative_step=true"),
    "SF145": ("optimizer.part_lr={unet=0.5}", "optimizer.kind=prodigy"),
    "SF146": ("tuning.norm_axis=input",),
    "SF147": ("tuning.dropout=0.8",),
    "SF148": ("tuning.max_norm=1", "tuning.initialisation=pissa"),
    "SF150": ("optimizer.kind=pytorch_optimizer", "optimizer.name=AdaFactor"),
    "SF151": ("optimizer.clip_threshold=0.5",),
    "SF152": (_ADAMW, "optimizer.lr=1e-3", "optimizer.weight_decay=0.5"),
    "SF153": (_PRODIGY, "schedule.kind=cosine_restarts"),
    "SF154": (_ADAMW, "optimizer.lr=1e-6"),
    "SF155": (*_BF16, _ADAMW, "optimizer.weight_decay=0.01"),
    "SF157": ("tuning.targets=attention",),
    "SF158": ('tuning.targets=["attn2.to_k"]', 'tuning.parts=["unet", "text_encoder"]'),
    "SF159": ("train.gradient_accumulation=64",),
    "SF160": ("objective.noise_offset=0.3",),
    "SF161": ("save.every=5000",),
    "SF170": ("save.every=1",),
    "SF201": ("model.prediction=v_prediction",),
    "SF205": ("model.path=stabilityai/sd-turbo",),
    "SF203": ("model.zero_terminal_snr=true",),
    "SF204": ("model.zero_terminal_snr=true", "objective.snr_gamma=5"),
    "SF206": (
        "model.prediction=v_prediction",
        "model.zero_terminal_snr=true",
        "objective.debiased=true",
    ),
    "SF207": ("objective.debiased=true", "objective.snr_gamma=5"),
    "SF208": ("objective.timestep_min=0.6", "objective.timestep_max=0.4"),
    "SF209": ("objective.timestep_mean=0.5",),
    "SF210": ("objective.timestep_min=0.8",),
    "SF303": ("train.batch_size=300",),
    "SF304": ("data.resolution=128",),
    "SF307": ("train.steps=3",),
    "SF309": ("captions.dropout=0.9",),
    "SF163": (_FULL, "train.offload=0.5"),
    "SF164": ("train.offload=0.5",),
    "SF311": ("captions.shuffle=true", "captions.separator=;"),
    "SF312": ("captions.shuffle=true", "captions.keep_tags=30"),
    "SF314": ("captions.trigger=mycat", 'preview.prompts=["a cat"]'),
    "SF028": ("data.bucket_step=8", "data.resolution=64"),
    "SF029": ("data.small_pictures=leave_out", "data.resolution=128"),
    "SF324": ("data.crop=random", "data.variants=1"),
    "SF325": ('data.folders=[{path="builtin", samples=20, repeats=2}]',),
    "SF326": ('data.folders=[{path="builtin", role="regularisation"}]',),
    "SF327": (
        'data.folders=[{path="builtin", samples=20}, {path="builtin", role="regularisation"}]',
    ),
    "SF401": ('waive=[{code="SF107", reason="known"}]',),
}
