"""The words of the findings about other trainers' files; `wording.py` says how they are used."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

TRAINER_FILE_WORDS: dict[str, Words] = {
    "SF090": Words(
        N_("{file} cannot be read as {format}: {reason} (line {line})"),
        helps=(N_("mend that line, or give the file of another trainer"),),
    ),
    "SF091": Words(
        N_("{file} is neither a run.toml nor a file of a known trainer"),
        helps=(N_("known are: {trainers}; give the file that names optimizer and model, not that "
                  "of the data set"),),
    ),
    "SF092": Words(
        N_("{file} could be a file of several trainers: {trainers}"),
        helps=(N_("give a file of one of them, with all of its keys"),),
    ),
    "SF093": Words(
        N_("`{key}` cannot be {given}"),
        helps=(N_("it should be: {expected}"),),
    ),
    "SF095": Words(
        N_("{file} holds several commands: {scripts}"),
        helps=(N_("copy the one that is meant into a file of its own"),),
    ),
}  # fmt: skip

TRAINER_WORDS: dict[str, Words] = {
    "SF701": Words(
        N_("{trainer} has no key `{key}` and ignores it without a word"),
        helps=(N_("{near_hint}correct or remove it"),),
    ),
    "SF702": Words(
        N_("{trainer} does not know {given} for `{key}` and goes on with {used}"),
        helps=(N_("it knows: {known}"),),
        source="OneTrainer, modules/util/config/BaseConfig.py",
    ),
    "SF703": Words(
        N_("`{key}` is the text \"{given}\", and any text counts as true in {trainer}"),
        helps=(N_("write true or false without quotes"),),
        source="OneTrainer, modules/util/config/BaseConfig.py",
    ),
    "SF704": Words(
        N_("{trainer} reads this file in two ways, by its {first} and by its {second}: "
           "{differing}"),
        notes=(N_("the window takes the entry of optimizer_defaults for this optimizer, or its own "
                  "table; scripts/train.py takes `optimizer` as it stands."),),
        helps=(N_("write the same values in both places"),),
        source="OneTrainer, modules/util/optimizer_util.py, scripts/train.py",
    ),
    "SF705": Words(
        N_("`{key}` is null, which {trainer} takes for true, while a missing key means false"),
        helps=(N_("write false"),),
        source="OneTrainer, modules/util/create.py",
    ),
    "SF706": Words(
        N_("this schedule writes the scaled learning rate back as the learning rate, so that it "
           "is scaled again at each step"),
        notes=(N_("with scale_parameter and a tensor of RMS 0.02 the rate goes {lr:.1e}, "
                  "{second:.1e}, {third:.1e} and on: nothing is learned."),),
        helps=(N_("set `{key}` to `CONSTANT`"),),
        source="transformers, AdafactorSchedule, run with the trainer's settings",
    ),
    "SF707": Words(
        N_("the learning rate that {trainer} logs, {lr:.1e}, is not the one that is used"),
        notes=(N_("with relative_step Adafactor makes its own, at most 1e-2, and no log shows "
                  "it."),),
        helps=(N_("set relative_step to false to have the rate that is shown"),),
        source="transformers, Adafactor; run with LambdaLR",
    ),
    "SF708": Words(
        N_("with the step inside the backward pass {trainer} clips each tensor alone at {clip:g}, "
           "and not the norm of all"),
        notes=(N_("every tensor whose gradient is larger than that gets the same length of "
                  "gradient; Adafactor divides by it anyway."),),
        helps=(N_("turn the clipping off"),),
        source="OneTrainer, modules/trainer/GenericTrainer.py; sd-scripts, sdxl_train.py",
    ),
    "SF709": Words(
        N_("a run that is gone on with keeps the optimizer's settings of its backup: {trainer} "
           "takes at most the learning rate from this file"),
        notes=(N_("scale_parameter, relative_step, weight decay and the like stay as they were "
                  "saved, whatever the file says now."),),
        helps=(N_("begin anew from the weights after changing them"),),
        source="OneTrainer, modules/util/create.py; ai-toolkit, "
               "jobs/process/BaseSDTrainProcess.py; torch, Optimizer.load_state_dict",
    ),
    "SF710": Words(
        N_("{trainer} will stop with an error at `{key}`: {reason}"),
        helps=(N_("correct it before you start"),),
    ),
    "SF711": Words(
        N_("{trainer} replaces `{key}` = {given} by {used}: {reason}"),
        helps=(N_("write what you mean, so that the file says what is done"),),
    ),
    "SF712": Words(
        N_("with stochastic_rounding: false this trainer's Adafactor never writes a step back to "
           "weights in bf16: nothing is trained, and nothing says so"),
        helps=(N_("set `{key}` to `true`, or train in fp32"),),
        source="ai-toolkit, toolkit/optimizers/adafactor.py",
    ),
    "SF713": Words(
        N_("AdaFactor of pytorch_optimizer clips the wrong way round: it enlarges small updates "
           "and never makes large ones smaller"),
        notes=(N_("it also takes momentum (betas[0] = 0.9) and scales by each tensor's size "
                  "unless told otherwise."),),
        helps=(N_("take another optimizer, such as adamw_optimi"),),
        source="pytorch-optimizer, optimizer/adafactor.py",
    ),
    "SF714": Words(
        N_("`{given}` in `{key}` is for another network module: {used} ignores it, and a plain "
           "LoRA is trained"),
        helps=(N_("set network_module to lycoris.kohya, or remove it"),),
        source="sd-scripts, networks/lora.py",
    ),
    "SF715": Words(
        N_("{trainer} ignores `{key}` = {given} here: alpha is the rank"),
        helps=(N_("expect the learning rate to act as with alpha equal to the rank"),),
        source="ai-toolkit, toolkit/lora_special.py; diffusion-pipe, models/base.py",
    ),
    "SF716": Words(
        N_("`linear` of {trainer} goes up: from a third of the learning rate to all of it over "
           "the run"),
        helps=(N_("take constant or cosine; other trainers' linear goes down to 0"),),
        source="ai-toolkit, toolkit/scheduler.py; torch, LinearLR",
    ),
    "SF717": Words(
        N_("{trainer} takes `{key}` = {given} for half of the period of `{used}`, and not for a "
           "warm-up"),
        notes=(N_("with 0 it is 1000 steps: the rate falls to its end and rises again, many times "
                  "in a long run."),),
        helps=(N_("set it to the number of steps of the run, or take polynomial"),),
        source="SimpleTuner, helpers/training/custom_schedule.py",
    ),
    "SF718": Words(
        N_("{used} ignores its option {given}: {trainer} drops what the class does not take"),
        helps=(N_("remove it, or take an optimizer that has it"),),
        source="SimpleTuner, helpers/training/optimizer_param.py",
    ),
    "SF719": Words(
        N_("sdnq-adafactor scales each step by the length of the tensor, with a floor of 1e-3: a "
           "fresh lora_up stays at zero"),
        notes=(N_("the betas that {trainer} gives it stand where it expects an exponent of decay, "
                  "which made NaN of most weights in a copy of it."),),
        helps=(N_("take another optimizer, such as adamw_bf16"),),
        source="sdnq, SimpleTuner's optimizer table",
    ),
    "SF720": Words(
        N_("`{key}` is not among the arguments of {trainer} that are known here, and it refuses "
           "those that it does not know"),
        helps=(N_("{near_hint}correct or remove it"),),
    ),
    "SF722": Words(
        N_("surefoot has no counterpart for {given}: only what does not depend on it is judged"),
        helps=(N_("look at the rest yourself"),),
    ),
    "SF725": Words(
        N_("surefoot does not know the optimizer {given}: rules about it are left out"),
        helps=(N_("ask its own documentation what learning rate it wants"),),
    ),
    "SF726": Words(
        N_("how many steps the run will have cannot be told without its pictures: judged as if it "
           "were {steps}"),
        helps=(N_("check it where the pictures are"),),
    ),
}  # fmt: skip
