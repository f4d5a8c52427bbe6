"""Trains one case by surefoot's own parts."""

from __future__ import annotations

import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import final

import diffusers
import torch
import transformers
from rich.console import Console

from benchmarks.demo_variant import Prepared, prepare
from benchmarks.study.cases import Case
from benchmarks.study.results import Outcome, Protocol
from surefoot.data.encoded import EncodedPictures
from surefoot.engine.assemble import assemble, validation_pictures
from surefoot.engine.events import Events, read_events
from surefoot.engine.loop import train
from surefoot.engine.progress import Reporter
from surefoot.engine.session import Session
from surefoot.engine.validation import Validation
from surefoot.finding import Refused
from surefoot.optim.root_mean_square import root_mean_squares

_LAST_STEPS = 10
_VALIDATION_SEED = 0  # the same for all seeds, so that their spread is that of the training


@final
class Trainer:
    """Keeps what all cases share: encoded held-out pictures and the untrained loss."""

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        """`folder`, of this process alone, holds the latent cache and the run that is trained."""
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        self._folder = folder
        self._protocol = protocol
        self._reporter = Reporter(Console(stderr=True, quiet=True))
        self._held_out: EncodedPictures | None = None
        self._untrained = float("nan")

    def train(self, case: Case) -> Outcome:
        """Trains one case; one that diverges is an outcome too."""
        started = time.monotonic()
        prepared = prepare(
            "case",
            self._folder,
            seed=case.seed,
            train={"steps": self._protocol.steps, "batch_size": self._protocol.batch},
            tuning=case.method.tuning,
            optimizer=case.optimizer(),
        )
        run_folder = prepared.plan.run_folder
        shutil.rmtree(run_folder, ignore_errors=True)
        run_folder.mkdir(parents=True)
        try:
            with Events(run_folder, 0) as events:
                session = assemble(prepared.plan, prepared.found, events, None)
                validation = self._validation(prepared, session)
                loss, refused = self._train(session, validation)
            return self._outcome(session, loss, refused, time.monotonic() - started)
        finally:
            shutil.rmtree(run_folder, ignore_errors=True)

    def _train(self, session: Session, validation: Validation) -> tuple[float, bool]:
        try:
            # Without the loop's own validation, which would ask the untrained model every time.
            train(replace(session, validation=None), self._reporter)
        except Refused:
            return float("nan"), True
        return validation.loss(session.device), False

    def _validation(self, prepared: Prepared, session: Session) -> Validation:
        plan, family = prepared.plan, session.family
        if self._held_out is None:
            self._held_out = _encoded(prepared, session)
        validation = Validation(
            self._held_out,
            family,
            session.conditioning,
            plan.config.captions,
            draws=plan.config.validation.draws,
            batch_size=plan.config.train.batch_size,
            seed=_VALIDATION_SEED,
        )
        if self._untrained != self._untrained:  # NaN until the first case
            self._untrained = validation.loss(session.device)
        return validation

    def _outcome(self, session: Session, loss: float, refused: bool, seconds: float) -> Outcome:
        steps = [e for e in read_events(session.plan.run_folder) if e["event"] == "step"]
        losses = [float(str(event["loss"])) for event in steps]
        worked = sum(float(str(event["seconds"])) for event in steps)
        train_loss = statistics.fmean(losses[-_LAST_STEPS:])
        finite = all(torch.isfinite(torch.tensor([loss, *losses])))
        return Outcome(
            untrained=self._untrained,
            loss=loss,
            train_loss=train_loss,
            up_rms=_mean_rms(session, "lora_up"),
            down_rms=_mean_rms(session, "lora_down"),
            diverged=refused or not finite,
            seconds=round(seconds, 2),
            images_per_second=round(len(steps) * self._protocol.batch / worked, 1),
        )


def _encoded(prepared: Prepared, session: Session) -> EncodedPictures:
    pictures = validation_pictures(prepared.plan, prepared.found, session.family, None)
    pictures.prepare(lambda: None)
    return pictures


def _mean_rms(session: Session, kind: str) -> float:
    found = root_mean_squares(
        item.parameter for item in session.tuned.trainables if item.kind == kind
    )
    return statistics.fmean(found) if found else 0.0
