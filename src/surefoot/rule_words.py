"""The words of the findings about rates and about what is learned from; see `wording.py`."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

TOO_LOW = N_("In a run of usual length next to nothing is learned.")
TOO_HIGH = N_("Such steps were seen to end in noise.")
"""What a learning rate far from the customary one does."""

RULE_WORDS: dict[str, Words] = {
    "SF150": Words(
        N_("the optimizer AdaFactor of pytorch-optimizer takes {keys} = true unless told "
           "otherwise, which leaves a fresh {tuning} almost unable to learn"),
        notes=(N_("its steps are multiplied by the tensor's own RMS, and lora_up starts at 0."),),
        helps=(N_("set both to false in optimizer.arguments, or take kind = \"adafactor\""),),
        source="OneTrainer issue 455; pytorch-optimizer's signature of AdaFactor",
    ),
    "SF151": Words(
        N_("clip_threshold = {threshold:g} makes every step smaller than the learning rate says"),
        notes=(N_("the RMS of an update is about 1 by itself, so this is a second, hidden factor "
                  "on the rate."),),
        helps=(N_("set it to 1.0, and lower optimizer.lr instead"),),
        source="Shazeer & Stern 2018, Adafactor, section 6; sd-scripts warns of it",
    ),
    "SF152": Words(
        N_("weight_decay = {decay:g} takes {percent:.0f} % of every `{kind}` over the run"),
        notes=(N_("decay is multiplied by the learning rate at each step, and by Adafactor's scale "
                  "too."),),
        helps=(N_("lower weight_decay; 0 to 0.01 is customary"),),
        source="Loshchilov & Hutter 2019, AdamW; a preset of kohya_ss has 2",
    ),
    "SF153": Words(
        N_("restarts raise a learning rate that this optimizer has found for the weights as they "
           "were before"),
        helps=(N_("set schedule.kind = \"cosine\""),),
        source="Prodigy's README",
    ),
    "SF154": Words(
        N_("a learning rate of {lr:.1e} is far from what {tuning} takes with this optimizer, about "
           "{usual:.0e}"),
        notes=(N_("{effect} Full fine-tuning takes about a tenth of an adapter's rate; one of the "
                  "two is often carried over to the other."),),
        helps=(N_("set optimizer.lr = \"auto\", or a value within ten times of the usual"),),
        source="Thinking Machines 2025, LoRA Without Regret; presets of OneTrainer and SimpleTuner",
    ),
    "SF155": Words(
        N_("weight_decay = {decay:g} does nothing to weights in bf16 that are rounded to the "
           "nearest: a step takes at most {share:.1e} of a number, and 2.0e-03 is the least that "
           "shows"),
        helps=(N_("leave it out, or keep the weights in fp32, or take adafactor with rounding = "
                  "\"stochastic\""),),
        source="OneTrainer issue 996",
    ),
    "SF157": Words(
        N_("only the attention layers get adapters; with the feed-forward layers as well an "
           "adapter of the same size learns more"),
        helps=(N_("set tuning.targets = \"attention+feed_forward\", with a lower rank if it has to "
                  "be as small"),),
        source="Thinking Machines 2025, LoRA Without Regret",
    ),
    "SF158": Words(
        N_("the {part} is among tuning.parts, but no target pattern matches a layer of it"),
        helps=(N_("add a pattern for it to tuning.targets, or take it out of tuning.parts"),),
        source="sd-scripts issue 890",
    ),
    "SF159": Words(
        N_("{pictures} pictures a step are many for an adapter, which gains less from large steps "
           "than full fine-tuning"),
        helps=(N_("lower train.batch_size or train.gradient_accumulation, for more steps of the "
                  "same pictures"),),
        source="Thinking Machines 2025, LoRA Without Regret",
    ),
    "SF160": Words(
        N_("noise_offset = {offset:g} is large: it shifts the brightness of every picture that is "
           "made"),
        helps=(N_("set it to 0.05 to 0.1"),),
        source="Guttenberg 2023, Diffusion with Offset Noise",
    ),
    "SF163": Words(
        N_("train.offload moves frozen weights, and there are none to move: {reason}"),
        helps=(N_("set train.offload = 0, or tune by an adapter on weights that are not "
                  "quantised"),),
    ),
    "SF164": Words(
        N_("train.offload saves nothing without gradient_checkpointing: the weights stay on the "
           "device until the backward pass has used them"),
        helps=(N_("set train.gradient_checkpointing = true"),),
    ),
    "SF201": Words(
        N_("the config says {asked}, the model's scheduler says {found}"),
        notes=(N_("trained on the wrong target, the model turns to noise within a few hundred "
                  "steps."),),
        helps=(N_("set model.prediction = \"auto\" unless you know better"),),
        source="sd-scripts issues 1263 and 1715; diffusers issue 4636",
    ),
    "SF203": Words(
        N_("the model's noise schedule ends without any signal, and a network that predicts the "
           "noise has nothing to learn there"),
        helps=(N_("check model.prediction: such schedules belong to v_prediction"),),
        source="Lin et al. 2023, Common Diffusion Noise Schedules and Sample Steps are Flawed",
    ),
    "SF204": Words(
        N_("{key} = {given} divides by the ratio of signal to noise, which is 0 at the end of this "
           "model's schedule: the loss would be NaN"),
        helps=(N_("turn it off"),),
        source="Min-SNR's repository, issue 4; sd-scripts issue 1263",
    ),
    "SF205": Words(
        N_("the name of the base model says `{word}`: such a model makes pictures in few steps, "
           "and training it as usual takes that away"),
        helps=(N_("train on the model that it was distilled from; the result can then be used "
                  "with the fast one"),),
        source="sd-scripts issue 1822",
    ),
    "SF206": Words(
        N_("{key} = {given} gives the last noise level the weight 0, and that level is what a zero "
           "terminal SNR is for"),
        helps=(N_("turn it off, or leave the schedule as the model had it"),),
        source="Hang et al. 2023, Min-SNR, section 3.4; Lin et al. 2023",
    ),
    "SF207": Words(
        N_("the noise levels are weighted twice: by snr_gamma and by debiased"),
        helps=(N_("keep one of the two"),),
        source="Yu et al. 2023, arXiv 2310.08442",
    ),
    "SF208": Words(
        N_("no noise level lies between timestep_min = {least:g} and timestep_max = {most:g}"),
        helps=(N_("give a smaller one first, such as 0 and 1"),),
    ),
    "SF209": Words(
        N_("{key} has no effect with {other} as it is"),
        helps=(N_("change the other, or remove the key"),),
        source="kohya_ss issues 2777 and 2796",
    ),
    "SF210": Words(
        N_("only {percent:.0f} % of the noise levels are trained: what is learned shows in a part "
           "of the denoising steps"),
        notes=(N_("much noise decides the composition, little noise the details."),),
        helps=(N_("widen timestep_min and timestep_max unless that is meant"),),
    ),
    "SF028": Words(
        N_("buckets in steps of {step} pixels do not fit: the model needs multiples of {multiple}"),
        helps=(N_("set data.bucket_step = \"auto\""),),
    ),
    "SF029": Words(
        N_("all {pictures} pictures are too small, such as {example} with {width}x{height} pixels "
           "for {bucket}: nothing is left to train on"),
        helps=(N_("set data.small_pictures to \"scale_up\" or \"smaller_bucket\", or lower "
                  "data.resolution"),),
    ),
    "SF301": Words(
        N_("the caption {file} is empty, so its picture is left out"),
        helps=(N_("write one, or set captions.missing = \"empty\""),),
    ),
    "SF302": Words(
        N_("the caption {file} has no picture"), helps=(N_("rename or remove it"),)
    ),
    "SF303": Words(
        N_("a step takes {batch} pictures and the set has {pictures}: each is seen more than once "
           "in a step"),
        helps=(N_("lower train.batch_size or train.gradient_accumulation"),),
        source="OneTrainer issues 97 and 573",
    ),
    "SF304": Words(
        N_("{count} of {pictures} pictures are smaller than they will be trained at and are scaled "
           "up, {example} by {factor:.1f}"),
        helps=(N_("larger pictures give sharper results"),
               N_("set data.small_pictures to \"smaller_bucket\" or \"leave_out\""),),
    ),
    "SF305": Words(
        N_("the caption {file} was left aside: {detail} is taken"),
        helps=(N_("remove one of them"),),
    ),
    "SF306": Words(
        N_("the folder {file} is the same as {detail} and was read once"),
        helps=(N_("remove the link; use `repeats` to see pictures more often"),),
    ),
    "SF307": Words(
        N_("the run takes {seen} pictures and the set has {pictures}: the rest is never seen"),
        helps=(N_("set train.steps to at least {needed}"),),
        source="kohya_ss issue 2965",
    ),
    "SF308": Words(
        N_("{count} captions are longer than the {most} tokens that the text encoder takes, "
           "{example} with at least {tokens}; what is beyond is cut off"),
        helps=(N_("put what matters first, or shorten them"),),
        source="Radford et al. 2021, CLIP: 77 tokens with those of beginning and end",
    ),
    "SF309": Words(
        N_("{percent:.0f} % of the captions are left out, so that prompts are hardly learned"),
        helps=(N_("set captions.dropout to 0.1 or 0.2"),),
        source="Ho & Salimans 2022, Classifier-Free Diffusion Guidance, section 3.2",
    ),
    "SF310": Words(
        N_("{count} of {pictures} validation pictures are trained on too, such as {example}: their "
           "loss cannot show overfitting"),
        helps=(N_("keep validation pictures in a folder of their own, outside of data.folders"),),
    ),
    "SF311": Words(
        N_("{count} of {captions} captions have no `{separator}` in them, such as that of "
           "{example}: nothing of them is shuffled or left out"),
        helps=(N_("set captions.separator to what stands between your tags; for sentences set "
                  "captions.shuffle = false and captions.tag_dropout = 0"),),
    ),
    "SF312": Words(
        N_("keep_tags = {keep} keeps every tag of every caption: nothing is shuffled or left out"),
        helps=(N_("lower captions.keep_tags, to 1 for a trigger word"),),
    ),
    "SF313": Words(
        N_("{count} captions have braces without their partner, such as that of {example}: they "
           "are learned as they stand"),
        helps=(N_("close them, as in {{red|blue}}"),),
    ),
    "SF314": Words(
        N_("no prompt of preview.prompts has the trigger word `{trigger}`: they would show the "
           "base model's pictures"),
        helps=(N_("put it into the prompts"),),
    ),
    "SF321": Words(
        N_("{count} of {pictures} pictures are left out since they are too small, such as "
           "{example} with {width}x{height} pixels for {bucket}"),
        helps=(N_("set data.small_pictures to \"scale_up\" or \"smaller_bucket\", or lower "
                  "data.resolution"),),
        source="OneTrainer issues 267 and 573",
    ),
    "SF322": Words(
        N_("{count} of {pictures} pictures lose more than {percent:.0f} % by cropping, {example} "
           "loses {lost:.0f} %"),
        helps=(N_("set data.buckets = \"auto\" where it is off, or raise data.longest_ratio"),
               N_("crop them yourself, so that what matters stays"),),
        source="OneTrainer issue 646",
    ),
    "SF323": Words(
        N_("{count} of {buckets} buckets hold fewer pictures than a batch of {batch}, such as "
           "{example} with {held}: their batches show a picture more than once"),
        helps=(N_("lower train.batch_size, or crop these pictures to a more usual shape"),),
    ),
    "SF324": Words(
        N_("random crops and colours are drawn once for each picture and then cached: every step "
           "sees the same"),
        helps=(N_("set data.variants to \"auto\" or to a number, or data.cache = \"off\""),),
    ),
    "SF325": Words(
        N_("samples = {samples} and repeats = {repeats} both say how often this folder is seen"),
        helps=(N_("remove one of them"),),
    ),
    "SF326": Words(
        N_("all folders are for regularisation: there is nothing to learn from"),
        helps=(N_("set role = \"train\" for the folder that shows what is new"),),
    ),
    "SF327": Words(
        N_("an epoch shows {regularisation} regularisation pictures and {train} that are to be "
           "learned: most of the run teaches nothing new"),
        helps=(N_("set samples = {train} for the regularisation folder"),),
        source="Ruiz et al. 2023, DreamBooth, section 3.2",
    ),
}  # fmt: skip
