"""Cases of the rules about adapters."""

from __future__ import annotations

from tests.check.rule_cases import Case

ADAMW = "optimizer.kind=adamw"
FULL = "tuning.kind=full"
RSLORA = "tuning.rslora=true"

RATE = "optimizer.part_lr={text_encoder = 1e-5}"
BOTH = "tuning.parts=['unet', 'text_encoder']"

TUNING_CASES = (
    Case(
        "SF143",
        "rates_of_parts",
        "error",
        (RATE,),
        ((RATE, BOTH), ()),
        {"part": "text_encoder", "trained": "unet"},
        "optimizer.part_lr.text_encoder",
    ),
    Case(
        "SF144",
        "rates_of_parts",
        "error",
        (RATE, BOTH, "optimizer.relative_step=true"),
        ((RATE, BOTH, ADAMW),),
        {},
        "optimizer.part_lr",
    ),
    Case(
        "SF145",
        "rates_of_parts",
        "error",
        (RATE, BOTH, "optimizer.kind=prodigy"),
        (
            (RATE, BOTH, "optimizer.kind=lion"),
            (BOTH, "optimizer.kind=prodigy"),
        ),
        {"kind": "prodigy"},
        "optimizer.part_lr",
    ),
    Case(
        "SF140",
        "patterns_that_match_nothing",
        "error",
        ('tuning.rank_pattern={"attn2.*" = 4, "attn2.to_k" = 8}',),
        (
            ('tuning.rank_pattern={"attn2.to_k" = 8, "attn2.*" = 4}',),
            ('tuning.rank_pattern={"attn3.*" = 8}', "model.path=nowhere"),
            (FULL,),
        ),
        {"pattern": "attn2.to_k"},
        "tuning.rank_pattern",
    ),
    Case(
        "SF140",
        "patterns_that_match_nothing",
        "error",
        ('tuning.alpha_pattern={"conv_in" = 4.0}',),
        (('tuning.alpha_pattern={"conv_in" = 4.0}', "tuning.targets=all"),),
        {"pattern": "conv_in"},
        "tuning.alpha_pattern",
    ),
    Case(
        "SF141",
        "alpha_far_from_rank",
        "warning",
        (ADAMW, RSLORA, "tuning.rank=25"),
        ((ADAMW, RSLORA, "tuning.rank=16"), (RSLORA, "tuning.rank=25")),
        {"scale": 5.0, "rank": 25, "alpha": 5.0},
        "tuning.rslora",
    ),
    Case(
        "SF107",
        "alpha_far_from_rank",
        "warning",
        (ADAMW, "tuning.alpha=8", 'tuning.rank_pattern={"attn2.to_k" = 40}'),
        ((ADAMW, "tuning.alpha=8", 'tuning.rank_pattern={"attn2.to_k" = 32}'),),
        {"scale": 0.2, "rank": 40},
        "tuning.alpha",
    ),
    Case(
        "SF142",
        "rank_beyond_the_layer",
        "note",
        ("tuning.rank=129",),
        (("tuning.rank=128",), (FULL,)),
        {"rank": 129, "limit": 128},
        "tuning.rank",
    ),
    Case(
        "SF146",
        "axis_that_few_read",
        "note",
        ("tuning.norm_axis=input",),
        (("tuning.norm_axis=output",), ("tuning.kind=lora",)),
        {},
        "tuning.norm_axis",
    ),
    Case(
        "SF147",
        "dropout_of_most",
        "warning",
        ("tuning.dropout=0.75",),
        (("tuning.dropout=0.5",), (FULL,)),
        {"dropout": 0.75, "percent": 25.0},
        "tuning.dropout",
    ),
    Case(
        "SF148",
        "norm_of_a_distance",
        "error",
        ("tuning.max_norm=1", "tuning.initialisation=pissa"),
        (("tuning.max_norm=1",), ("tuning.initialisation=pissa",), (FULL,)),
        {},
        "tuning.max_norm",
    ),
)
