"""The verb `probe`: a few real steps before the run is paid for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from surefoot.check_command import Json, Overrides, RunFile, plan_or_exit
from surefoot.finding import Refused
from surefoot.language import _
from surefoot.terminal import (
    FOUND,
    UNUSABLE,
    exit_code,
    finding_json,
    print_findings,
    print_json,
    quiet_libraries,
    stderr,
    stdout,
)


def probe(
    run_file: RunFile,
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps to take.")] = 8,
    as_json: Json = False,
) -> None:
    """Take a few real steps in a copy: do all tensors move, as far as planned, at what cost."""
    asked, findings = plan_or_exit(run_file, overrides)
    if any(finding.unusable for finding in findings):
        print_findings(findings, run_file, asked.loaded.text, stderr, overrides)
        raise typer.Exit(UNUSABLE)
    quiet_libraries()
    from surefoot.engine.probe import probe as take_steps

    try:
        found = take_steps(asked.plan, asked.survey, steps)
    except Refused as refused:
        print_findings(refused.findings, run_file, asked.loaded.text, stderr)
        unusable = any(finding.unusable for finding in refused.findings)
        raise typer.Exit(UNUSABLE if unusable else FOUND) from None
    if as_json:
        told = {**asdict(found), "findings": [finding_json(item) for item in found.findings]}
        print_json({"schema": 1, "probe": told})
        raise typer.Exit(exit_code(found.findings))
    stdout.print(_("step of each kind of tensor, as a share of itself (lora_up: of its layer):"))
    for item in found.kinds:
        stdout.print(
            _("  {kind}: measured {measured:.2e}, predicted {predicted:.2e}").format(
                kind=item.kind, measured=item.measured, predicted=item.predicted
            )
        )
    stdout.print(
        _("{seconds:.2f} s a step, {minutes:.1f} min for the run; {memory:.1f} GB at the peak; "
          "{disk:.2f} GB of disk").format(
            seconds=found.seconds_per_step,
            minutes=found.run_seconds / 60,
            memory=found.peak_bytes / 1e9,
            disk=found.disk_bytes / 1e9,
        )
    )  # fmt: skip
    print_findings(found.findings, run_file, asked.loaded.text, stdout, overrides)
    raise typer.Exit(exit_code(found.findings))
