"""TOML, each key with its line."""

from __future__ import annotations

import tomllib

from surefoot.config.lines import lines_of
from surefoot.importers.document import Document, Unreadable, flattened
from surefoot.language import N_


def read_toml(text: str, below: str = "") -> Document:
    """Reads a TOML file.

    Args:
        text: The text.
        below: A key under which all is put.

    Raises:
        Unreadable: With the parser's own reason, which names the line.
    """
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise Unreadable(str(error)) from None
    except RecursionError:
        raise Unreadable(N_("nested too deep")) from None
    return Document("toml", flattened({below: values} if below else values), lines_of(text))
