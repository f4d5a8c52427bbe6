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
    return _translations.gettext(message)


def N_(message: str) -> str:
    """Marks a message that is translated later, when it is shown."""
    return message


def _from_environment() -> Language:
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            return "zh" if value.lower().startswith("zh") else "en"
    name = locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
