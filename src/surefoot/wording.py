"""The words of every finding, in English; gettext has the others. Keyed by code.

A sentence says what is wrong and where; a note gives context; only help says what to change.
"""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.adapter_words import FILE_WORDS, VERDICT_WORDS
from surefoot.finding import Finding, Level, Value
from surefoot.format_words import FORMAT_WORDS
from surefoot.language import N_, _
from surefoot.optimizer_words import OPTIMIZER_WORDS, Words
from surefoot.rule_words import RULE_WORDS
from surefoot.run_words import RUN_WORDS
from surefoot.trainer_words import TRAINER_FILE_WORDS, TRAINER_WORDS
from surefoot.tuning_words import TUNING_WORDS
from surefoot.watch_words import WATCH_WORDS

_WORDS: dict[str, Words] = {
    "SF001": Words(
        N_("{file} cannot be read: {reason}"),
        helps=(N_("give the path of a run.toml; `surefoot demo --write` makes one"),),
    ),
    "SF002": Words(
        N_("{file} is not valid TOML: {reason}"),
        helps=(N_('mend that line; text needs quotes ("..."), true and false are lower-case'),),
    ),
    "SF003": Words(
        N_("unknown key `{key}`"),
        helps=(N_("{near_hint}known here: {known}"),),
    ),
    "SF004": Words(N_("`{key}` cannot be {given}"), helps=(N_("it should be: {expected}"),)),
    "SF005": Words(
        N_("the override `{override}` is not `key=value`"),
        helps=(N_("write it like `optimizer.lr=3e-5`, with the key as in run.toml"),),
    ),
    "SF006": Words(
        N_("`{key}` is missing"),
        helps=(N_("add it; `surefoot schema` describes every key"),),
    ),
    "SF020": Words(
        N_("there is no model at {given}"),
        helps=(N_("give a diffusers folder, a .safetensors file, or `builtin`; relative paths "
                  "start at the folder of run.toml"),),
    ),
    "SF021": Words(
        N_("the model {given} is not on this machine"),
        helps=(N_("download it with `hf download {given}`, or give a folder"),),
    ),
    "SF022": Words(
        N_("the model folder {folder} lacks {missing}"),
        helps=(N_("download the model again, or point model.path at the folder that holds "
                  "model_index.json and these parts as .safetensors"),),
    ),
    "SF023": Words(
        N_("the model's file {file} cannot be used: {reason}"),
        helps=(N_("download it again, or choose another model"),),
    ),
    "SF024": Words(
        N_("{file} is not a .safetensors file; pickled checkpoints can run code and are not read"),
        helps=(N_("convert it to safetensors, or download that version of it"),),
    ),
    "SF025": Words(
        N_("the checkpoint {file} holds no {missing}"),
        helps=(
            N_(
                "give a whole Stable Diffusion 1.x checkpoint, not a LoRA or a part; "
                "2.x as a diffusers folder"
            ),
        ),
    ),
    "SF026": Words(
        N_("the target pattern `{pattern}` matches no layer of the {part}"),
        helps=(N_("correct it or take a preset; layers there end in: {known}"),),
    ),
    "SF027": Words(
        N_("a resolution of {resolution} does not fit: the model needs a multiple of {multiple}"),
        helps=(N_("the nearest are {below} and {above}"),),
    ),
    "SF030": Words(
        N_("the folder {file} does not exist"),
        helps=(N_("correct the path; relative paths start at the folder of run.toml"),),
    ),
    "SF031": Words(
        N_("{file} is a file, not a folder of pictures"), helps=(N_("give its folder"),)
    ),
    "SF032": Words(
        N_("the folder {file} cannot be read: {detail}"), helps=(N_("change its permissions"),)
    ),
    "SF033": Words(
        N_("the folder {file} holds no pictures"),
        helps=(N_("put .png, .jpg, .webp, .bmp or .tiff files there"),),
    ),
    "SF034": Words(
        N_("the picture {file} is empty (0 bytes)"), helps=(N_("replace or remove it"),)
    ),
    "SF035": Words(
        N_("the picture {file} is cut short"), helps=(N_("replace or remove it"),)
    ),
    "SF036": Words(
        N_("{file} is not a picture that can be read: {detail}"),
        helps=(N_("replace or remove it"),),
    ),
    "SF037": Words(
        N_("the picture {file} has no caption"),
        helps=(N_("write one into a .txt of the same name, or set captions.missing = \"empty\""),),
    ),
    "SF038": Words(
        N_("the caption {file} is not UTF-8 text: {detail}"),
        helps=(N_("save it as UTF-8"),),
    ),
    "SF039": Words(
        N_("the caption {file} cannot be read: {detail}"), helps=(N_("change its permissions"),)
    ),
    "SF040": Words(
        N_("the run folder {folder} cannot be made: {blocking} is a file"),
        helps=(N_("change `folder` or `name`"),),
    ),
    "SF041": Words(
        N_("the run folder {folder} cannot be written: {reason} ({blocking})"),
        helps=(N_("change `folder`, or the permissions"),),
    ),
    "SF042": Words(
        N_("the run needs {needed_mb:.0f} MB of disk and {free_mb:.0f} MB are free"),
        helps=(N_("free some, lower save.keep, or change `folder` to another disk"),),
    ),
    "SF043": Words(
        N_("the checkpoint {file} belongs to another run; what differs: {differences}"),
        helps=(N_("give this run another `name`, or set these back; nothing was changed"),),
    ),
    "SF044": Words(
        N_("the checkpoint {file} is damaged ({reason}) and was passed over"),
        helps=(N_("nothing to do: the one before it is used, or the run begins anew"),),
    ),
    "SF045": Words(
        N_("the device {device} is not there: {reason}"),
        helps=(N_("set train.device to \"cpu\", or install the torch build for it"),),
    ),
    "SF046": Words(
        N_("the run {folder} is being trained by another process"),
        helps=(N_("wait for it, or stop it first"),),
    ),
    "SF047": Words(
        N_("{folder} is not the folder of a run that can be drawn from: {reason}"),
        helps=(N_("give a run's folder, such as runs/cat"),),
    ),
    "SF048": Words(
        N_("there is nothing to draw: the run has no preview.prompts and none were given"),
        helps=(N_('give prompts, such as: surefoot sample runs/cat "a cat on a roof"'),),
    ),
    "SF053": Words(
        N_("the checkpoint {file} is at step {step}, beyond the {steps} steps of this run"),
        helps=(N_("set train.steps to at least {step}, or give this run another `name`"),),
    ),
    "SF061": Words(
        N_("there is no finding {code} that could be waived"),
        helps=(N_("correct the code; `surefoot check` prints it in front of each finding"),),
    ),
    "SF062": Words(
        N_("the finding {code} cannot be waived: without what it asks for no run can go on"),
        helps=(N_("mend what it is about, and remove the waiver"),),
    ),
    **FILE_WORDS,
    **TRAINER_FILE_WORDS,
    "SF101": Words(
        N_("scale_parameter = true leaves a fresh {tuning} almost unable to learn"),
        cause=N_("multiplies each step by the tensor's own RMS; lora_up starts at 0, so it gets "
                 "the floor, {eps2:g}"),
        source="OneTrainer issue 455; Shazeer & Stern 2018, Adafactor, section 8",
        notes=(
            N_("lora_up takes steps of {up_first:.1e} and could change its layers by "
               "{up_change:.2g} % in {steps} steps if every step went the same way. {outcome}"),
            N_("a higher learning rate does not help: by the time lora_up moves by 1e-4 a step, "
               "{other} moves by {other_percent:.2g} % of itself a step, which ends in noise."),
        ),
        helps=(
            N_("scale by the weight instead: one relative learning rate then serves full "
               "fine-tuning, LoRA and DoRA; lora_up would take steps of {up_mended:.1e} "
               "({up_times:.0f} times as large)"),
            N_("for a trainer without it: scale_parameter = false, relative_step = false, learning "
               "rate 1e-4 to 1e-3. Full fine-tuning may keep true."),
        ),
    ),
    "SF102": Words(
        N_("relative_step = true sets the learning rate itself; {ignored} would be ignored"),
        notes=(N_("with it the rate is {first:.1e} at first and {last:.1e} at the end."),),
        helps=(N_("remove one of the two; for a rate of your own set relative_step = false"),),
        source="transformers issue 11612",
    ),
    "SF103": Words(
        N_("warmup_init = true does nothing without relative_step"),
        helps=(N_("remove it and use schedule.warmup_steps"),),
        source="transformers, optimization.py; sd-scripts turns relative_step on instead",
    ),
    "SF104": Words(
        N_("relative_step's fall with 1/sqrt(t) begins after 10,000 steps; this run of {steps} has "
           "{shape}"),
        source="Shazeer & Stern 2018, Adafactor, section 8",
    ),
    "SF105": Words(
        N_("gradients are clipped twice: by clip_grad_norm = {clip:g} and by Adafactor's "
           "clip_threshold"),
        notes=(N_("Adafactor divides by the gradients' own size, so the first clipping changes "
                  "little but the balance of its averages."),),
        helps=(N_("set clip_grad_norm = \"off\""),),
        source="transformers' documentation of Adafactor",
    ),
    "SF106": Words(
        N_("the warm-up of {warmup} steps is not over when the run ends at {steps}"),
        helps=(N_("shorten the warm-up, to a tenth of the run for example"),),
        source="diffusers issue 4387; kohya_ss issue 735",
    ),
    "SF107": Words(
        N_("`alpha / rank` is {scale:.3g}: the adapter's output is multiplied by that"),
        notes=(N_("with an absolute learning rate this is like training at {scale:.3g} times the "
                  "rate."),),
        helps=(N_("set alpha to the rank, or raise the learning rate as much"),),
        source="Hu et al. 2021, LoRA, section 4.1; sd-scripts issue 98",
    ),
    "SF108": Words(
        N_("the moving average (ema = {ema:g}) looks back {length:.0f} steps, the run has {steps}: "
           "what is exported would lag far behind"),
        helps=(N_("set train.ema to at most {mended:.4g}, or \"off\""),),
        source="OneTrainer issues 543 and 889",
    ),
    "SF109": Words(
        N_("a learning rate of {lr:.1e} is relative here: {percent:.2g} % of each tensor a step"),
        notes=(N_("1e-2 is customary; above 3e-2 runs were seen to end in noise."),),
        helps=(N_("set optimizer.lr = 1e-2, or \"auto\""),),
    ),
    "SF110": Words(
        N_("scale_parameter = false with relative_step = true steps by {rate:.1e} per element "
           "everywhere, {times:.0f} times what is usual for {tuning}"),
        notes=(N_("relative_step's rate is meant to be multiplied by the size of each tensor. On "
                  "the built-in model, 60 steps of it made the loss of full fine-tuning six times "
                  "that of the base model, and that of a DoRA of rank 64 rise to four times on "
                  "the way; adapters of rank 16 stood it, one of them with half of its gain "
                  "lost."),),
        helps=(N_("set relative_step = false and a learning rate near {lr:.0e}, or keep it with "
                  "scale_parameter = \"weight\""),),
        source="Shazeer & Stern 2018, Adafactor, section 8",
    ),
    **OPTIMIZER_WORDS,
    "SF129": Words(
        N_("weights in bf16 are rounded to the nearest here, and {percent:.0f} % of the steps of "
           "`{kind}` are lost: their mean is {step:.1e}, and a number of {rms:.2g} changes from "
           "{smallest:.1e} on"),
        notes=(N_("a weight whose steps are lost stays where it is, however many there are."),),
        helps=(N_("take adafactor with rounding = \"stochastic\", which keeps such steps on "
                  "average, or set tuning.weights = \"fp32\""),),
        source="Zamirai et al. 2020, Revisiting BFloat16 Training, arXiv 2010.06192",
    ),
    "SF130": Words(
        N_("weights in bf16 cannot give a forward pass in {precision}"),
        helps=(N_("set train.precision = \"bf16\", or tuning.weights = \"fp32\""),),
    ),
    "SF131": Words(
        N_("the warm-up is given twice: warmup_steps = {steps} and warmup_fraction = {fraction:g}"),
        helps=(N_("remove one of the two"),),
    ),
    "SF132": Words(
        N_("{cycles} cycles do not fit into the {steps} steps after the warm-up: some would have "
           "no step"),
        helps=(N_("lower schedule.cycles or schedule.cycle_multiplier"),),
    ),
    "SF133": Words(
        N_("gradients cannot be clipped by clip_grad_norm = {clip:g} with step_in_backward: when "
           "the norm of all is known, every tensor has moved and its gradient is gone"),
        helps=(N_("set clip_grad_norm = \"off\"; adafactor clips the update of each tensor by "
                  "clip_threshold"),),
        source="sd-scripts pull request 1259",
    ),
    "SF134": Words(
        N_("step_in_backward saves no memory with gradient_accumulation = {parts}: gradients are "
           "kept until the last pass, {megabytes:.0f} MB"),
        source="sd-scripts pull request 1259",
    ),
    "SF135": Words(
        N_("step_in_backward saves little here: all gradients of the adapters take "
           "{megabytes:.2g} MB"),
    ),
    "SF136": Words(
        N_("step_in_backward cannot be used in fp16: the gradients carry the factor on the loss "
           "until all of them are there, and one that is too large must undo the whole step"),
        helps=(N_("set train.precision = \"bf16\", or step_in_backward = false"),),
        source="Micikevicius et al. 2018, Mixed Precision Training, section 3.2",
    ),
    "SF137": Words(
        N_("train.ema_device = \"cpu\" has no effect: there is no moving average"),
        helps=(N_("set train.ema, to 0.999 for example, or remove it"),),
    ),
    "SF138": Words(
        N_("base_weights = {kind} needs the package {package}, which is not installed"),
        helps=(N_("install it: pip install \"surefoot[{package}]\""),),
    ),
    "SF139": Words(
        N_("the adapter is trained beside weights that are rounded to {kind}: beside others its "
           "result is off by that rounding. {effect}"),
        helps=(N_("use the result with weights that are rounded alike, or train without "
                  "base_weights where the memory allows it"),),
        source="Dettmers et al. 2023, QLoRA; SimpleTuner's quick start of FLUX; PEFT issue 1518",
    ),
    **TUNING_WORDS,
    **FORMAT_WORDS,
    "SF401": Words(
        N_("the waiver of {code} has nothing to waive here"),
        helps=(N_("remove it, so that it does not hide the finding when it comes back"),),
    ),
    **WATCH_WORDS,
    **VERDICT_WORDS,
    **TRAINER_WORDS,
}  # fmt: skip

WORDS: dict[str, Words] = dict(sorted({**_WORDS, **RULE_WORDS, **RUN_WORDS}.items()))
"""The words of every code, in order."""

_LEVEL_WORDS: dict[Level, str] = {
    "error": N_("error"),
    "warning": N_("warning"),
    "note": N_("note"),
}


# Only these values can be words of ours; all others are names, such as that of a file "error".
_WORDS_AS_VALUES = frozenset(
    {"detail", "effect", "first", "needs", "outcome", "reason", "second", "shape"}
)


@dataclass(frozen=True)
class Said:
    """A finding in words, in the language chosen."""

    level: str
    sentence: str
    cause: str
    notes: tuple[str, ...]
    helps: tuple[str, ...]


def say(finding: Finding) -> Said:
    """The finding in words."""
    words = WORDS[finding.code]
    values = {
        key: _(value) if key in _WORDS_AS_VALUES and isinstance(value, str) else value
        for key, value in finding.values.items()
    }
    values |= _derived(finding.values)
    return Said(
        level=_(_LEVEL_WORDS[finding.level]),
        sentence=_(words.sentence).format(**values),
        cause=_(words.cause).format(**values),
        notes=tuple(_(note).format(**values) for note in words.notes),
        helps=tuple(_(text).format(**values) for text in words.helps),
    )


def _derived(values: dict[str, Value]) -> dict[str, Value]:
    """Parts of sentences that are there or not."""
    near, cause = values.get("near", ""), values.get("cause", "")
    expected = " / ".join(_(part) for part in str(values.get("expected", "")).split(" / "))
    return {
        "expected": expected,
        "near_hint": _("did you mean `{near}`? ").format(near=near) if near else "",
        "cause_hint": _("do what {cause} of the check says; otherwise: ").format(cause=cause)
        if cause
        else "",
    }


# Words that findings carry as values.
STALLS = N_("It stays practically zero: expect pictures close to the base model.")
RUNS_AWAY = N_("Once its RMS passes the floor its steps grow with it: first nothing, then noise.")
CONSTANT_RATE = N_("a constant rate of 1e-2")
RAMP_RATE = N_("a ramp of 1e-6 a step")
TRAINED = N_("full fine-tuning trains all of them")
ROUNDED = N_("quantised weights cannot be moved about")
NORMS = N_("DoRA's magnitudes begin as the norms of the rounded weights.")
UPDATES = N_("The update makes up for a part of it.")

# What the operating system gives as a reason; it speaks English whatever the locale.
SYSTEM_REASONS = (
    N_("File name too long"),
    N_("Input/output error"),
    N_("Is a directory"),
    N_("No space left on device"),
    N_("No such file or directory"),
    N_("Not a directory"),
    N_("Permission denied"),
    N_("Read-only file system"),
)
