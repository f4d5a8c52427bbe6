"""The words of the findings about finished adapters; `wording.py` says how they are used."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

FILE_WORDS: dict[str, Words] = {
    "SF070": Words(
        N_("{file} is no adapter that can be read: {reason}"),
        helps=(N_("give a LoRA, DoRA, LoHa or LoKr as .safetensors"),),
    ),
    "SF071": Words(
        N_("{file} is there already"),
        helps=(N_("give another name, or replace it with `--force`"),),
    ),
    "SF072": Words(
        N_("{file} cannot be written: {reason}"),
        helps=(N_("choose another folder, or make room; nothing was written"),),
    ),
    "SF073": Words(
        N_("the result cannot replace {file}, from which it is made"),
        helps=(N_("give another path after `--out`"),),
    ),
    "SF074": Words(
        N_("there is no model at {given}, and none of that name was downloaded"),
        helps=(N_("give a diffusers folder, a .safetensors checkpoint, the name of a downloaded "
                  "model, or `builtin`"),),
    ),
    "SF075": Words(
        N_("the model's file {file} cannot be used: {reason}"),
        helps=(N_("give a diffusers folder or a whole checkpoint as .safetensors"),),
    ),
    "SF076": Words(
        N_("{count} of the {total} layers of {file} are not in {base}: {names}"),
        helps=(N_("give the model that the adapter was made for"),),
    ),
    "SF077": Words(
        N_("{count} of the {total} layers of {file} do not fit {base}: {layer} is {found} in the "
           "adapter and {wanted} in the model"),
        helps=(N_("give the model that the adapter was made for"),),
    ),
    "SF078": Words(N_("`{option}` cannot be {given}"), helps=(N_("it should be: {expected}"),)),
    "SF079": Words(
        N_("the format {format} needs the base model: its magnitudes are worked out from the "
           "weights"),
        helps=(N_("add `--base` and the model"),),
    ),
    "SF080": Words(
        N_("the format {format} cannot hold the result: {reason}"),
        helps=(N_("choose another format after `--to`"),),
    ),
    "SF081": Words(
        N_("{file} holds numbers that are not finite, in {name}"),
        helps=(N_("it is broken beyond repair; take an earlier checkpoint, or train it again"),),
    ),
    "SF082": Words(
        N_("no layer of {tuned} differs from {base}"),
        helps=(N_("give two models of which one was made from the other, or other `--targets`"),),
    ),
    "SF083": Words(
        N_("the target pattern `{pattern}` matches no layer of {base}"),
        helps=(N_("correct it or take a preset: attention, attention+feed_forward, linear, all"),),
    ),
    "SF084": Words(
        N_("{count} layers of {file} are {kind}, which has no factors whose rank could be cut"),
        helps=(N_("merge it into its base model and extract a LoRA of the rank that you want"),),
    ),
    "SF085": Words(
        N_("{count} of {total} layers of {base} are not in {tuned} or have another shape there, "
           "{example} among them"),
        helps=(N_("give two models of which one was made from the other"),),
    ),
    "SF086": Words(
        N_("{name} holds {largest:.3g}, and {dtype} ends at {most:.3g}"),
        helps=(N_("choose another `--dtype`; nothing was written"),),
    ),
    "SF087": Words(
        N_("{file} is a folder without model_index.json and is not replaced, even with `--force`"),
        helps=(N_("give another path after `--out`"),),
    ),
    "SF088": Words(
        N_("the magnitudes of {file} are bent for ComfyUI and mean nothing without their base "
           "model"),
        helps=(N_("convert it first: surefoot convert FILE `--to` kohya `--base` MODEL"),),
    ),
    "SF089": Words(
        N_("names in the format {format} depend on how a UNet numbers its blocks, and {file} is "
           "not of the usual one"),
        helps=(N_("add `--base` and the model"),),
    ),
    "SF096": Words(
        N_("{name} would hold numbers that are not finite"),
        helps=(N_("give smaller weights after FILE=, and see with `surefoot inspect` whether the "
                  "adapters are whole; nothing was written"),),
    ),
}  # fmt: skip
"""What the verbs on adapters cannot read, write or do."""

VERDICT_WORDS: dict[str, Words] = {
    "SF601": Words(
        N_("{count} of {total} layers hold numbers that are not finite, {example} among them"),
        notes=(N_("pictures will be black or noise."),),
        helps=(N_("take an earlier checkpoint; train again with a lower learning rate or in "
                  "fp32"),),
    ),
    "SF602": Words(
        N_("it does nothing: every update of the {total} layers is below {limit:.0e} of its "
           "weight"),
        helps=(N_("nothing was learned; `surefoot check` says whether optimizer and method fit"),),
    ),
    "SF603": Words(
        N_("{count} of {total} layers have exploded: their updates are larger than {limit:g} times "
           "their weights, that of {example} {ratio:.3g} times"),
        notes=(N_("trained updates are some percent of the weights: 0.06 to 0.11 in the paper of "
                  "LoRA, table 7."),),
        helps=(N_("take an earlier checkpoint, or train again with a lower learning rate"),),
    ),
    "SF604": Words(
        N_("{count} of the {total} layers in the {part} do nothing, {example} among them"),
        helps=(N_("nothing to do where the output of these layers is not used, as that of the last "
                  "of a text encoder may be; otherwise look at the targets"),),
    ),
    "SF605": Words(
        N_("none of the {total} layers in the {part} does anything: it was never trained"),
        helps=(N_("leave it out, or look at its learning rate"),),
    ),
    "SF606": Words(
        N_("the magnitudes were never trained: in all {total} layers they are the norms of the "
           "weights"),
        notes=(N_("the rows keep their lengths, so that it is less than a DoRA and not a LoRA "
                  "either."),),
        helps=(N_("look whether the optimizer got the magnitudes, and at their precision: in bf16 "
                  "steps below 4e-3 are lost"),),
    ),
    "SF607": Words(
        N_("whether the {total} magnitudes were trained cannot be told without the base model"),
        helps=(N_("add `--base` and the model"),),
    ),
    "SF608": Words(
        N_("only the magnitudes can have been trained: the updates of the directions are below "
           "{limit:.0e} of the weights in all {total} layers"),
        notes=(N_("it happens where an optimizer scales its steps by the tensor's own size, as "
                  "Adafactor does: lora_up starts at 0."),),
        helps=(N_("train again; `surefoot check` says whether optimizer and method fit"),),
    ),
    "SF609": Words(
        N_("the base model {base} that the file names is here but has not its layers, and was left "
           "aside"),
        helps=(N_("add `--base` and the right model"),),
    ),
    "SF610": Words(
        N_("the alpha of {count} of {total} layers stands in the metadata alone, that of {example} "
           "among them"),
        notes=(N_("programs that read tensors only, such as ComfyUI, take the rank for it: there "
                  "the right strength is {ratio:.3g}, not 1."),),
        helps=(N_("`surefoot convert` writes it where the other program looks for it"),),
    ),
    "SF611": Words(
        N_("{count} numbers ({percent:.2g} %) are too small for {dtype} and became 0"),
        helps=(N_("nothing to do if they are few; bf16 keeps small numbers that fp16 loses"),),
    ),
    "SF612": Words(
        N_("{count} tensors differ that the adapter does not hold, {example} among them"),
        notes=(N_("an adapter holds the weights of linear layers and convolutions; biases, norms "
                  "and what `--targets` leaves out are lost."),),
        helps=(N_("`--targets all` takes every layer that can carry an adapter"),),
    ),
    "SF613": Words(
        N_("files with weights as they were before are left out: {names}"),
    ),
    "SF614": Words(
        N_("the order of the adapters matters, as {file} has magnitudes: it scales what the "
           "adapters before it have made"),
    ),
    "SF615": Words(
        N_("the magnitudes are kept: rows keep their lengths, and only directions lose what is cut "
           "off"),
    ),
    "SF616": Words(
        N_("{count} of {total} layers have no alpha, which the format {format} stores; the rank is "
           "taken for it"),
        helps=(N_("nothing to do if alpha was the rank in training; otherwise use it at a strength "
                  "of `alpha / rank`"),),
    ),
    "SF617": Words(
        N_("whether the magnitudes were trained cannot be told: in {count} of {total} layers they "
           "are off the norms of the weights by no more than roundings of the two files may be"),
        helps=(N_("give the model in fp32 after `--base`, or the adapter as it was in training"),),
    ),
    "SF619": Words(
        N_("{file} also holds {count} trained words of OneTrainer, {example} among them, which are "
           "neither read nor carried over"),
        helps=(N_("keep the file for programs that read them; the adapter alone may not know the "
                  "words of its captions"),),
    ),
    "SF618": Words(
        N_("alpha is not the same in all layers, {least:g} to {most:g}, and diffusers takes one "
           "for all from the format {format}"),
        helps=(N_("for diffusers convert it to the format diffusers"),),
    ),
}  # fmt: skip
"""What is found in an adapter, and what a verb has cost."""
