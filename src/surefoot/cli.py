"""The command line: verbs on one noun, the run."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import typer
from typer.main import get_group

from surefoot.command_help import language_asked, translate_help
from surefoot.language import choose, translate_libraries
from surefoot.terminal import OK, stdout

_HELP = """Fine-tunes diffusion models, and says before a run what will go wrong with it.

A run is one file, run.toml. `surefoot demo` writes one, trains it on the pictures and the small
model that come along, and needs no GPU and no download.

Then, for your own: `plan` shows what would happen, `check` says whether it can work, `train`
does it; after an interruption the same `train` goes on."""
_EPILOG = (
    "Exit codes: 0 fine; 1 findings of level error, or the run failed; 2 something cannot "
    "be read or used; 3 the watch stopped the run; 130 interrupted."
)

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
    command = get_group(command_line(_verb_asked(sys.argv[1:])))
    translate_help(command)
    command()


def _print_version(asked: bool) -> None:
    if asked:
        from surefoot.release import VERSION

        stdout.print(VERSION)
        raise typer.Exit(OK)


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


def _judging(app: typer.Typer) -> None:
    from surefoot.check_command import check, explain, plan

    app.command()(plan)
    app.command()(check)
    app.command()(explain)


def _probing(app: typer.Typer) -> None:
    from surefoot.probe_command import probe

    app.command()(probe)


def _importing(app: typer.Typer) -> None:
    from surefoot.importer_commands import import_file

    app.command("import")(import_file)


def _running(app: typer.Typer) -> None:
    from surefoot.run_commands import demo, sample, train

    app.command()(train)
    app.command()(demo)
    app.command()(sample)


def _adapters(app: typer.Typer) -> None:
    from surefoot.adapter_commands import convert, extract, inspect_file, merge, resize

    app.command("inspect")(inspect_file)
    app.command()(convert)
    app.command()(merge)
    app.command()(extract)
    app.command()(resize)


def _describing(app: typer.Typer) -> None:
    from surefoot.schema_command import schema

    app.command()(schema)


VERBS: dict[Callable[[typer.Typer], None], tuple[str, ...]] = {
    _judging: ("plan", "check", "explain"),
    _probing: ("probe",),
    _importing: ("import",),
    _running: ("train", "demo", "sample"),
    _adapters: ("inspect", "convert", "merge", "extract", "resize"),
    _describing: ("schema",),
}


def command_line(verb: str = "") -> typer.Typer:
    """The command line with all verbs, or with those that come with `verb` alone.

    The modules of the others are then not loaded, nor their options read, so that `surefoot check`
    answers sooner.
    """
    app = typer.Typer(
        name="surefoot",
        help=_HELP,
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    for add, names in VERBS.items():
        if verb in names or not verb:
            add(app)
    return app


def _verb_asked(arguments: Sequence[str]) -> str:
    """The verb if it comes first, else ""."""
    known = {name for names in VERBS.values() for name in names}
    return arguments[0] if arguments and arguments[0] in known else ""
