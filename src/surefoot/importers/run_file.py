"""Another trainer's run as a run.toml, with comments for what was changed or left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import tomlkit
from tomlkit.items import AoT, Table

from surefoot.config.run import RunConfig
from surefoot.families.facts import FAMILIES
from surefoot.importers.record import TRAINER_NAMES, Setting, TheirRun
from surefoot.importers.render import reason_of, reason_words
from surefoot.importers.settle import config_of
from surefoot.language import _

_TOP = ("name", "folder", "seed")


def run_toml(run: TheirRun, file_name: str) -> str:
    """The text of a run.toml that surefoot's loader takes if it has the family.

    Args:
        run: The run.
        file_name: Where it comes from, for the comment on top.
    """
    document = tomlkit.document()
    head = _("from {file}, a file of {trainer}").format(
        file=file_name, trainer=TRAINER_NAMES[run.trainer]
    )
    if run.meaning:
        head = _("{head}, as its {meaning} reads it").format(head=head, meaning=_(run.meaning))
    for line in (head, *_family_lines(run)):
        document.add(tomlkit.comment(_plain(line)))
    written = _written(run)
    for path in _TOP:
        if path in written:
            document.add(path, tomlkit.item(written[path].value))
    for section in RunConfig.model_fields:
        settings = {
            path.partition(".")[2]: setting
            for path, setting in written.items()
            if path.startswith(f"{section}.")
        }
        if settings:
            document.add(section, _table(settings))
    for line in _left_out(run):
        document.add(tomlkit.comment(_plain(line)))
    return tomlkit.dumps(document)


def _family_lines(run: TheirRun) -> list[str]:
    if run.family in FAMILIES:
        return []
    known = ", ".join(FAMILIES)
    return [
        _("surefoot cannot train the family {family} yet, only {known}: this file is for later")
        .format(family=run.family, known=known)
    ]  # fmt: skip


def _written(run: TheirRun) -> dict[str, Setting]:
    """What they say, and what their defaults make different from surefoot's."""
    ours = config_of(run.settings).model_dump(mode="json", exclude_defaults=True)
    return {
        path: setting
        for path, setting in run.settings.items()
        if setting.key or setting.reason or path.endswith(".kind") or _has(ours, path)
    }


def _has(tables: Mapping[str, object], path: str) -> bool:
    section, _dot, name = path.partition(".")
    table = tables.get(section)
    return section in tables if not name else isinstance(table, dict) and name in table


def _table(settings: Mapping[str, Setting]) -> Table:
    table = tomlkit.table()
    # Lists of tables end a table's own keys, so they come last; what tells kinds apart is first.
    ordered = sorted(settings, key=lambda name: (name == "folders", name != "kind"))
    for name in ordered:
        setting = settings[name]
        if name == "folders":
            table.add(name, _folders(setting))
            continue
        item = tomlkit.item(list(setting.value) if isinstance(setting.value, tuple)
                            else setting.value)  # fmt: skip
        if setting.reason:
            item.comment(_plain(reason_words(setting.reason, setting.values)))
        table.add(tomlkit.key(name.split(".")), item)
    return table


def _folders(setting: Setting) -> AoT:
    tables = tomlkit.aot()
    for folder in cast(tuple[dict[str, str | int], ...], setting.value):
        table = tomlkit.table()
        for key, value in folder.items():
            item = tomlkit.item(value)
            if key == "path" and setting.reason:
                item.comment(_plain(reason_words(setting.reason, setting.values)))
            table.add(key, item)
        tables.append(table)  # pyright: ignore[reportUnknownMemberType]
    return tables


def _left_out(run: TheirRun) -> list[str]:
    lines = [
        f"  {note.key} = {note.given}: {reason_of(note)}"
        for note in run.notes
        if note.fate == "dropped" and note.matters
    ]
    return [_("left out:"), *lines] if lines else []


def _plain(text: str) -> str:
    """On one line, without signs that a comment may not have."""
    return "".join(sign if sign >= " " and sign != "\x7f" else " " for sign in text)
