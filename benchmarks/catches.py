"""When does the watch tell of trouble? Runs that go wrong, some that look as if, and sound ones.

The built-in model; the check's errors are passed over. Each run ends at its first trouble. Prints a
Markdown table with the steps at which it was told and what is left as the result.

    python -m benchmarks.catches --folder /tmp/catches
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.watched import Told, watched

DORA = ("tuning.kind=dora", "tuning.targets=all")
LORA = ("tuning.kind=lora", "tuning.targets=all")
FULL = ("tuning.kind=full",)
ADAMW = "optimizer.kind=adamw"
OWN_SCALE = "optimizer.scale_parameter=true"


@dataclass(frozen=True)
class Case:
    """A run, and over how many seeds.

    Attributes:
        pictures: That it learns from; 0 for all.
        validated: Whether it has held-out pictures.
    """

    name: str
    overrides: tuple[str, ...]
    steps: int = 60
    seeds: int = 1
    batch: int = 8
    pictures: int = 0
    validated: bool = True
    preview_every: int = 0


CASES = (
    Case("DoRA, Adafactor `true` with `relative_step`",
         (*DORA, OWN_SCALE, "optimizer.relative_step=true"), steps=120, seeds=3),
    Case("LoRA, Adafactor `true`, lr 1e-4", (*LORA, OWN_SCALE, "optimizer.lr=1e-4"), seeds=3),
    Case("LoRA, AdamW, lr 1e-7", (*LORA, ADAMW, "optimizer.lr=1e-7"), seeds=2),
    Case("LoHa, AdamW, lr 1e-7", ("tuning.kind=loha", ADAMW, "optimizer.lr=1e-7")),
    Case("LoKr, AdamW, lr 1e-7", ("tuning.kind=lokr", ADAMW, "optimizer.lr=1e-7")),
    Case("full, AdamW, lr 1e-9", (*FULL, ADAMW, "optimizer.lr=1e-9")),
    Case("DoRA, `\"weight\"`, lr 0.05 (10 times)", (*DORA, "optimizer.lr=0.05")),
    Case("DoRA, `\"weight\"`, lr 0.5 (100 times)", (*DORA, "optimizer.lr=0.5"), seeds=2),
    Case("DoRA, `\"weight\"`, lr 0.5, without held-out pictures", (*DORA, "optimizer.lr=0.5"),
         validated=False),
    Case("LoHa, `\"weight\"`, lr 0.5 (100 times)", ("tuning.kind=loha", "optimizer.lr=0.5")),
    Case("LoKr, `\"weight\"`, lr 0.5 (100 times)", ("tuning.kind=lokr", "optimizer.lr=0.5")),
    Case("full, AdamW, lr 1e-3 (10 times)", (*FULL, ADAMW, "optimizer.lr=1e-3")),
    Case("full, AdamW, lr 1e-2 (100 times)", (*FULL, ADAMW, "optimizer.lr=1e-2")),
    Case("full, AdamW, lr 1e-2, without held-out pictures", (*FULL, ADAMW, "optimizer.lr=1e-2"),
         validated=False),
    Case("LoRA, AdamW, lr 1e-2 (100 times)", (*LORA, ADAMW, "optimizer.lr=1e-2")),
    Case("LoRA, AdamW, lr 1e-2, previews only", (*LORA, ADAMW, "optimizer.lr=1e-2"),
         validated=False, preview_every=20),
    Case("full, AdamW, lr 1e-3, 4 pictures", (*FULL, ADAMW, "optimizer.lr=1e-3"), steps=160,
         seeds=3, batch=4, pictures=4),
    Case("DoRA, `\"weight\"`, lr 5e-3, as in the demo", (*DORA, "optimizer.lr=5e-3"), seeds=2,
         preview_every=30),
    Case("LoHa, `\"weight\"`, lr 5e-3", ("tuning.kind=loha", "optimizer.lr=5e-3")),
    Case("LoKr, `\"weight\"`, lr 5e-3", ("tuning.kind=lokr", "optimizer.lr=5e-3")),
)  # fmt: skip


def train(number: int, case: Case, seed: int, folder: Path) -> Told:
    """One run."""
    every = 20 if case.steps > 60 else 15
    changes: dict[str, dict[str, object]] = {
        "train": {"batch_size": case.batch},
        "schedule": {"warmup_steps": 3},
        "validation": {"every": every} if case.validated else {"folder": "off"},
        "preview": {"every": case.preview_every} if case.preview_every else {"prompts": []},
        "watch": {"on_trouble": "stop"},
        "save": {"every": 5, "keep": 3},
    }
    overrides = (*case.overrides, f"seed={seed}")
    return watched(
        folder,
        f"case-{number}-seed-{seed}",
        overrides,
        steps=case.steps,
        pictures=case.pictures,
        changes=changes,
    )


def row(case: Case, told: list[Told]) -> str:
    """Of the table; a cell has a value for each seed."""
    ended = [["no verdict yet", *each.verdicts.values()][-1] for each in told]
    codes = [", ".join(each.codes.values()) for each in told]
    steps = [str(each.stopped_at) if each.stopped_at else "-" for each in told]
    left = [f"step {each.result_steps}" if each.result_steps else "none" for each in told]
    cells = (_once(ended), _once(codes), ", ".join(steps), ", ".join(left))
    return f"| {case.name} | {case.steps} | {len(told)} | {' | '.join(cells)} |"


def _once(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else ", ".join(values)


def main() -> None:
    """Trains them and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/catches"))
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(CASES))))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| run | steps | seeds | verdict | code | told at step | result |")
    print("|---|---|---|---|---|---|---|")
    for number in arguments.cases:
        case = CASES[number]
        told = [train(number, case, seed, arguments.folder) for seed in range(case.seeds)]
        print(row(case, told), flush=True)


if __name__ == "__main__":
    main()
