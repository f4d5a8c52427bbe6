"""Progress on the terminal: a bar where there is one, a line every half minute where not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from surefoot.finding import Finding
from surefoot.language import _
from surefoot.wording import say

_LINE_SECONDS = 30.0


@final
class Reporter:
    """Says on stderr how far the run is."""

    def __init__(self, console: Console) -> None:
        """Takes the console to write to."""
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None
        self._last_line = 0.0

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[None]:
        """Shows one stage while it lasts."""
        if self._task is not None:  # a preview in the middle of training has no bar of its own
            yield
            return
        self._last_line = time.monotonic()
        if not self.console.is_terminal:
            self.console.print(name)
        with self._progress:
            self._task = self._progress.add_task(name, total=total, completed=done, said="")
            try:
                yield
            finally:
                self._progress.remove_task(self._task)
                self._task = None

    def advance(self, said: str = "") -> None:
        """One further, with a few words of figures."""
        if self._task is None:
            return
        self._progress.update(self._task, advance=1, said=said)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line > _LINE_SECONDS:
            self._last_line = now
            task = self._progress.tasks[0]
            left = (task.total or 0) - task.completed
            to_go = _("{left:.0f} to go").format(left=left)
            self.console.print("  " + "  ".join(part for part in (said, to_go) if part))

    def finding(self, finding: Finding, helps: bool = False) -> None:
        """A finding made while running, with what helps where asked."""
        said = say(finding)
        self.line(f"{said.level}[{finding.code}] {said.sentence}")
        for text in said.helps if helps else ():
            self.line(_("help: ") + text)

    def line(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(text, highlight=False)
