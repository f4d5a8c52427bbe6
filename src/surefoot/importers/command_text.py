"""Command lines in .sh, .bat and .txt files, and files of variables: read, never run."""

from __future__ import annotations

import re
from collections.abc import Iterator

from surefoot.importers.document import Document, Leaf, Unreadable
from surefoot.language import N_

_TOKEN = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^\s"'])+""")
_CONTINUED = re.compile(r"[\\^`]\s*$")
_REMARK = re.compile(r"\s*(?:#|::|rem\b)", re.IGNORECASE)
# NAME=value, export NAME=value, set NAME=value, set "NAME=value"
_ASSIGNED = re.compile(r"""\s*(?:export\s+|set\s+)?(?:"(\w+)=([^"]*)"|(\w+)=(.*?))\s*$""")
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)|%(\w+)%")
_QUOTED = re.compile(r"""^(["'])(.*)\1$""", re.DOTALL)
_SCRIPT = re.compile(r"[\w.-]+\.py$")


def read_commands(text: str) -> list[Document]:
    """Each command that runs a Python script with arguments, in the file's order.

    Variables that the file itself sets are put in; others stay as they are written.
    """
    return [document for tokens in _commands(text) if (document := _command(tokens)) is not None]


def read_variables(text: str) -> Document:
    """A file of `NAME=value` lines, as shells read them.

    Raises:
        Unreadable: If a line is something else.
    """
    values: dict[str, Leaf] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or _REMARK.match(line):
            continue
        found = _ASSIGNED.fullmatch(line)
        if found is None:
            raise Unreadable(N_("a line that is not NAME=value"), number)
        name, value = _assigned(found)
        values[name] = _put_in(_unquoted(re.sub(r"\s#.*$", "", value).strip()), values)
        lines[name] = number
    if not values:
        raise Unreadable(N_("no line of NAME=value"))
    return Document("env", values, lines)


def _commands(text: str) -> Iterator[list[tuple[str, int]]]:
    """The words of each command, with their lines."""
    variables: dict[str, Leaf] = {}
    words: list[tuple[str, int]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if _REMARK.match(line):
            continue
        body = _CONTINUED.sub("", line)
        if not words and (assigned := _ASSIGNED.fullmatch(line)):
            name, value = _assigned(assigned)
            variables[name] = _unquoted(value.strip())
            continue
        tokens = [token[0] for token in _TOKEN.finditer(body)]
        words += [(_put_in(_unquoted(token), variables), number) for token in tokens]
        if body == line and words:
            yield words
            words = []
    if words:
        yield words


def _command(words: list[tuple[str, int]]) -> Document | None:
    """What a script is given: `--key`, `--key value ...`, `--key=value`."""
    at = next((place for place, (word, _line) in enumerate(words) if _SCRIPT.search(word)), None)
    if at is None:
        return None
    given: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    key = ""
    for word, line in words[at + 1 :]:
        if word in ("&&", ";", "|", "&"):
            break
        if word.startswith("--") and len(word) > 2:
            key, sign, value = word[2:].partition("=")
            given[key] = [value] if sign else []
            lines[key] = line
        elif key:
            given[key].append(word)
    values: dict[str, Leaf] = {name: _leaf(parts) for name, parts in given.items()}
    script = re.split(r"[/\\]", words[at][0])[-1]
    return Document("command", values, lines, script)


def _assigned(found: re.Match[str]) -> tuple[str, str]:
    return found[1] or found[3], found[2] or found[4] or ""


def _leaf(parts: list[str]) -> Leaf:
    if not parts:
        return True
    return parts[0] if len(parts) == 1 else tuple(parts)


def _unquoted(text: str) -> str:
    found = _QUOTED.match(text)
    if found:
        return found[2]
    # --key="a b": the quotes stand within the word.
    return re.sub(r"""=(["'])(.*)\1$""", r"=\2", text)


def _put_in(text: str, variables: dict[str, Leaf]) -> str:
    def known(found: re.Match[str]) -> str:
        name = found[1] or found[2] or found[3]
        return str(variables.get(name, found[0]))

    return _VARIABLE.sub(known, text)
