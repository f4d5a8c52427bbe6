"""The words of the findings about optimizers of libraries; `wording.py` says how they are used."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.language import N_


@dataclass(frozen=True)
class Words:
    """Templates; names in braces are keys of a finding's `values`.

    Attributes:
        sentence: What is wrong.
        notes: Context.
        helps: What to change.
        cause: What the key in question does, for the line below it.
        source: Who found out; the same in every language.
    """

    sentence: str
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()
    cause: str = ""
    source: str = ""


OPTIMIZER_WORDS: dict[str, Words] = {
    "SF111": Words(
        N_("the optimizer {kind} needs the package {package}, which is not installed"),
        helps=(N_("install it: pip install \"surefoot[{extra}]\""),),
    ),
    "SF112": Words(
        N_("pytorch-optimizer has no optimizer `{name}`"),
        helps=(N_("{near_hint}it has: {known}"),),
    ),
    "SF113": Words(
        N_("{name} cannot be used here: it needs {needs}"),
        helps=(N_("choose another optimizer; docs/optimizers says which"),),
    ),
    "SF114": Words(
        N_("the optimizer {name} takes no argument `{key}`"),
        helps=(N_("{near_hint}it takes: {known}"),),
    ),
    "SF115": Words(
        N_("the argument `{key}` of the optimizer {name} cannot be {given}"),
        helps=(N_("it should be: {expected}"),),
    ),
    "SF116": Words(
        N_("the optimizer {name} needs its argument `{key}`"),
        helps=(N_("add it to optimizer.arguments; it should be: {expected}"),),
    ),
    "SF117": Words(
        N_("the optimizer {name} refuses its arguments: {reason}"),
        helps=(N_("correct optimizer.arguments"),),
    ),
    "SF118": Words(
        N_("this optimizer finds its own learning rate, and lr = {lr:g} multiplies it"),
        notes=(N_("with so small a factor nothing is learned."),),
        helps=(N_("set optimizer.lr = 1.0"),),
        source="Prodigy's README; diffusers issue 5508",
    ),
    "SF119": Words(
        N_("the learning rate that this optimizer finds only grows, and a constant schedule never "
           "takes it back"),
        helps=(N_("set schedule.kind = \"cosine\""),),
        source="prodigy-plus-schedule-free's README; diffusion-pipe issue 201",
    ),
    "SF120": Words(
        N_("clip_grad_norm = {clip:g} shrinks the gradients by which {kind} finds its learning "
           "rate"),
        helps=(N_("set clip_grad_norm = \"off\""),),
        source="prodigy-plus-schedule-free's README",
    ),
    "SF121": Words(
        N_("gradients are clipped twice: by clip_grad_norm = {clip:g} and by {kind} itself"),
        helps=(N_("set clip_grad_norm = \"off\""),),
    ),
    "SF122": Words(
        N_("the warm-up of {warmup} steps makes this optimizer take its learning rate for too "
           "small"),
        notes=(N_("the rate that it finds while the schedule holds it back is too large after."),),
        helps=(N_("remove the warm-up; prodigy can keep it with safeguard_warmup = true"),),
        source="Prodigy's README",
    ),
    "SF123": Words(
        N_("this optimizer averages the weights in place of a schedule, and schedule.kind = "
           "\"{schedule}\" would lower the learning rate as well"),
        helps=(N_("set schedule.kind = \"constant\", or leave the section out"),),
        source="schedule_free's README",
    ),
    "SF124": Words(
        N_("this optimizer already shows an average of the weights; ema = {ema:g} would average "
           "those that it does not show"),
        helps=(N_("set train.ema = \"off\""),),
    ),
    "SF125": Words(
        N_("a learning rate of {lr:.1e} is low without a schedule: AdamW with one takes "
           "{usual:.0e}, and 1 to 10 times as much is customary here"),
        helps=(N_("raise optimizer.lr, or set it to \"auto\""),),
        source="schedule_free's README",
    ),
    "SF126": Words(
        N_("DAdaptAdaGrad was seen to stay at its first learning rate on adapters"),
        helps=(N_("take prodigy or d_adaptation"),),
        source="facebookresearch/dadaptation issues 24 and 29",
    ),
    "SF127": Words(
        N_("tensors of fewer than {size} numbers keep their memory in 32 bits; here that is most "
           "of: {kinds}"),
        source="bitsandbytes' documentation of min_8bit_size",
    ),
    "SF128": Words(
        N_("an interrupted run with {name} goes on, but does not end as an uninterrupted one"),
        notes=(N_("it draws random numbers of its own, or remembers what no checkpoint holds."),),
        helps=(N_("take another optimizer if both have to be the same"),),
    ),
}  # fmt: skip

NEEDS = (
    N_("a closure"),
    N_("objects that no checkpoint can hold"),
    N_("matrices only"),
    N_("second derivatives"),
    N_("several processes"),
    N_("the attention's logits"),
    N_("the factors of a LoRA in pairs"),
    N_("the whole model"),
)
"""What a class can need, as `optim/facts.py` says it."""
