"""The cases of the rules about checkpoints. The run has 120 steps of 2 and 2 pictures."""

from __future__ import annotations

from tests.check.rule_cases import Case

SAVE_CASES = (
    Case(
        "SF161",
        "checkpoint_after_the_end",
        "note",
        ("save.every=121",),
        (("save.every=120",), ("train.steps=1",), ("save.every=121", "save.every_minutes=5")),
        {"every": 121, "steps": 120},
        "save.every",
    ),
    Case(
        "SF161",
        "checkpoint_after_the_end",
        "note",
        ("save.every_epochs=121",),
        (
            ("save.every_epochs=120",),
            ("save.every_epochs=121", "save.every=60"),
            ("save.every=off",),
        ),
        {"every": 121, "steps": 120},
        "save.every_epochs",
    ),
    Case(
        "SF170",
        "saved_after_each_step",
        "warning",
        ("save.every=1",),
        (("save.every=2",), ("save.every=1", "train.steps=10")),
        {"steps": 120},
        "save.every",
    ),
    Case(
        "SF170",
        "saved_after_each_step",
        "warning",
        ("save.every_epochs=0.5",),
        (("save.every_epochs=2",),),
        {"steps": 120},
        "save.every_epochs",
    ),
)
