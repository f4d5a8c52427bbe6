"""The page of a code: what it says, why, what to do, who found out."""

from __future__ import annotations

import difflib
import re

from rich.text import Text

from surefoot.language import _
from surefoot.wording import WORDS


def known_code(asked: str) -> str:
    """The code that is meant by `SF101`, `sf101` or `101`; empty if there is none."""
    code = asked.strip().upper()
    code = f"SF{code}" if code.isdigit() else code
    return code if code in WORDS else ""


def nearest_codes(asked: str, count: int = 4) -> list[str]:
    """Codes that may have been meant, in their order."""
    # Letters that are often typed for digits.
    read = asked.strip().upper().translate(str.maketrans("OIL", "011"))
    digits = re.fullmatch(r"(?:SF)?(\d{1,9})", read)
    if digits is None:
        near = difflib.get_close_matches(read, WORDS, n=count, cutoff=0.5)
        return sorted(near) or sorted(WORDS)[:count]
    number = int(digits[1])
    return sorted(sorted(WORDS, key=lambda code: abs(int(code[2:]) - number))[:count])


def explained(code: str) -> Text:
    """The page of one code; a name in braces stands for a figure or a name of a run."""
    words = WORDS[code]
    page = Text()
    page.append(code, style="bold").append(f"  {_(words.sentence)}\n", style="bold")
    if words.cause:
        page.append(_("cause: "), style="cyan").append(f"{_(words.cause)}\n")
    for note in words.notes:
        page.append(_("note: "), style="cyan").append(f"{_(note)}\n")
    for advice in words.helps:
        page.append(_("help: "), style="green").append(f"{_(advice)}\n")
    if words.source:
        page.append(_("source: "), style="cyan").append(f"{words.source}\n")
    return page
