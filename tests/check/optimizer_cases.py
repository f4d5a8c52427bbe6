"""Cases for the rules about optimizers of libraries, as `test_rules.Case` takes them."""

from __future__ import annotations

from typing import Any

from surefoot.finding import Level

PRODIGY = "optimizer.kind=prodigy"
D_ADAPTATION = "optimizer.kind=d_adaptation"
PLUS = "optimizer.kind=prodigy_plus"
FREE = "optimizer.kind=schedule_free_adamw"
LION = "optimizer.kind=lion"
EIGHT_BITS = "optimizer.kind=adamw_8bit"
NAMED = "optimizer.kind=pytorch_optimizer"
CONSTANT = "schedule.kind=constant"
COSINE = "schedule.kind=cosine"
CLIP = "train.clip_grad_norm=1.0"
FULL = "tuning.kind=full"
WARMUP = "schedule.warmup_steps=10"


def by_name(name: str) -> tuple[str, str]:
    return NAMED, f"optimizer.name={name}"


OPTIMIZER_CASES: tuple[
    tuple[
        str,
        str,
        Level,
        tuple[str, ...],
        tuple[tuple[str, ...], ...],
        dict[str, Any],
        str,
    ],
    ...,
] = (
    (
        "SF118",
        "rate_instead_of_factor",
        "error",
        (PRODIGY, "optimizer.lr=0.1"),
        (
            (PRODIGY, "optimizer.lr=0.2"),
            (PRODIGY,),
            (PLUS,),
            (D_ADAPTATION,),
            by_name("DAdaptLion"),
            (LION, "optimizer.lr=0.1"),
        ),
        {"lr": 0.1},
        "optimizer.lr",
    ),
    (
        "SF119",
        "found_rate_never_falls",
        "warning",
        (D_ADAPTATION, CONSTANT),
        ((D_ADAPTATION,), (D_ADAPTATION, COSINE), (PLUS, CONSTANT), (LION, CONSTANT)),
        {},
        "schedule.kind",
    ),
    (
        "SF120",
        "clipped_before",
        "warning",
        (PRODIGY, CLIP),
        ((PRODIGY,), (LION, CLIP), (CLIP,), ("optimizer.kind=came", CLIP)),
        {"clip": 1.0, "kind": "prodigy"},
        "train.clip_grad_norm",
    ),
    (
        "SF121",
        "clipped_before",
        "warning",
        ("optimizer.kind=stable_adamw", CLIP),
        (("optimizer.kind=stable_adamw",), (LION, CLIP), (CLIP,), (PRODIGY, CLIP)),
        {"clip": 1.0, "kind": "stable_adamw"},
        "train.clip_grad_norm",
    ),
    (
        "SF122",
        "warmup_without_safeguard",
        "warning",
        (PRODIGY, WARMUP),
        (
            (PRODIGY, WARMUP, "optimizer.safeguard_warmup=true"),
            (PRODIGY,),
            (LION, WARMUP),
        ),
        {"warmup": 10},
        "schedule.warmup_steps",
    ),
    (
        "SF123",
        "average_and_schedule",
        "error",
        (FREE, COSINE),
        ((FREE,), (FREE, CONSTANT), (FREE, WARMUP), (PLUS,), (LION, COSINE)),
        {"schedule": "cosine"},
        "schedule.kind",
    ),
    (
        "SF124",
        "averaged_twice",
        "error",
        (PLUS, "train.ema=0.9"),
        ((PLUS,), (LION, "train.ema=0.9")),
        {"ema": 0.9},
        "train.ema",
    ),
    (
        "SF125",
        "rate_of_a_schedule",
        "warning",
        (FREE, "optimizer.lr=9e-5"),
        (
            (FREE,),
            (FREE, "optimizer.lr=1e-4"),
            (FREE, FULL, "optimizer.lr=9e-5"),
            (LION, "optimizer.lr=9e-5"),
        ),
        {"lr": 9e-5, "usual": 1e-4},
        "optimizer.lr",
    ),
    (
        "SF126",
        "found_rate_stays_small",
        "warning",
        by_name("DAdaptAdaGrad"),
        (by_name("DAdaptAdam"), (*by_name("DAdaptAdaGrad"), FULL)),
        {},
        "optimizer.name",
    ),
    (
        "SF127",
        "memory_kept_in_32_bits",
        "note",
        (EIGHT_BITS,),
        ((EIGHT_BITS, "optimizer.min_8bit_size=16"), (LION,)),
        {"size": 4096, "kinds": "lora_up, lora_down, magnitude"},
        "optimizer.min_8bit_size",
    ),
    (
        "SF128",
        "goes_on_otherwise",
        "warning",
        by_name("Kron"),
        (by_name("AdaBelief"), (LION,)),
        {"name": "Kron"},
        "optimizer.name",
    ),
)
