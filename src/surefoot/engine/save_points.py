"""When a checkpoint is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import final

from surefoot.plan import Plan


@final
class SavePoints:
    """Steps and epochs by the plan, minutes by the clock; each kind asks for itself."""

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds; they count from here on."""
        self._plan = plan
        self._clock = clock
        self._last = clock()

    def due(self, done: int) -> bool:
        """Whether to save after `done` steps."""
        minutes = self._plan.config.save.every_minutes
        late = minutes != "off" and self._clock() - self._last >= 60 * minutes
        return late or self._plan.saves_after(done)

    def saved(self) -> None:
        """To be called after a checkpoint was written."""
        self._last = self._clock()
