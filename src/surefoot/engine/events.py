"""What happened, as it happens: events.jsonl, and TensorBoard beside it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Self, final

from torch.utils.tensorboard import SummaryWriter

from surefoot.finding import Finding

EventValue = str | int | float | bool | dict[str, object]


@final
class Events:
    """Appends to a run's events.jsonl; each line is whole before the next begins."""

    def __init__(self, run_folder: Path, first_step: int) -> None:
        """Opens the log; scalars of steps that will be done again are hidden in TensorBoard."""
        self._file = (run_folder / "events.jsonl").open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(run_folder / "tensorboard"), purge_step=first_step)

    def __enter__(self) -> Self:
        """Used in a `with`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes both files, and says why if an error ends the run."""
        if kind is not None:
            self.write("ended", reason=kind.__name__)
        self._file.close()
        self._writer.close()

    def write(self, event: str, **values: EventValue) -> None:
        """Appends one event with the time in seconds since 1970."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        self._file.write(line + "\n")
        self._file.flush()

    def finding(self, finding: Finding) -> None:
        """Appends a finding made while running."""
        self.write("finding", finding=finding.as_json())

    def scalars(self, event: str, step: int, **values: float) -> None:
        """Appends numbers of a step, and draws them in TensorBoard."""
        self.write(event, step=step, **values)
        for name, value in values.items():
            self._writer.add_scalar(f"{event}/{name}", value, step)


def read_events(run_folder: Path) -> list[dict[str, object]]:
    """All whole events of a run, oldest first; a line cut short by a kill is left out."""
    path = run_folder / "events.jsonl"
    events: list[dict[str, object]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
