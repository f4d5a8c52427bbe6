"""The live parts of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.optim import Optimizer

from surefoot.data.encoded import EncodedPictures
from surefoot.engine.checkpoint import Checkpoints, State
from surefoot.engine.conditioning import Conditioning
from surefoot.engine.ema import MovingAverage
from surefoot.engine.events import Events
from surefoot.engine.feed import Feed
from surefoot.engine.loss_scale import LossScale
from surefoot.engine.optimizer_state import OptimizerMemory
from surefoot.engine.save_points import SavePoints
from surefoot.engine.schedule_free import ScheduleFreeAverage
from surefoot.engine.stride import Strides
from surefoot.engine.validation import Validation
from surefoot.engine.watch import Watch
from surefoot.families.family import Family
from surefoot.finding import Finding
from surefoot.optim.in_backward import StepInBackward
from surefoot.plan import Plan, settings
from surefoot.tuning.trainable import Tuned


@dataclass(frozen=True)
class Session:
    """Everything the loop needs, made by `assemble`.

    Attributes:
        average: What is shown and exported instead of the trained weights, `None` without one.
        scale: The factor on the loss of a forward pass in float16, `None` for others.
        validation: `None` without held-out pictures.
        in_backward: Steps the optimizer within the backward pass, `None` where it steps after it.
        memory: Takes the optimizer's state out for a checkpoint.
        best: Holds the checkpoint with the lowest validation loss.
        first_step: 0, or the step after the checkpoint that the run goes on from.
        findings: What there is to say of the checkpoint that it goes on from.
    """

    plan: Plan
    device: torch.device
    family: Family
    tuned: Tuned
    optimizer: Optimizer
    in_backward: StepInBackward | None
    memory: OptimizerMemory
    average: MovingAverage | ScheduleFreeAverage | None
    scale: LossScale | None
    pictures: EncodedPictures
    feed: Feed
    conditioning: Conditioning
    validation: Validation | None
    strides: Strides
    watch: Watch
    save_points: SavePoints
    checkpoints: Checkpoints
    best: Checkpoints
    events: Events
    first_step: int
    findings: tuple[Finding, ...] = ()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the model holds the weights that are shown, validated and exported."""
        if self.average is None:
            yield
        else:
            with self.average.in_place():
                yield

    def state(self, step: int) -> State:
        """What a checkpoint after `step` steps holds."""
        trainables = self.tuned.trainables
        averages = self.average.averages if self.average else []
        return State(
            step=step,
            tensors={item.name: item.parameter.detach() for item in trainables}
            | self.tuned.starts(),
            optimizer=self.memory.read(),
            averages={item.name: mean for item, mean in zip(trainables, averages, strict=False)},
            settings=settings(self.plan),
            loss_scale=self.scale.state() if self.scale else {},
        )
