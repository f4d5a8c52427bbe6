"""A whole run: its folder, going on where it stopped, training, export, summary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from surefoot import __version__
from surefoot.config.load import Loaded
from surefoot.engine.assemble import assemble, open_best, open_checkpoints
from surefoot.engine.checkpoint import State
from surefoot.engine.events import Events, read_events
from surefoot.engine.export import export
from surefoot.engine.loop import train
from surefoot.engine.preview import write_sheet
from surefoot.engine.progress import Reporter
from surefoot.engine.resume import (
    check_not_beyond,
    check_same_run,
    keep_earlier_documents,
    tell_changes,
)
from surefoot.engine.session import Session
from surefoot.engine.watch import Stopped
from surefoot.finding import Finding, Refused
from surefoot.formats.files import write_whole
from surefoot.language import _
from surefoot.plan import Plan, write_plan
from surefoot.survey import Survey


@dataclass(frozen=True)
class Summary:
    """What a run came to; losses are NaN without held-out pictures.

    Attributes:
        steps: That what was exported has been trained for; 0 if nothing was.
        export: The result; the run folder if there is none.
        stopped_at: The step at which the watch ended the run, 0 if it did not; then the best
            checkpoint is what was exported, if there is one.
    """

    steps: int
    validation_before: float
    validation_after: float
    export: Path
    sheet: Path | None
    resumed_from: int
    stopped_at: int = 0


def run(
    loaded: Loaded, plan: Plan, survey: Survey, findings: Sequence[Finding], reporter: Reporter
) -> Summary:
    """Trains a plan in its run folder, or goes on with it.

    Raises:
        Refused: If the folder holds another run, or another process trains it, or the device is
            not there, or gradients are not finite.
        OSError: If the disk is full.
    """
    plan.run_folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(plan.run_folder / ".lock", timeout=0):
            return _run_locked(loaded, plan, survey, findings, reporter)
    except Timeout:
        values = {"folder": str(plan.run_folder)}
        raise Refused([Finding("SF046", "error", "name", dict(values))]) from None


def _run_locked(
    loaded: Loaded, plan: Plan, survey: Survey, findings: Sequence[Finding], reporter: Reporter
) -> Summary:
    check_same_run(plan)
    damaged: list[Finding] = []
    state = open_checkpoints(plan).read_last(damaged)
    for finding in damaged:
        reporter.finding(finding)
    asked = loaded.asked
    if state is None:
        _clear_folder(plan.run_folder)
    else:
        check_not_beyond(plan, state)
        keep_earlier_documents(plan, state, asked)
    _write_documents(asked, plan, findings)
    first_step = 0 if state is None else state.step
    if first_step:
        reporter.line(
            _("going on from step {step} of {steps}").format(step=first_step, steps=plan.steps)
        )
    with Events(plan.run_folder, first_step) as events:
        events.write("started", step=first_step, version=__version__, fingerprint=plan.fingerprint)
        if state is not None:
            tell_changes(plan, state, events, reporter)
        session = _open_session(plan, survey, events, state, reporter)
        try:
            train(session, reporter)
        except Stopped as stopped:
            return _after_stop(stopped, plan, survey, events, first_step)
        result = export(session, survey)
        sheet = _sheet(plan)
        events.write("finished", step=plan.steps, export=result.name)
    return _summary(plan, result, sheet, first_step)


def _after_stop(
    stopped: Stopped, plan: Plan, survey: Survey, events: Events, resumed_from: int
) -> Summary:
    """Exports the best checkpoint; that of the last step stays for whoever goes on."""
    best = open_best(plan).read_last([])
    until = replace(plan, steps=0 if best is None else best.step)
    result = plan.run_folder
    if best is not None:
        result = export(assemble(until, survey, events, best), survey)
    events.write("stopped", step=stopped.step, code=stopped.finding.code, best=until.steps)
    summary = _summary(until, result, _sheet(plan), resumed_from)
    return replace(summary, stopped_at=stopped.step)


def _open_session(
    plan: Plan, survey: Survey, events: Events, state: State | None, reporter: Reporter
) -> Session:
    reporter.line(_("loading {model}").format(model=plan.model_path.name))
    session = assemble(plan, survey, events, state)
    for finding in session.findings:
        events.finding(finding)
        reporter.finding(finding)
    with reporter.stage(_("encoding pictures"), len(session.pictures.views)):
        session.pictures.prepare(reporter.advance)
    return session


def _clear_folder(run_folder: Path) -> None:
    """Removes what an earlier start without a checkpoint has left."""
    for name in ("samples", "tensorboard", "best"):
        shutil.rmtree(run_folder / name, ignore_errors=True)
    (run_folder / "events.jsonl").unlink(missing_ok=True)


def _write_documents(asked: str, plan: Plan, findings: Sequence[Finding]) -> None:
    """What was asked, what is to happen, and what was said about it."""
    write_whole(plan.run_folder / "run.toml", asked)
    write_plan(plan)
    text = json.dumps([finding.as_json() for finding in findings], indent=1)
    write_whole(plan.run_folder / "findings.json", text)


def _sheet(plan: Plan) -> Path | None:
    """All previews of the run on one sheet, a line for each step at which they were drawn."""
    rows = [
        (
            # Not translated: the font on the sheet, Pillow's own, has Latin letters only.
            f"step {int(folder.name.removeprefix('step-'))}",
            sorted(folder.glob("*.png")),
        )
        for folder in sorted((plan.run_folder / "samples").glob("step-*"))
    ]
    # Prompts may be changed between two starts of a run; older pictures are not of these prompts.
    rows = [row for row in rows if len(row[1]) == len(plan.config.preview.prompts)]
    if not rows:
        return None
    path = plan.run_folder / "sheet.png"
    write_sheet(path, rows, plan.config.preview.prompts)
    return path


def _summary(plan: Plan, result: Path, sheet: Path | None, resumed_from: int) -> Summary:
    losses = {
        int(str(event["step"])): float(str(event["loss"]))
        for event in read_events(plan.run_folder)
        if event["event"] == "validation"
    }
    return Summary(
        steps=plan.steps,
        validation_before=losses.get(0, float("nan")),
        validation_after=losses.get(plan.steps, float("nan")),
        export=result,
        sheet=sheet,
        resumed_from=resumed_from,
    )
