"""The verbs that run something: train, demo, sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surefoot.check.render import render_count
from surefoot.check_command import Overrides, RunFile, plan_or_exit
from surefoot.finding import Refused
from surefoot.formats.abilities import still_for_comfyui
from surefoot.language import _
from surefoot.plan import Plan
from surefoot.terminal import (
    FOUND,
    INTERRUPTED,
    OK,
    STOPPED,
    UNUSABLE,
    exit_code,
    exit_unwritable,
    print_findings,
    quiet_libraries,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from surefoot.engine.run import Summary


def train(run_file: RunFile, overrides: Overrides = None) -> None:
    """Train a run, or go on with it where it was interrupted."""
    _train(run_file, overrides)


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Where the demonstration's run goes.")
    ] = Path("surefoot-demo"),
    write: Annotated[
        bool, typer.Option("--write", help="Only write its run.toml and say where.")
    ] = False,
) -> None:
    """Train a DoRA on Twemoji with the small model that comes along: no GPU, no download."""
    from surefoot.builtin import DEMO_RUN

    run_file = folder / "run.toml"
    try:
        if not run_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            run_file.write_text(DEMO_RUN.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        exit_unwritable(folder, error)
    stdout.print(_("The run is described in {file}").format(file=run_file))
    if not write:
        _train(run_file, None)


def sample(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a run, such as runs/cat.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Default: the run's own.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**62, help="Seed of the first; each next takes one more.")
    ] = 0,
    guidance: Annotated[float, typer.Option(min=1, help="Guidance scale.")] = 4.0,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps.")] = 30,
    out: Annotated[Path | None, typer.Option(help="Folder; default: in the run's samples.")] = None,
) -> None:
    """Draw pictures with a trained run, beside those of the base model."""
    quiet_libraries()
    from surefoot.engine.sample import sample_run

    try:
        sheet = sample_run(
            run_folder, prompts or [], seed=seed, guidance=guidance, steps=steps, out=out
        )
    except Refused as refused:
        print_findings(refused.findings, run_folder, "", stderr)
        raise typer.Exit(UNUSABLE) from None
    except OSError as error:
        exit_unwritable(out or run_folder, error)
    stdout.print(
        _("pictures in {folder}; side by side: {sheet}").format(folder=sheet.parent, sheet=sheet)
    )


def _train(run_file: Path, overrides: list[str] | None) -> None:
    asked, findings = plan_or_exit(run_file, overrides)
    loaded, planned, found = asked.loaded, asked.plan, asked.survey
    print_findings(findings, run_file, loaded.text, stderr, overrides)
    if (code := exit_code(findings)) != OK:
        stderr.print(_("{count}. Nothing was started.").format(count=render_count(findings)))
        raise typer.Exit(code)
    # Torch and the model libraries take seconds to import; nothing before this needs them.
    quiet_libraries()
    from surefoot.engine.progress import Reporter
    from surefoot.engine.run import run

    try:
        summary = run(loaded, planned, found, findings, Reporter(stderr))
    except Refused as refused:
        print_findings(refused.findings, run_file, loaded.text, stderr)
        unusable = any(finding.unusable for finding in refused.findings)
        raise typer.Exit(UNUSABLE if unusable else FOUND) from None
    except KeyboardInterrupt:
        stderr.print(_("Interrupted. The same command goes on from the last checkpoint."))
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        stderr.print(_("The run stopped: {reason}").format(reason=error))
        stderr.print(_("Its checkpoints are whole; mend that, and the same command goes on."))
        raise typer.Exit(FOUND) from None
    _print_summary(summary, planned)
    if summary.stopped_at:
        raise typer.Exit(STOPPED)


def _print_summary(summary: Summary, planned: Plan) -> None:
    before, after = summary.validation_before, summary.validation_after
    if summary.resumed_from:
        stdout.print(_("went on from step {step}").format(step=summary.resumed_from))
    if after == after:
        change = 100 * (after / before - 1)
        stdout.print(
            _("validation loss {before:.4f} before, {after:.4f} after ({change:+.1f} %)").format(
                before=before, after=after, change=change
            )
        )
    if summary.sheet is not None:
        stdout.print(_("pictures:  {path}").format(path=summary.sheet))
    if summary.stopped_at:
        said = (
            _("the watch stopped the run at step {step}; what is best is of step {best}")
            if summary.steps
            else _("the watch stopped the run at step {step}; no checkpoint was kept as a good one")
        )
        stdout.print(said.format(step=summary.stopped_at, best=summary.steps))
    if summary.steps:
        stdout.print(_("result:    {path}").format(path=summary.export))
        to = still_for_comfyui(planned.formats, planned.config.tuning)
        if to != "none":
            stdout.print(
                _("for ComfyUI: {command}").format(
                    command=f"surefoot convert {summary.export} --to {to} "
                    f"--base {planned.model_path} --out {summary.export.stem}-comfyui.safetensors"
                )
            )
        stdout.print(_("Next: surefoot sample {folder}").format(folder=planned.run_folder))
