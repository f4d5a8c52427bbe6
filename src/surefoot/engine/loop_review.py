"""Looks on in a training loop that is none of ours: before it, at its first steps, at its loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surefoot.engine.watch_verdict import History, Outlook, judge
from surefoot.engine.wiring import Movement
from surefoot.finding import Finding
from surefoot.optim.grouping import Trained, read_trained
from surefoot.optim.review import in_words, review_training, unwrapped

_FIRST_STEPS = 3  # the gradient of lora_down is zero at the first, since lora_up is
_FETCH_EVERY = 10  # losses: each transfer from the device waits for it


@final
class LoopReview:
    """Reviews a model and its optimizer, and looks on while they are trained.

        looking_on = LoopReview()
        looking_on.begin(model, optimizer)
        for batch in batches:
            ...
            optimizer.step()
            looking_on.after_step(loss)

    It changes nothing. Steps are counted where they are taken, so that with gradient accumulation
    `after_step` may follow every batch; its losses are then those of batches.

    Attributes:
        findings: All so far.
    """

    def __init__(self, report: Callable[[str], object] = print) -> None:
        """Report gets what there is to say; with several processes give `accelerator.print`."""
        self.findings: list[Finding] = []
        self._report = report
        self._history = History()
        self._outlook = Outlook([])
        self._waiting: list[Tensor] = []
        self._first_steps: _FirstSteps | None = None

    def begin(self, model: nn.Module, optimizer: Optimizer, losses: int = 1000) -> None:
        """Before the first step; reports the review.

        Args:
            model: As it will be trained, not sharded over several processes.
            optimizer: Of whatever library, or Accelerate's around it.
            losses: How many `after_step` will get; a twentieth of them, 10 to 50, is smoothed over.

        Raises:
            ValueError: As `review_training`.
        """
        review = review_training(model, optimizer)
        self.findings += review.findings
        self._report(str(review))
        self._outlook = Outlook([1.0] * losses)
        self._first_steps = _FirstSteps(model, unwrapped(optimizer), self._found)

    def after_step(self, loss: Tensor | float) -> None:
        """Takes a loss; tensors are fetched from their device ten at a time."""
        if not isinstance(loss, Tensor):
            self._look_at([loss])
            return
        self._waiting.append(loss.detach().float().reshape(()))
        if len(self._waiting) == _FETCH_EVERY:
            self._fetch()

    def end(self) -> None:
        """After the last step; tells what is left to tell of a short loop."""
        if self._first_steps is not None:
            self._first_steps.end()
        if self._waiting:
            self._fetch()

    def _fetch(self) -> None:
        losses: list[float] = torch.stack(self._waiting).tolist()
        self._waiting = []
        self._look_at(losses)

    def _look_at(self, losses: Sequence[float]) -> None:
        for loss in losses:
            step = len(self._history.losses) + 1
            self._history.losses[step] = loss
            if not math.isfinite(loss):
                self._found(Finding("SF549", "error", "", {"step": step}))
                return
        finding = judge(self._history, self._outlook).finding
        if finding is not None and finding.code == "SF523":
            values = {"loss": finding.values["loss"], "level": finding.values["level"]}
            self._found(Finding("SF548", "error", "", values))

    def _found(self, finding: Finding) -> None:
        """Each code once."""
        if finding.code not in {item.code for item in self.findings}:
            self.findings.append(finding)
            self._report(in_words(finding))


@final
class _FirstSteps:
    """Counts an optimizer's steps, and tells after the first few what they have not reached."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, found: Callable[[Finding], None]
    ) -> None:
        self._trained: list[Trained] = read_trained(model)
        self._movement: Movement | None = Movement(self._trained, optimizer)
        self._without = {item.name: item.parameter for item in self._trained}
        self._found = found
        self._steps = 0
        # The gradients are still there; afterwards a loop frees them.
        self._hook = optimizer.register_step_post_hook(self._stepped)

    def _stepped(self, _optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        self._steps += 1
        self._without = {n: item for n, item in self._without.items() if item.grad is None}
        if self._steps == _FIRST_STEPS:
            self.end()

    def end(self) -> None:
        """Tells, once."""
        self._hook.remove()
        if self._movement is None or not self._steps:
            return
        unmoved, self._movement = self._movement.unmoved(), None
        if self._without:
            values = {"count": len(self._without), "example": next(iter(self._without))}
            self._found(Finding("SF532", "error", "", {**values, "steps": self._steps}))
        still = [name for name in unmoved if name not in self._without]
        if still:
            values = {"count": len(still), "example": still[0]}
            self._found(Finding("SF501", "error", "", {**values, "steps": self._steps}))
