"""The words of the findings about the result's formats; `wording.py` says how they are used."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

FORMAT_WORDS: dict[str, Words] = {
    "SF180": Words(
        N_("the format {format} holds LoRA and DoRA only"),
        helps=(N_('set save.formats = "auto", or name formats that can hold it'),),
    ),
    "SF181": Words(
        N_(
            "the format {format} holds no DoRA of the input axis: PEFT has one magnitude for each "
            "output"
        ),
        helps=(N_('set save.formats = "auto" or ["comfyui"], or train the output axis'),),
    ),
    "SF182": Words(
        N_(
            "ComfyUI divides by the norm of W where DoRA of the output axis divides by that of W "
            "and its update, so {format} would be drawn wrongly"
        ),
        helps=(
            N_("write comfyui-compat, whose magnitudes make up for it, or train the input axis"),
        ),
        source="ComfyUI pull request 15458",
    ),
    "SF183": Words(
        N_(
            "ComfyUI and Forge draw DoRA of the output axis wrongly from {formats}; LyCORIS and "
            "OneTrainer read it rightly"
        ),
        helps=(N_("for ComfyUI and Forge write comfyui-compat, or train the input axis"),),
        source="ComfyUI pull request 15458",
    ),
}
