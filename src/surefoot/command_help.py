"""The help of the command line in the language chosen, with typer's own words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from surefoot.language import N_, Language, _

# Typer asks gettext for the translation of these; see `language.translate_libraries`.
TYPER_WORDS = (
    N_("Aborted."),
    N_("Arguments"),
    N_("Commands"),
    N_("Error"),
    N_("Missing command."),
    N_("No such command {name!r}."),
    N_("Options"),
    N_("Show this message and exit."),
    N_("Try [blue]'{command_path} {help_option}'[/] for help."),
    N_("[default: {}]"),
    N_("[env var: {}]"),
    N_("[required]"),
)
_Speaking = TyperCommand | TyperGroup | TyperArgument | TyperOption


def language_asked(arguments: Sequence[str]) -> Language | Literal["auto"]:
    """What `--lang` or SUREFOOT_LANG says, read before typer does, whose help has to obey it."""
    asked = os.environ.get("SUREFOOT_LANG", "auto")
    words = iter(arguments)
    for word in words:
        name, sign, value = word.partition("=")
        if name == "--lang":
            asked = value if sign else next(words, "auto")
        elif not word.startswith("-"):
            break  # the verb, which has options of its own
    match asked:
        case "en" | "zh":
            return asked
        case _:
            return "auto"


def translate_help(group: TyperGroup) -> None:
    """Puts the help of all verbs and their options into the language chosen."""
    for item in _speaking(group):
        text = item.help or ""
        item.help = _(text)
        if isinstance(item, TyperCommand | TyperGroup):
            epilog = item.epilog or ""
            item.epilog = _(epilog)


def help_texts(group: TyperGroup) -> list[str]:
    """Every text that `translate_help` asks a translation of; they are the command line's own."""
    texts: list[str] = []
    for item in _speaking(group):
        texts.append(item.help or "")
        if isinstance(item, TyperCommand | TyperGroup):
            texts.append(item.epilog or "")
    return list(dict.fromkeys(text for text in texts if text))


def _speaking(group: TyperGroup) -> Iterator[_Speaking]:
    for command in (group, *group.commands.values()):
        assert isinstance(command, TyperCommand | TyperGroup)
        yield command
        for parameter in command.get_params(typer.Context(command)):
            if isinstance(parameter, TyperArgument | TyperOption):
                yield parameter
