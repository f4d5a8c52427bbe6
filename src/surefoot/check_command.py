"""The verbs `plan`, `check` and `explain`: they look and say, and only `check --fix` writes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.cells import cell_len
from rich.text import Text

from surefoot.check.describe import describe
from surefoot.check.examples import EXAMPLES, PLAIN_RUN
from surefoot.check.explain import explained, known_code, nearest_codes
from surefoot.check.render import render_count, render_repairs
from surefoot.check.sarif import sarif
from surefoot.check.step_table import sheet_lines
from surefoot.columns import padded
from surefoot.finding import Finding
from surefoot.fixing import fix
from surefoot.importer_commands import check_theirs
from surefoot.judging import Judgement, Run, judge
from surefoot.language import _
from surefoot.plan import Plan
from surefoot.terminal import (
    FOUND,
    OK,
    UNUSABLE,
    Format,
    exit_code,
    finding_json,
    print_findings,
    print_json,
    stderr,
    stdout,
)

RunFile = Annotated[Path, typer.Argument(metavar="RUN.TOML", help="The run to look at.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as optimizer.lr=3e-3."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def plan(run_file: RunFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show what a run would do: steps, sizes, and the effective step of every kind of tensor."""
    run, findings = plan_or_exit(run_file, overrides)
    if as_json:
        from pydantic import TypeAdapter

        print_json({"schema": 1, "plan": TypeAdapter(Plan).dump_python(run.plan, mode="json")})
        raise typer.Exit(exit_code(findings))
    _print_plan(run.plan)
    stdout.print(
        _("{count}.  Next: surefoot check {file}").format(
            count=render_count(findings), file=again(run_file, overrides)
        )
    )
    raise typer.Exit(exit_code(findings))


def check(
    run_file: RunFile,
    overrides: Overrides = None,
    as_json: Json = False,
    form: Annotated[
        Format, typer.Option("--format", help="How to print what was found; sarif is for CI.")
    ] = "text",
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors.")] = False,
    mend: Annotated[
        bool,
        typer.Option(
            "--fix", help="Show and make the repairs in run.toml; those that change training ask."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --fix: make all, ask nothing.")] = False,
) -> None:
    """Say whether a run can work: every problem at once, with this run's numbers and a remedy.

    A config or command line of another trainer is judged as that trainer runs it.
    """
    if mend and overrides:
        stderr.print(_("--fix mends run.toml itself: leave the overrides out."))
        raise typer.Exit(UNUSABLE)
    if not overrides:
        # Another trainer's file is never written to.
        check_theirs(run_file, form="json" if as_json else form, strict=strict)
    if mend:
        fix(run_file, yes=yes)
    judged = judge(run_file, overrides or ())
    code = exit_code(judged.findings)
    if strict and code == OK and _warned(judged.findings):
        code = FOUND
    match "json" if as_json else form:
        case "json":
            _print_json(judged, overrides)
        case "sarif":
            print_json(sarif(judged.findings, run_file, judged.text))
        case _:
            _print_text(judged, run_file, overrides, code)
    raise typer.Exit(code)


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="Such as SF101.")],
    as_json: Json = False,
) -> None:
    """Explain a code that check gave: what it means, why, what to do, and who found out."""
    known = known_code(code)
    if not known:
        near = ", ".join(nearest_codes(code))
        stderr.print(_("there is no code {code}; near it: {near}").format(code=code, near=near))
        raise typer.Exit(UNUSABLE)
    example = EXAMPLES.get(known, ())
    if as_json:
        page = {"page": explained(known).plain, "example": list(example)}
        print_json({"schema": 1, "code": known, **page})
        return
    stdout.print(explained(known), end="")
    if example:
        stdout.print(_("\nFor example, a plain run of the small model that comes along, with"))
        stdout.print(f"  {shlex.join(example)}")
        run_file = Path("run.toml")
        judged = judge(run_file, example, PLAIN_RUN)
        found = [finding for finding in judged.findings if finding.code == known]
        print_findings(found[:1], run_file, judged.text, stdout, list(example))


def plan_or_exit(run_file: Path, overrides: list[str] | None) -> tuple[Run, list[Finding]]:
    """The run that a file describes; what makes it unusable is printed, and ends."""
    judged = judge(run_file, overrides or ())
    if judged.run is None:
        _exit_unusable(judged, run_file, overrides)
    return judged.run, judged.findings


def again(run_file: Path, overrides: list[str] | None) -> str:
    """The arguments for the next command, as a shell takes them."""
    return " ".join([str(run_file), *(shlex.quote(item) for item in overrides or ())])


def _exit_unusable(judged: Judgement, run_file: Path, overrides: list[str] | None) -> NoReturn:
    print_findings(judged.findings, run_file, judged.text, stderr, overrides)
    stderr.print(f"{run_file}: {render_count(judged.findings)}")
    raise typer.Exit(UNUSABLE)


def _warned(findings: Sequence[Finding]) -> bool:
    return any(finding.standing == "warning" for finding in findings)


def _print_json(judged: Judgement, overrides: list[str] | None) -> None:
    given = {override.partition("=")[0].strip() for override in overrides or ()}
    found = [
        # What an override has put there is not in the file.
        finding_json(finding, "" if finding.path in given else judged.text)
        for finding in judged.findings
    ]
    rows = judged.run.plan.sheet if judged.run is not None else ()
    print_json({"schema": 1, "findings": found, "sheet": [asdict(row) for row in rows]})


def _print_text(judged: Judgement, run_file: Path, overrides: list[str] | None, code: int) -> None:
    console = stdout if judged.run is not None else stderr
    print_findings(judged.findings, run_file, judged.text, console, overrides)
    if judged.run is not None:
        _print_sheet(judged.run.plan)
    console.print(f"{run_file}: {render_count(judged.findings)}")
    if repairs := render_repairs(judged.findings):
        console.print(f"{repairs}: surefoot check {run_file} --fix")
    if judged.findings:
        codes = dict.fromkeys(finding.code for finding in judged.findings)
        console.print(_("More: surefoot explain {code}").format(code=next(iter(codes))))
    if code == OK:
        stdout.print(_("Next: surefoot train {file}").format(file=again(run_file, overrides)))


def _print_plan(planned: Plan) -> None:
    described = describe(planned)
    width = max(cell_len(name) for name, _text in described)
    for name, text in described:
        stdout.print(Text(padded(name, width + 2), style="bold").append(text, style="not bold"))
    stdout.print()
    _print_sheet(planned)


def _print_sheet(planned: Plan) -> None:
    for line in sheet_lines(planned.sheet):
        stdout.print(Text(line))
    stdout.print()
