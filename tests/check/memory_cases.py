"""Cases of the rules about weights in bfloat16 and the step inside backward."""

from __future__ import annotations

import pytest

from tests.check.rule_cases import Case

FULL = "tuning.kind=full"
BF16 = (FULL, "tuning.weights=bf16", "train.precision=bf16")
INSIDE = "optimizer.step_in_backward=true"
ADAMW = "optimizer.kind=adamw"
NEAREST = "optimizer.rounding=nearest"

MEMORY_CASES = (
    Case(
        "SF129",
        "steps_lost_in_rounding",
        "warning",
        (*BF16, NEAREST, "optimizer.scale_parameter=false", "optimizer.lr=1e-5"),
        (
            BF16,
            (*BF16, "optimizer.rounding=kahan"),
            (*BF16, NEAREST, "schedule.kind=constant", "optimizer.lr=0.03"),
            (FULL, NEAREST),
            (FULL, ADAMW),
            (NEAREST,),
        ),
        # A cosine's mean is half; a weight of about 0.05 has neighbours 2^-12 away.
        {"kind": "weight", "step": pytest.approx(5e-6, rel=0.02), "smallest": 2.0**-13},
        "optimizer.rounding",
    ),
    Case(
        "SF130",
        "precision_beyond_the_weights",
        "error",
        (FULL, "tuning.weights=bf16"),
        (BF16, (FULL, "tuning.weights=fp32"), ("train.precision=bf16",)),
        {"precision": "fp32"},
        "train.precision",
    ),
    Case(
        "SF130",
        "precision_beyond_the_weights",
        "error",
        ("tuning.base_weights=bf16", "train.precision=fp16"),
        (("tuning.base_weights=bf16", "train.precision=bf16"),),
        {"precision": "fp16"},
        "train.precision",
    ),
    Case(
        "SF139",
        "quantised_base",
        "note",
        ("tuning.base_weights=int8",),
        (("tuning.base_weights=bf16", "train.precision=bf16"), ()),
        {"kind": "int8"},
        "tuning.base_weights",
    ),
    Case(
        "SF163",
        "offload_without_frozen_blocks",
        "error",
        (FULL, "train.offload=1", "train.gradient_checkpointing=true"),
        ((FULL,), ("train.offload=1", "train.gradient_checkpointing=true")),
        {"reason": "full fine-tuning trains all of them"},
        "train.offload",
    ),
    Case(
        "SF163",
        "offload_without_frozen_blocks",
        "error",
        ("tuning.base_weights=nf4", "train.offload=1", "train.gradient_checkpointing=true"),
        (("tuning.base_weights=nf4",),),
        {"reason": "quantised weights cannot be moved about"},
        "train.offload",
    ),
    Case(
        "SF164",
        "offload_without_checkpointing",
        "warning",
        ("train.offload=0.5",),
        (("train.offload=0.5", "train.gradient_checkpointing=true"), ()),
        {},
        "train.offload",
    ),
    Case(
        "SF136",
        "stepped_before_unscaled",
        "error",
        (INSIDE, "train.precision=fp16"),
        ((INSIDE, "train.precision=bf16"), ("train.precision=fp16",)),
        {},
        "train.precision",
    ),
    Case(
        "SF137",
        "average_kept_apart_of_nothing",
        "warning",
        ("train.ema_device=cpu",),
        (("train.ema_device=cpu", "train.ema=0.9"), ("train.ema=0.9",)),
        {},
        "train.ema_device",
    ),
    Case(
        "SF133",
        "clipped_before_all_are_there",
        "error",
        (FULL, INSIDE, "train.clip_grad_norm=1.0"),
        ((FULL, INSIDE), (FULL, "train.clip_grad_norm=1.0")),
        {"clip": 1.0},
        "train.clip_grad_norm",
    ),
    Case(
        "SF134",
        "gradients_kept_for_accumulation",
        "note",
        (FULL, INSIDE, "train.gradient_accumulation=2"),
        ((FULL, INSIDE), (FULL, "train.gradient_accumulation=2")),
        {"parts": 2},
        "optimizer.step_in_backward",
    ),
    Case(
        "SF135",
        "gradients_of_adapters_are_small",
        "note",
        (INSIDE,),
        ((FULL, INSIDE), ()),
        {},
        "optimizer.step_in_backward",
    ),
)
