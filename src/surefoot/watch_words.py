"""The words of what is found while training, most of it by the watch; as in `wording.py`."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

WATCH_WORDS: dict[str, Words] = {
    "SF501": Words(
        N_("{count} trained tensors have not moved after {steps} steps, {example} among them"),
        notes=(N_("nothing that they could learn will be learned."),),
        helps=(N_("stop, and look at the learning rate and the targets; report it if both are "
                  "right"),),
    ),
    "SF502": Words(
        N_("stopped at step {step}: the gradients of {count} steps in a row were not finite, in "
           "{example} among others; none of them reached the weights"),
        helps=(N_("start again under another `name` with a lower learning rate, or with "
                  "train.precision = \"fp32\""),),
    ),
    "SF511": Words(
        N_("the checkpoint holds the memory of {saved}, this run has {present}: the optimizer's "
           "memory begins empty"),
        notes=(N_("the weights go on from the checkpoint; the first steps may be rougher than "
                  "usual."),),
        helps=(N_("nothing to do if you meant it; otherwise stop it and set optimizer.kind back"),),
    ),
    "SF519": Words(
        N_("learning nothing: at this pace `{kind}` changes its layers by {percent:.2g} % in the "
           "whole run"),
        notes=(N_("measured on the steps taken, as if all went the same way; a run that learns "
                  "moves by more than 1 % with adapters, 0.1 % with whole weights."),),
        helps=(N_("{cause_hint}raise optimizer.lr, {times:.0f} times for a start"),),
        source="OneTrainer issue 455; sd-scripts issue 98",
    ),
    "SF520": Words(
        N_("lora_up x lora_down is learning nothing: at this pace lora_up changes its layers by "
           "{percent:.2g} % in the whole run, `{other}` by {other_percent:.2g} %"),
        notes=(N_("whatever the loss gains comes of the length of the weights' rows alone."),),
        helps=(N_("{cause_hint}scale steps by the weight (scale_parameter = \"weight\"), or give "
                  "all tensors one absolute rate (scale_parameter = false, relative_step = "
                  "false)"),),
        source="OneTrainer issue 455; torchtune issue 2250",
    ),
    "SF521": Words(
        N_("learning nothing: after {step} steps the validation loss is {now:.4f}, the base "
           "model's is {base:.4f}"),
        helps=(N_("{cause_hint}raise optimizer.lr, or look whether the captions say what the "
                  "pictures show"),),
    ),
    "SF522": Words(
        N_("overfitting: the validation loss was {best:.4f} after {step} steps and is {now:.4f} "
           "now; the base model's is {base:.4f}"),
        helps=(N_("{cause_hint}end at {step} steps (`best/` keeps that checkpoint), lower "
                  "optimizer.lr, or train on more pictures"),),
        source="sd-scripts issue 193; OneTrainer issue 1408",
    ),
    "SF523": Words(
        N_("diverging: the training loss is {loss:.3g}, it was {level:.3g}; `{fastest}` changes by "
           "{percent:.2g} % a step"),
        helps=(N_("{cause_hint}lower optimizer.lr to a third and begin under another `name`"),),
    ),
    "SF524": Words(
        N_("previews turn to noise: roughness {roughness:.2f} ({before:.2f} before training), "
           "contrast {contrast:.0f} ({contrast_before:.0f})"),
        notes=(N_("roughness compares neighbours of a latent's width: above 0.5 for noise, "
                  "near 0 for a smooth picture."),),
        helps=(N_("{cause_hint}lower optimizer.lr to a third and begin under another `name`"),),
        source="OneTrainer issue 455; kohya_ss issue 3439",
    ),
    "SF525": Words(
        N_("diverging: the norm of the gradients has come to {now:.3g}, it was {level:.3g} at the "
           "beginning"),
        notes=(N_("a median of several steps, before clipping."),),
        helps=(N_("{cause_hint}lower optimizer.lr to a third and begin under another `name`"),),
    ),
    "SF526": Words(
        N_("learning nothing: the norm of the gradients is {now:.2g}, it was {level:.2g} at the "
           "beginning"),
        notes=(N_("what is trained has hardly any influence on the loss any more."),),
        helps=(N_("{cause_hint}look at the last previews: if they are broken, lower optimizer.lr "
                  "and begin under another `name`; if not, look at the loss's weights and masks"),),
        source="cloneofsimo/lora issue 26; transformers issue 26221",
    ),
    "SF530": Words(
        N_("the loss is not finite after {step} steps"),
        helps=(N_("lower optimizer.lr, or set train.precision = \"fp32\""),),
    ),
    "SF531": Words(
        N_("`{kind}` moves by {measured:.1e} of itself a step, the sheet predicts {predicted:.1e}"),
        helps=(N_("look at the learning rate and the optimizer's options; report it if both are "
                  "right"),),
    ),
    "SF532": Words(
        N_("{count} trained tensors got no gradient in {steps} steps, {example} among them"),
        notes=(N_("no optimizer can move them; weight decay at most shrinks them."),),
        helps=(N_("look whether the model uses them at all, and whether something cuts them off: a "
                  "detach, or gradient checkpointing whose inputs need no gradient"),),
        source="transformers, `enable_input_require_grads`",
    ),
    "SF533": Words(
        N_("a step changes {percent:.0f} % of the numbers of `{kind}`, stored in {dtype}; those of "
           "the others are rounded away"),
        helps=(N_("take adafactor with rounding = \"stochastic\", or set tuning.weights = "
                  "\"fp32\""),),
        source="Zamirai et al. 2020, Revisiting BFloat16 Training, arXiv 2010.06192",
    ),
    "SF534": Words(
        N_("there is no learning rate to look for: {reason}"),
        helps=(N_("leave --find-lr out; the probe without it tells how far each tensor moves"),),
    ),
    "SF541": Words(
        N_("{count} trained tensors are not in the optimizer, {example} among them"),
        helps=(N_("build the optimizer after the adapters are attached and the weights loaded, and "
                  "give it every tensor with requires_grad"),),
        source="torchtune issue 2250; OneTrainer commit 50cf940d",
    ),
    "SF542": Words(
        N_("{count} tensors of the optimizer are not trained tensors of the model"),
        helps=(N_("build the optimizer anew: a tensor that was replaced since stays in it and "
                  "takes steps that nobody sees"),),
        source="OneTrainer commit 50cf940d",
    ),
    "SF543": Words(
        N_("lora_up begins at zero and takes steps of {step:.1e} with {optimizer}"),
        helps=(N_("set scale_parameter = False, relative_step = False and a rate of 1e-4 to 1e-3, "
                  "or take surefoot.Adafactor(surefoot.parameter_groups(model), lr=1e-2)"),),
        source="OneTrainer issue 455",
    ),
    "SF544": Words(
        N_("{percent:.0f} % of the numbers of `{kind}` are in bf16 and lose steps of {step:.1e}"),
        helps=(N_("keep what is trained in fp32, or take an optimizer with stochastic rounding"),),
        source="Zamirai et al. 2020, Revisiting BFloat16 Training, arXiv 2010.06192",
    ),
    "SF545": Words(
        N_("a step changes `magnitude` by {magnitude:.2g} % of itself, and lora_up its layers by "
           "{up:.2g} %: {times:.0f} times less"),
        notes=(N_("one learning rate for both is next to nothing for the one or too much for the "
                  "other."),),
        helps=(N_("give the magnitudes a parameter group with a learning rate of their own, or "
                  "take surefoot.Adafactor(surefoot.parameter_groups(model), lr=1e-2)"),),
        source="OneTrainer issue 455; torchtune issue 2250",
    ),
    "SF546": Words(
        N_("a learning rate of {lr:.1e} is far off for {optimizer}: a step changes `{kind}` by "
           "{percent:.2g} % (lora_up: its layers)"),
        notes=(N_("{effect} A rate is often carried over from another optimizer or method."),),
        helps=(N_("usual are 1e-4 for adapters and 1e-5 for whole weights with AdamW and its kin, "
                  "a fifth of it with Lion"),),
    ),
    "SF547": Words(
        N_("{optimizer} finds its learning rate itself: `lr` is a factor on it, and {lr:.1e} is "
           "far from the usual 1"),
        helps=(N_("set lr = 1.0"),),
        source="Mishchenko & Defazio 2023, Prodigy, arXiv 2306.06101",
    ),
    "SF548": Words(
        N_("diverging: the loss is {loss:.3g} now, it was {level:.3g} at the beginning"),
        helps=(N_("lower the learning rate to a third and begin anew"),),
    ),
    "SF549": Words(
        N_("the loss is not finite at step {step}"),
        helps=(N_("lower the learning rate, or compute in fp32 or bf16 instead of fp16"),),
    ),
}  # fmt: skip

SETS_ITSELF = N_("with relative_step = true Adafactor sets it itself")
FINDS_ITSELF = N_("this optimizer finds it itself, and its lr is a factor that stays at 1")
OF_PARTS = N_("the parts have learning rates of their own, which part_lr gives")
"""Why a run has no learning rate that could be looked for."""
