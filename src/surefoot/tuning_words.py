"""The words of the findings about adapters; `wording.py` says how they are used."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

TUNING_WORDS: dict[str, Words] = {
    "SF140": Words(
        N_("the pattern `{pattern}` is the first to match none of the {layers} layers that carry "
           "an adapter"),
        notes=(N_("those layers are such as {example}; where several patterns match a layer, the "
                  "first counts."),),
        helps=(N_("correct it, put it before the wider one, or take it out"),),
        source="PEFT's rank_pattern says nothing of a pattern without a layer",
    ),
    "SF141": Words(
        N_("with rslora, {count} adapters are multiplied by {scale:.3g}, which is "
           "alpha / sqrt(rank) at rank {rank}"),
        notes=(N_("with an absolute learning rate this is like training at {scale:.3g} times the "
                  "rate."),),
        helps=(N_("set tuning.alpha to {alpha:.3g}, which multiplies by 1 at this rank, or lower "
                  "the learning rate as much"),),
        source="Kalajdzievski 2023, rsLoRA, arXiv 2312.03732",
    ),
    "SF142": Words(
        N_("the rank is higher than {count} of {layers} layers can use: {path} is given {rank}, "
           "and no update of it has a rank above {limit}"),
        helps=(N_("give such layers a lower one by rank_pattern; the rest is memory for nothing"),),
        source="Hu et al. 2021, LoRA, section 4.1",
    ),
}  # fmt: skip
