"""The language of the words shown: English, or 简体中文 through gettext."""

from __future__ import annotations

import gettext
import locale
import os
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh"]
_LOCALE_FOLDER = Path(__file__).parent / "locale"
_translations: gettext.NullTranslations = gettext.NullTranslations()


def choose(language: Language | Literal["auto"]) -> Language:
    """Sets the language for the process; `auto` follows the environment, as gettext does."""
    global _translations
    chosen: Language = _from_environment() if language == "auto" else language
    if chosen == "zh":
        _translations = gettext.translation("surefoot", _LOCALE_FOLDER, languages=["zh_CN"])
    else:
        _translations = gettext.NullTranslations()
    return chosen


def _(message: str) -> str:
    """The message in the language chosen."""
    # gettext's translation of an empty text is the header of the catalog.
    return _translations.gettext(message) if message else ""


def N_(message: str) -> str:
    """Marks a message that is translated later, when it is shown."""
    return message


def translate_libraries() -> None:
    """Lends our 简体中文 to libraries that ask gettext's global domain, as typer does."""
    gettext.bindtextdomain("surefoot", str(_LOCALE_FOLDER))
    gettext.textdomain("surefoot")
    os.environ["LANGUAGE"] = "zh_CN"


def _is_known(name: str) -> bool:
    return name.startswith(("zh", "en")) or name.partition(".")[0] in ("c", "posix")


def _from_environment() -> Language:
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            # LANGUAGE may list several, the dearest first: fr:zh_CN:en.
            known = [name[:2] for name in value.lower().split(":") if _is_known(name)]
            return "zh" if known[:1] == ["zh"] else "en"
    name = locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
