"""Does the watch cry at runs that are as they should be? Methods times optimizers, 20 steps each.

The built-in model, 4 pictures a step, a held-out loss before, at 10 and after, previews before and
after. Prints a Markdown table with the last verdict of each run, and what was said against it.

    python -m benchmarks.false_alarms --folder /tmp/false-alarms
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from benchmarks.sane_settings import METHODS, OPTIMIZERS, is_sane
from benchmarks.watched import Told, watched

STEPS = 20


def train(method: str, optimizer: str, folder: Path) -> Told:
    """One run."""
    overrides = (*METHODS[method], *OPTIMIZERS[optimizer])
    name = f"{method}-{optimizer}".replace(" ", "-")
    return watched(folder, name, overrides, steps=STEPS)


def cell(told: Told) -> str:
    """The codes of what was said against it; otherwise the last verdict."""
    against = [*told.foretold, *told.codes.values()]
    last = list(told.verdicts.values())[-1]
    return f"**{', '.join(against)}**" if against else last


def table(cells: Mapping[tuple[str, str], str], methods: list[str], optimizers: list[str]) -> str:
    """Optimizers down, methods across."""
    lines = [f"| | {' | '.join(methods)} |", f"|---|{'---|' * len(methods)}"]
    for optimizer in optimizers:
        row = [cells.get((method, optimizer), "") for method in methods]
        lines.append(f"| {optimizer} | {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Trains them and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/false_alarms"))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--optimizers", nargs="*", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, str], str] = {}
    for method in arguments.methods:
        for optimizer in arguments.optimizers:
            if not is_sane(method, optimizer):
                continue
            told = train(method, optimizer, arguments.folder)
            cells[method, optimizer] = cell(told)
            losses = " ".join(f"{loss:.4f}" for loss in told.validations.values())
            print(
                f"{method}, {optimizer}: {cells[method, optimizer]}, {losses}, "
                f"{told.seconds:.1f} s",
                flush=True,
            )
    print(table(cells, arguments.methods, arguments.optimizers))


if __name__ == "__main__":
    main()
