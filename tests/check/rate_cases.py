"""Cases of the rules about rates and weight decay."""

from __future__ import annotations

import pytest

from tests.check.rule_cases import Case

FULL = "tuning.kind=full"
BF16 = (FULL, "tuning.weights=bf16", "train.precision=bf16")
ADAMW = "optimizer.kind=adamw"
UNSCALED = "optimizer.scale_parameter=false"
PRODIGY = "optimizer.kind=prodigy"
NAMED = ("optimizer.kind=pytorch_optimizer", "optimizer.name=AdaFactor")
RELATIVE = "optimizer.relative_step=true"
RAMP = (RELATIVE, "optimizer.warmup_init=true")
RESTARTS = "schedule.kind=cosine_restarts"
CONSTANT = "schedule.kind=constant"

RATE_CASES = (
    Case(
        "SF150",
        "own_scale_by_name",
        "error",
        (*NAMED, "optimizer.arguments={scale_parameter=true}"),
        (
            (*NAMED, "optimizer.arguments={scale_parameter=false, relative_step=false}"),
            (*NAMED, FULL),
            ("optimizer.kind=pytorch_optimizer", "optimizer.name=CAME"),
        ),
        {"keys": "scale_parameter + relative_step", "tuning": "dora"},
        "optimizer.arguments",
    ),
    Case(
        "SF151",
        "clipped_below_the_rate",
        "warning",
        ("optimizer.clip_threshold=0.5",),
        (("optimizer.clip_threshold=1.0",), ("optimizer.clip_threshold=2.0",), (ADAMW,)),
        {"threshold": 0.5},
        "optimizer.clip_threshold",
    ),
    Case(
        "SF152",
        "decay_that_eats_the_weights",
        "warning",
        # 120 steps of 1e-3 constant: 1 - exp(-0.12 * 1) of each number.
        (ADAMW, CONSTANT, "optimizer.lr=1e-3", "optimizer.weight_decay=1.0"),
        (
            (ADAMW, CONSTANT, "optimizer.lr=1e-3", "optimizer.weight_decay=0.8"),
            (ADAMW, CONSTANT, "optimizer.lr=1e-3"),
            ("optimizer.weight_decay=0.01",),
            (PRODIGY, "optimizer.weight_decay=1.0"),
        ),
        {"decay": 1.0, "percent": pytest.approx(100 * (1 - 2.718281828**-0.12))},
        "optimizer.weight_decay",
    ),
    Case(
        "SF153",
        "restarts_of_a_found_rate",
        "warning",
        (PRODIGY, RESTARTS),
        ((PRODIGY,), (ADAMW, RESTARTS), (PRODIGY, "schedule.kind=cosine")),
        {},
        "schedule.kind",
    ),
    Case(
        "SF154",
        "rate_of_another_tuning",
        "warning",
        (ADAMW, "optimizer.lr=1e-6"),
        (
            (ADAMW, "optimizer.lr=1e-5"),
            (ADAMW, "optimizer.lr=1e-3"),
            (ADAMW, FULL, "optimizer.lr=1e-6"),
            (UNSCALED, "optimizer.lr=1e-4"),
            ("optimizer.lr=1e-2",),
            (PRODIGY, "optimizer.lr=1"),
        ),
        {"lr": 1e-6, "usual": 1e-4, "tuning": "dora"},
        "optimizer.lr",
    ),
    Case(
        "SF154",
        "rate_of_another_tuning",
        "warning",
        (FULL, UNSCALED, "optimizer.lr=1e-3"),
        ((FULL, UNSCALED, "optimizer.lr=5e-5"), (FULL, "optimizer.lr=1e-2")),
        {"lr": 1e-3, "usual": 1e-5, "tuning": "full"},
        "optimizer.lr",
    ),
    Case(
        "SF155",
        "decay_lost_in_rounding",
        "warning",
        (*BF16, ADAMW, "optimizer.lr=1e-5", "optimizer.weight_decay=0.01"),
        (
            (*BF16, ADAMW, "optimizer.weight_decay=0"),
            (*BF16, "optimizer.weight_decay=0.01"),
            (FULL, ADAMW),
            (*BF16, ADAMW, "optimizer.lr=1e-2", "optimizer.weight_decay=0.2"),
        ),
        {"decay": 0.01, "share": 1e-7},
        "optimizer.weight_decay",
    ),
)

RATE_CASES += (
    Case(
        "SF110",
        "unscaled_relative_step",
        "error",
        (FULL, UNSCALED, RELATIVE),
        (
            (FULL, "optimizer.scale_parameter=true", RELATIVE),
            (FULL, RELATIVE),
            (FULL, UNSCALED),
            (FULL, UNSCALED, *RAMP, "train.steps=100"),
        ),
        {"rate": 1e-2, "lr": 1e-5, "times": pytest.approx(1000), "tuning": "full"},
        "optimizer.relative_step",
    ),
    Case(
        "SF110",
        "unscaled_relative_step",
        "warning",
        (UNSCALED, RELATIVE),
        ((RELATIVE,), (UNSCALED,), (UNSCALED, *RAMP, "train.steps=3000")),
        {"rate": 1e-2, "lr": 1e-4, "times": pytest.approx(100), "tuning": "DoRA"},
        "optimizer.relative_step",
    ),
)

SET_CASES = (
    Case(
        "SF157",
        "attention_only",
        "note",
        ("tuning.targets=attention",),
        ((), ("tuning.targets=all",), ('tuning.targets=["attn2.to_k"]',), (FULL,)),
        {},
        "tuning.targets",
    ),
    Case(
        "SF158",
        "part_without_targets",
        "error",
        ('tuning.targets=["attn2.to_k"]', "tuning.parts=['unet', 'text_encoder']"),
        (
            ('tuning.targets=["attn2.to_k", "q_proj"]', "tuning.parts=['unet', 'text_encoder']"),
            ('tuning.targets=["attn2.to_k"]',),
            ("tuning.parts=['unet', 'text_encoder']",),
        ),
        {"part": "text_encoder"},
        "tuning.parts",
    ),
    Case(
        "SF159",
        "large_step_of_an_adapter",
        "note",
        ("train.gradient_accumulation=128",),
        (
            ("train.gradient_accumulation=127",),
            (FULL, "train.gradient_accumulation=128"),
        ),
        {"pictures": 256},
        "train.batch_size",
    ),
    Case(
        "SF160",
        "noise_offset_that_shifts",
        "warning",
        ("objective.noise_offset=0.3",),
        (("objective.noise_offset=0.2",), ()),
        {"offset": 0.3},
        "objective.noise_offset",
    ),
    Case(
        "SF205",
        "distilled_base",
        "warning",
        ("model.path=stabilityai/sd-turbo",),
        ((), ("model.path=stabilityai/stable-diffusion-2-1",), ("model.path=alchemy/lcmx",)),
        {"word": "turbo"},
        "model.path",
    ),
    Case(
        "SF307",
        "pictures_never_seen",
        "warning",
        ("train.steps=3", "data.folders.0.repeats=4"),
        (("train.steps=4", "data.folders.0.repeats=4"), ("data.folders.0.path=nowhere",)),
        {"seen": 6, "pictures": 8, "needed": 4},
        "train.steps",
    ),
    Case(
        "SF309",
        "captions_mostly_dropped",
        "warning",
        ("captions.dropout=1.0",),
        (("captions.dropout=0.5",), ()),
        {"percent": 100.0},
        "captions.dropout",
    ),
    Case(
        "SF310",
        "validated_on_what_is_trained",
        "warning",
        ("validation.folder=pictures",),
        ((), ("validation.folder=builtin",)),
        {"count": 2, "pictures": 2, "example": "0.png"},
        "validation.folder",
    ),
)
