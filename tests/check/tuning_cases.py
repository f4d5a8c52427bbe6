"""Cases of the rules about adapters."""

from __future__ import annotations

from tests.check.rule_cases import Case

ADAMW = "optimizer.kind=adamw"
FULL = "tuning.kind=full"
RSLORA = "tuning.rslora=true"

TUNING_CASES = (
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
)
