"""Which optimizer setting fits which method? Trains the built-in model in a few hundred short runs.

python -m benchmarks.adafactor_study                      # train; goes on where it stopped
python -m benchmarks.adafactor_study --part 0/2           # one of two processes
python -m benchmarks.adafactor_study --series up200 --up-factor 200 --select '^weight, .*seed 0'
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.study.cases import Case, planned_cases, repeated_cases
from benchmarks.study.results import (
    Outcome,
    Protocol,
    ResultsFile,
    of_protocol,
    result_of,
)
from surefoot.config.load import UNIONS
from surefoot.optim import scaling


def main() -> None:
    """Trains what is not in the results file yet, or reports what is."""
    arguments = _arguments()
    if arguments.report or arguments.write_docs:
        _report(arguments)
        return
    protocol = _protocol(arguments)
    file = ResultsFile(arguments.results)
    _train(file, protocol, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = Path("build/adafactor_study/results.jsonl")
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", type=_part, default=(0, 1), metavar="I/N", help="process I of N")
    parser.add_argument("--select", default="", help="a pattern that the name of a case contains")
    parser.add_argument("--list", action="store_true", help="name the cases; train nothing")
    parser.add_argument("--series", default="", help="a name for a change of the weight rule")
    parser.add_argument("--up-factor", type=float, default=scaling.LORA_UP_FACTOR)
    parser.add_argument("--down-factor", type=float, default=scaling.LORA_DOWN_FACTOR)
    parser.add_argument("--report", action="store_true", help="write tables and plots; no training")
    parser.add_argument("--write-docs", action="store_true", help="the report into docs/ too")
    return parser.parse_args()


def _part(text: str) -> tuple[int, int]:
    part, parts = (int(number) for number in text.split("/"))
    if not 0 <= part < parts:
        raise ValueError(text)
    return part, parts


def _report(arguments: argparse.Namespace) -> None:
    # Imported late: training does not need matplotlib.
    from benchmarks.study.report import latest_protocol, write_report

    results = ResultsFile(arguments.results).read()
    protocol = latest_protocol(results, arguments.series)
    if protocol is None:
        sys.exit(f"{arguments.results} has no results of the series '{arguments.series}'.")
    report = write_report(results, protocol, arguments.results.parent, arguments.write_docs)
    print(report.read_text(encoding="utf-8"))


def _protocol(arguments: argparse.Namespace) -> Protocol:
    """Also sets the two factors of the weight rule for this process."""
    changed = (arguments.up_factor, arguments.down_factor) != (
        scaling.LORA_UP_FACTOR,
        scaling.LORA_DOWN_FACTOR,
    )
    if changed and not arguments.series:
        sys.exit("--up-factor and --down-factor need a --series, which names their results.")
    # A study tries other values of what is a constant everywhere else.
    scaling.LORA_UP_FACTOR = arguments.up_factor  # pyright: ignore[reportConstantRedefinition]
    scaling.LORA_DOWN_FACTOR = arguments.down_factor  # pyright: ignore[reportConstantRedefinition]
    return Protocol(
        series=arguments.series,
        steps=arguments.steps,
        batch=arguments.batch,
        up_factor=arguments.up_factor,
        down_factor=arguments.down_factor,
    )


def _train(file: ResultsFile, protocol: Protocol, arguments: argparse.Namespace) -> None:
    if arguments.list:
        for case in _chosen(file, protocol, arguments):
            print(case.name)
        return
    # Imported late: only training needs torch.
    import torch

    from benchmarks.study.training import Trainer

    torch.set_num_threads(arguments.threads)
    # A folder of its own for each process: their runs all have the same name.
    with tempfile.TemporaryDirectory(dir=arguments.results.parent, prefix="run-") as folder:
        trainer = Trainer(Path(folder), protocol)
        for case in _chosen(file, protocol, arguments):
            outcome = trainer.train(case)
            file.append(result_of(case, protocol, outcome))
            print(f"{case.name}: {_said(outcome)}", flush=True)


def _chosen(file: ResultsFile, protocol: Protocol, arguments: argparse.Namespace) -> Iterator[Case]:
    """Of the pending cases those of this process that are asked for and can be run."""
    part, parts = arguments.part
    for case in pending(file, protocol):
        if zlib.crc32(case.name.encode()) % parts != part:
            continue
        if not re.search(arguments.select, case.name):
            continue
        if _can_run(case):
            yield case
        else:
            print(f"{case.name}: left out, this version has no such optimizer", flush=True)


def pending(file: ResultsFile, protocol: Protocol) -> Iterator[Case]:
    """The cases that no process has finished, as things are when the next one is asked for."""
    for case in planned_cases():
        if case.name not in of_protocol(file.read(), protocol):
            yield case
    losses = {
        name: result.judged_loss for name, result in of_protocol(file.read(), protocol).items()
    }
    for case in repeated_cases(losses):
        if case.name not in of_protocol(file.read(), protocol):
            yield case


def _can_run(case: Case) -> bool:
    return case.optimizer()["kind"] in UNIONS["optimizer"]


def _said(outcome: Outcome) -> str:
    if outcome.diverged:
        return f"diverged, {outcome.seconds:.1f} s"
    return (
        f"{outcome.untrained:.4f} -> {outcome.loss:.4f}, {outcome.seconds:.1f} s, "
        f"{outcome.images_per_second:.0f} images/s"
    )


if __name__ == "__main__":
    main()
