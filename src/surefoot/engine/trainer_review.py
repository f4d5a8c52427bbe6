"""`LoopReview` as a callback of transformers' Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from surefoot.engine.loop_review import LoopReview
from surefoot.finding import Finding


class TrainerReview(TrainerCallback):
    """`Trainer(..., callbacks=[TrainerReview()])`.

    Reviews model and optimizer when training begins, tells after three steps what has not moved,
    and looks at the losses that the Trainer logs (`logging_steps`). With `on_trouble = "stop"` an
    error ends the training.
    """

    def __init__(
        self,
        report: Callable[[str], object] = print,
        on_trouble: Literal["warn", "stop"] = "warn",
    ) -> None:
        self._review = LoopReview(self._say)
        self._report = report
        self._on_trouble = on_trouble
        self._speaks = True

    @property
    def findings(self) -> list[Finding]:
        """All so far."""
        return self._review.findings

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        **_others: object,
    ) -> None:
        """Reviews."""
        # All processes look, so that all end together; one speaks.
        self._speaks = state.is_world_process_zero
        if model is not None and optimizer is not None:
            losses = max(1, state.max_steps // max(1, int(state.logging_steps)))
            self._review.begin(model, optimizer, losses)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_others: object,
    ) -> None:
        """Takes the loss."""
        if logs is not None and "loss" in logs:
            self._review.after_step(logs["loss"])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_others: object,
    ) -> None:
        """Ends the training where that is asked."""
        errors = any(finding.level == "error" for finding in self.findings)
        if errors and self._on_trouble == "stop":
            control.should_training_stop = True

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_others: object,
    ) -> None:
        """Tells of a short training too."""
        self._review.end()

    def _say(self, text: str) -> None:
        if self._speaks:
            self._report(text)
