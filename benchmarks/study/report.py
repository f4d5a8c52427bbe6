"""Writes the report of a study: tables, plots, and the pages of the documentation."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

from benchmarks.demo_variant import prepare
from benchmarks.study.cases import METHODS, SETTINGS, optimizer_section
from benchmarks.study.curves import study_of
from benchmarks.study.plots import write_plot
from benchmarks.study.results import Protocol, Result, of_protocol
from benchmarks.study.tables import tables
from benchmarks.study.words import WORDS, Language

_DOCS = Path(__file__).parents[2] / "docs"
_PLOT = "adafactor-study.png"
_PAGES: dict[Language, str] = {"en": "adafactor-study.md", "zh_CN": "adafactor-study.zh-CN.md"}
_BEGIN, _END = "<!-- begin generated -->", "<!-- end generated -->"


def latest_protocol(results: list[Result], series: str) -> Protocol | None:
    """The protocol of the last result of a series."""
    found = [result.protocol for result in results if result.protocol.series == series]
    return found[-1] if found else None


def write_report(results: list[Result], protocol: Protocol, folder: Path, docs: bool) -> Path:
    """Writes `report.md`, its 简体中文 version and the plot; with `docs`, the pages too.

    Returns:
        The English report.
    """
    study = study_of(of_protocol(results, protocol).values())
    write_plot(study, folder / _PLOT)
    names: dict[Language, str] = {"en": "report.md", "zh_CN": "report.zh-CN.md"}
    for language, name in names.items():
        text = tables(study, protocol, default_rate, language)
        figure = WORDS[language]["figure"]
        (folder / name).write_text(f"![{figure}]({_PLOT})\n\n{text}\n", encoding="utf-8")
        if docs:
            _write_page(_DOCS / _PAGES[language], f"![{figure}](images/{_PLOT})\n\n{text}")
    if docs:
        write_plot(study, _DOCS / "images" / _PLOT)
    return folder / names["en"]


@cache
def default_rate(setting: str, method: str) -> float:
    """The learning rate that surefoot gives to `auto`."""
    tuning = next(item.tuning for item in METHODS if item.name == method)
    section = next(optimizer_section(item) for item in SETTINGS if item == setting)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(
            "default", Path(folder), seed=0, train={"steps": 1}, tuning=tuning, optimizer=section
        )
    return prepared.plan.lr


def _write_page(page: Path, generated: str) -> None:
    text = page.read_text(encoding="utf-8")
    between = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    if not between.search(text):
        raise ValueError(f"{page} has no place between {_BEGIN} and {_END}")
    filled = f"{_BEGIN}\n{generated}\n{_END}"
    page.write_text(between.sub(lambda _match: filled, text), encoding="utf-8")
