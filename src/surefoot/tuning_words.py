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
    "SF143": Words(
        N_("a learning rate is given for the {part}, which is not trained: only {trained} is"),
        helps=(N_("remove it, or put the part into tuning.parts"),),
    ),
    "SF144": Words(
        N_("part_lr has no effect with relative_step, which sets the rate of every tensor itself"),
        helps=(N_("remove part_lr, or set relative_step = false"),),
    ),
    "SF145": Words(
        N_("{kind} finds one learning rate for all that it trains, and part_lr would pull it "
           "apart"),
        notes=(N_("a factor other than 1 in one part spoils what is found for the others."),),
        helps=(N_("remove part_lr, or take an optimizer whose rate you give, such as adamw"),),
        source="Prodigy issues 3 and 16",
    ),
    "SF146": Words(
        N_("norm_axis = \"input\" is read right by ComfyUI and OneTrainer only: PEFT and diffusers "
           "take the {count} magnitudes for those of outputs, or refuse the file"),
        helps=(N_("set norm_axis = \"output\" unless the file is for one of the two"),),
        source="LyCORIS issues 216 and 246; ComfyUI issue 7602",
    ),
    "SF147": Words(
        N_("dropout = {dropout:g} leaves {percent:.0f} % of the adapters' inputs at each step: "
           "they learn slowly, and from noise"),
        helps=(N_("0.05 to 0.2 is customary, and 0 for short runs"),),
        source="Hu et al. 2021, LoRA, appendix D",
    ),
    "SF148": Words(
        N_("max_norm cannot hold back an adapter that starts from principal singular values: what "
           "is trained is its distance from where it started, and scaling the factors would change "
           "that too"),
        helps=(N_("set max_norm = \"off\", or initialisation = \"kaiming\""),),
        source="Meng et al. 2024, PiSSA, section 3",
    ),
    "SF512": Words(
        N_("{rows} rows of the frozen weights are zero, in {layers} layers, most of them in "
           "{path}: DoRA scales what a row is, so that these cannot learn"),
        notes=(N_("they stay as they are; nothing else is disturbed."),),
        helps=(N_("take tuning.kind = \"lora\" if they are to learn"),),
        source="PEFT issue 2049",
    ),
}  # fmt: skip
