"""Why a key of any trainer is changed or dropped: the words that several of them share."""

from surefoot.language import N_

NO_FP16 = N_("surefoot computes in bf16 where others take fp16")
NO_ADAPTER = N_("surefoot has no such adapter; LoRA stands in its place")
CUSTOM_SCHEDULE = N_("surefoot runs no code from a config; constant stands in its place")
NO_SCHEDULE = N_("surefoot has no such schedule; constant stands in its place")
FROM_THE_OPTIMIZER = N_("the optimizer sets the rate itself; constant stands in its place")
DECOUPLED = N_("weight decay is decoupled in AdamW")
WHOLE_MEMORY = N_("with its memory in 32 bits")
FIRST_OF_SEVERAL = N_("surefoot trains at one resolution, the first")
NAMED_TARGETS = N_("the trainer takes layers in its own way; write patterns for tuning.targets")
FROM_THE_NAME = N_("taken from the model's name, since nothing else says it")
OPTION_OF_OPTIMIZER = N_("options of the optimizer; those that surefoot has are in its section")
WHOLE_REPEATS = N_("surefoot repeats whole pictures")
ALPHA_IS_RANK = N_("the trainer ignores it: alpha is the rank")
SWITCHED_OFF = N_("switched off in {trainer}")
