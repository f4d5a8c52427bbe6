"""The verb `probe`: a few real steps before the run is paid for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.check_command import Json, Overrides, RunFile, plan_or_exit
from surefoot.finding import Refused
from surefoot.judging import Run
from surefoot.language import _
from surefoot.terminal import (
    FOUND,
    UNUSABLE,
    exit_code,
    exit_unwritable,
    finding_json,
    print_findings,
    print_json,
    quiet_libraries,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from surefoot.engine.probe import Probe
    from surefoot.engine.rate_test import RateTest

_NAMED = 10  # tensors without a gradient that are named, at most


def probe(
    run_file: RunFile,
    overrides: Overrides = None,
    steps: Annotated[
        int | None,
        typer.Option(min=2, help="Steps to take; default 8, with --find-lr 2 at each rate."),
    ] = None,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Try rising learning rates and say which one trains best."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Of --find-lr: the SVG picture; default: NAME-lr.svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a few real steps in a copy: do all tensors move, as far as planned, at what cost."""
    asked, findings = plan_or_exit(run_file, overrides)
    if any(finding.unusable for finding in findings):
        print_findings(findings, run_file, asked.loaded.text, stderr, overrides)
        raise typer.Exit(UNUSABLE)
    quiet_libraries()
    try:
        if find_lr:
            _find_lr(asked, steps or 2, plot, as_json)
        else:
            _take_steps(asked, steps or 8, run_file, overrides, as_json)
    except Refused as refused:
        print_findings(refused.findings, run_file, asked.loaded.text, stderr, overrides)
        unusable = any(finding.unusable for finding in refused.findings)
        raise typer.Exit(UNUSABLE if unusable else FOUND) from None


def _take_steps(
    asked: Run, steps: int, run_file: Path, overrides: list[str] | None, as_json: bool
) -> None:
    from surefoot.engine.probe import probe as take_steps

    found = take_steps(asked.plan, asked.survey, steps)
    if as_json:
        told = {**asdict(found), "findings": [finding_json(item) for item in found.findings]}
        print_json({"schema": 1, "probe": told})
        raise typer.Exit(exit_code(found.findings))
    _print_probe(found)
    print_findings(found.findings, run_file, asked.loaded.text, stdout, overrides)
    raise typer.Exit(exit_code(found.findings))


def _print_probe(found: Probe) -> None:
    stdout.print(
        _("{tensors} trained tensors, {without} of them without a gradient").format(
            tensors=found.tensors, without=len(found.without_gradient)
        )
    )
    for name in found.without_gradient[:_NAMED]:
        stdout.print(f"  {name}")
    stdout.print(_("step of each kind of tensor, as a share of itself (lora_up: of its layer):"))
    for item in found.kinds:
        stdout.print(
            _("  {kind}: measured {measured:.2e}, predicted {predicted:.2e}; "
              "changes {percent:.0f} % of its numbers ({dtype})").format(
                kind=item.kind,
                measured=item.measured,
                predicted=item.predicted,
                percent=100 * item.changed,
                dtype=item.dtype,
            )
        )  # fmt: skip
    stdout.print(
        _("{seconds:.2f} s a step, {speed:.1f} images/s, {minutes:.1f} min for the run; "
          "{memory:.1f} GB at the peak; {disk:.2f} GB of disk").format(
            seconds=found.seconds_per_step,
            speed=found.pictures_per_second,
            minutes=found.run_seconds / 60,
            memory=found.peak_bytes / 1e9,
            disk=found.disk_bytes / 1e9,
        )
    )  # fmt: skip


def _find_lr(asked: Run, steps: int, plot: Path | None, as_json: bool) -> None:
    from surefoot.engine.rate_plot import rate_plot
    from surefoot.engine.rate_test import find_rate

    found = find_rate(asked.plan, asked.survey, steps)
    name = asked.plan.config.name
    picture = plot or Path(f"{name}-lr.svg")
    try:
        picture.write_text(rate_plot(name, found), encoding="utf-8")
    except OSError as error:
        exit_unwritable(picture, error)
    said = _recommended(found)
    if as_json:
        told = {**asdict(found), "recommendation": said, "plot": str(picture)}
        print_json({"schema": 1, "find_lr": told})
        return
    stdout.print(_("loss without any step: {loss:.4f}").format(loss=found.before))
    for stage in found.stages:
        stdout.print(_("  lr {lr:.1e}: loss {loss:.4f}").format(lr=stage.lr, loss=stage.loss))
    stdout.print(said)
    stdout.print(_("picture: {path}").format(path=picture))


def _recommended(found: RateTest) -> str:
    values = {
        "fastest": found.fastest,
        "above": found.rises_above,
        "planned": found.planned,
        "last": found.stages[-1].lr,
    }
    # fmt: off
    match found.outcome:
        case "found":
            said = _("lr {fastest:.1e}: the loss falls fastest; above {above:.1e} it rises. Take "
                     "one of the two or what lies between; the run has {planned:.1e}")
        case "falls to the end":
            said = _("lr {fastest:.1e}: the loss falls fastest, and it does not rise up to "
                     "{last:.1e}; the run has {planned:.1e}")
        case "learns nothing":
            said = _("the loss does not fall at any learning rate up to {last:.1e}; the run has "
                     "{planned:.1e}. Take more --steps, or see what surefoot check says")
    # fmt: on
    return said.format(**values)
