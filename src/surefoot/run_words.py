"""The words of the findings about run folders and checkpoints; as in `wording.py`."""

from __future__ import annotations

from surefoot.language import N_
from surefoot.optimizer_words import Words

RUN_WORDS: dict[str, Words] = {
    "SF161": Words(
        N_("the first checkpoint is due at step {every}, after the end at {steps}: a run that "
           "is killed begins anew"),
        helps=(N_("lower save.every or save.every_epochs, or set save.every to \"auto\""),),
    ),
    "SF170": Words(
        N_("a checkpoint of {size:.2g} MB is written after each of the {steps} steps"),
        notes=(N_("that is {total:.0f} MB in all, and each step waits for the disk."),),
        helps=(N_("raise save.every or save.every_epochs, or take save.every_minutes"),),
    ),
}  # fmt: skip
