"""The command line: verbs on one noun, the run."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.cells import cell_len
from rich.text import Text
from typer.main import get_group

from surefoot import __version__
from surefoot.check.describe import describe
from surefoot.check.render import render_count, sheet_lines
from surefoot.check.rules import review
from surefoot.columns import padded
from surefoot.command_help import language_asked, translate_help
from surefoot.config.load import Loaded, load, load_rest
from surefoot.config.run import RunConfig
from surefoot.finding import Finding, Refused
from surefoot.language import _, choose, translate_libraries
from surefoot.plan import Plan, resolve
from surefoot.survey import Survey, survey
from surefoot.terminal import (
    FOUND,
    INTERRUPTED,
    OK,
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

app = typer.Typer(
    name="surefoot",
    help="""Fine-tunes diffusion models, and says before a run what will go wrong with it.

    A run is one file, run.toml. `surefoot demo` writes one, trains it on the pictures and the small
    model that come along, and needs no GPU and no download.

    Then, for your own: `plan` shows what would happen, `check` says whether it can work, `train`
    does it; after an interruption the same `train` goes on.""",
    epilog="Exit codes: 0 fine; 1 findings of level error, or the run failed; 2 something cannot "
    "be read or used; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

RunFile = Annotated[Path, typer.Argument(metavar="RUN.TOML", help="The run to look at.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as optimizer.lr=3e-3."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Lang = Annotated[
    Literal["auto", "en", "zh"],
    typer.Option("--lang", help="Language; auto follows the locale.", envvar="SUREFOOT_LANG"),
]


def main() -> None:
    """Runs the command line; a user's mistake ends in a sentence, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A Chinese Windows console is GBK: a sign that it lacks must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if choose(language_asked(sys.argv[1:])) == "zh":
        translate_libraries()
    command = get_group(app)
    translate_help(command)
    command()


def _print_version(asked: bool) -> None:
    if asked:
        stdout.print(__version__)
        raise typer.Exit(OK)


@app.callback()
def _common(
    lang: Lang = "auto",
    version: Annotated[
        bool,
        # Eager: `surefoot --version` has no verb.
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    del version
    choose(lang)


@app.command()
def plan(run_file: RunFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what a run would do: steps, sizes, and the effective step of every kind of tensor."""
    _loaded, planned, found, findings = _plan_or_exit(run_file, overrides)
    del found
    if as_json:
        from pydantic import TypeAdapter

        print_json({"schema": 1, "plan": TypeAdapter(Plan).dump_python(planned, mode="json")})
        raise typer.Exit(exit_code(findings))
    _print_plan(planned)
    stdout.print(
        _("{count}.  Next: surefoot check {file}").format(
            count=render_count(findings), file=_again(run_file, overrides)
        )
    )
    raise typer.Exit(exit_code(findings))


@app.command()
def check(run_file: RunFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Say whether a run can work: every problem at once, with this run's numbers and a remedy."""
    loaded, _planned, _found, findings = _plan_or_exit(run_file, overrides, quiet_json=as_json)
    if as_json:
        print_json({"schema": 1, "findings": [finding_json(finding) for finding in findings]})
        raise typer.Exit(exit_code(findings))
    print_findings(findings, run_file, loaded.text, stdout, overrides)
    stdout.print(f"{run_file}: {render_count(findings)}")
    if exit_code(findings) == OK:
        stdout.print(_("Next: surefoot train {file}").format(file=_again(run_file, overrides)))
    raise typer.Exit(exit_code(findings))


@app.command()
def train(run_file: RunFile, overrides: Overrides = None) -> None:
    """Train a run, or go on with it where it was interrupted."""
    _train(run_file, overrides)


@app.command()
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


@app.command()
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


@app.command()
def schema() -> None:
    """Print the JSON Schema of run.toml, with the help of every key."""
    print_json(RunConfig.model_json_schema())


def _train(run_file: Path, overrides: list[str] | None) -> None:
    loaded, planned, found, findings = _plan_or_exit(run_file, overrides)
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
    stdout.print(_("result:    {path}").format(path=summary.export))
    stdout.print(_("Next: surefoot sample {folder}").format(folder=planned.run_folder))


def _plan_or_exit(
    run_file: Path, overrides: list[str] | None, *, quiet_json: bool = False
) -> tuple[Loaded, Plan, Survey, list[Finding]]:
    try:
        loaded = load(run_file, tuple(overrides or ()))
    except Refused as refused:
        findings = refused.findings + _found_besides(run_file, overrides, refused.findings)
        if quiet_json:
            document = [finding_json(finding) for finding in findings]
            print_json({"schema": 1, "findings": document})
        else:
            text = _text_of(run_file)
            print_findings(findings, run_file, text, stderr, overrides)
            stderr.print(f"{run_file}: {render_count(findings)}")
        raise typer.Exit(UNUSABLE) from None
    found = survey(loaded)
    planned = resolve(loaded, found)
    return loaded, planned, found, review(planned, found)


def _found_besides(
    run_file: Path, overrides: list[str] | None, problems: list[Finding]
) -> list[Finding]:
    """What is wrong with the files that a refused run.toml names, so that all is said at once."""
    try:
        rest = load_rest(run_file, tuple(overrides or ()), problems)
    except Refused:
        return []
    spoilt = {finding.path.partition(".")[0] for finding in problems}
    if "data" in spoilt:  # it says whether captions are needed
        spoilt.add("validation")
    findings = survey(rest).findings
    return [finding for finding in findings if finding.path.partition(".")[0] not in spoilt]


def _again(run_file: Path, overrides: list[str] | None) -> str:
    """The arguments for the next command, as a shell takes them."""
    return " ".join([str(run_file), *(shlex.quote(item) for item in overrides or ())])


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""


def _print_plan(planned: Plan) -> None:
    described = describe(planned)
    width = max(cell_len(name) for name, _text in described)
    for name, text in described:
        stdout.print(Text(padded(name, width + 2), style="bold").append(text, style="not bold"))
    stdout.print()
    for line in sheet_lines(planned.sheet):
        stdout.print(Text(line))
    stdout.print()
