"""The watch in every run: takes the figures, gives a verdict every so often, tells of trouble."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, final

from surefoot.engine.events import Events, read_events
from surefoot.engine.preview_look import look_at
from surefoot.engine.progress import Reporter
from surefoot.engine.stride import Strides
from surefoot.engine.watch_verdict import History, Judged, Look, Outlook, Stride, judge, smoothed
from surefoot.finding import Finding
from surefoot.language import N_, _
from surefoot.optim.facts import facts_of
from surefoot.plan import Plan
from surefoot.sheet import scheduled_rates

_SAID = {
    "no verdict yet": N_("no verdict yet"),
    "learning": N_("learning"),
    "learning nothing": N_("learning nothing"),
    "overfitting": N_("overfitting"),
    "diverging": N_("diverging"),
    "noise": N_("previews turn to noise"),
}


class Stopped(Exception):
    """The watch has ended the run, as `[watch] on_trouble` asks."""

    def __init__(self, finding: Finding, step: int) -> None:
        super().__init__(f"{finding.code} at step {step}")
        self.finding = finding
        self.step = step


@final
class Watch:
    """Holds a run's figures and judges them."""

    def __init__(self, plan: Plan, strides: Strides, events: Events, first_step: int) -> None:
        """Takes up the figures of the steps before `first_step` from the run's events."""
        self._config = plan.config.watch
        self._every = plan.watch_every
        self._vae_factor = plan.vae_factor
        self._strides = strides
        self._events = events
        self._outlook = outlook_of(plan)
        before = read_events(plan.run_folder)
        self._history = history_of(before, first_step)
        self._verdicts = _verdicts_of(before, first_step)

    def before_step(self, done: int) -> None:
        """To be called when `done` steps are done, before the next."""
        if self._due(done + 1):
            self._strides.before_step()

    def stepped(self, done: int, loss: float, norm: float) -> None:
        """Takes a step's loss and norm of gradients, and how far it went where that is measured."""
        self._history.losses[done] = loss
        self._history.norms[done] = norm
        if self._due(done):
            strides = self._strides.read()
            self._history.strides[done] = strides
            told: dict[str, object] = {kind: asdict(stride) for kind, stride in strides.items()}
            self._events.write("strides", step=done, kinds=told)

    def validated(self, done: int, loss: float) -> bool:
        """Takes a validation loss; returns whether it is the lowest after any step so far."""
        self._history.validations[done] = loss
        return done > 0 and loss <= min(self._history.validations.values())

    def previewed(self, done: int, pictures: Sequence[Path]) -> None:
        """Takes previews."""
        look = look_at(pictures, self._vae_factor)
        self._history.previews[done] = look
        self._events.write("look", step=done, **asdict(look))

    def judge(self, done: int, reporter: Reporter) -> Finding | None:
        """Gives the verdict where one is due, and tells of it where it is another than before.

        Returns what it finds wrong, told or not; `None` where no verdict is due.
        """
        seen = done in self._history.validations or done in self._history.previews
        if done == 0 or not (self._due(done) or seen):
            return None
        judged = judge(self._history, self._outlook)
        loss = smoothed(self._history, self._outlook.window)
        self._events.write("verdict", step=done, verdict=judged.verdict, loss=loss)
        told = list(self._verdicts.values())[-1:] == [judged.verdict]
        self._verdicts[done] = judged.verdict
        if not told or (judged.finding is not None and self._stops):
            self._tell(done, judged, loss, reporter)
        return judged.finding

    @property
    def last_good(self) -> int:
        """The last step whose verdict was not that the weights come to harm; 0 without one."""
        good = [step for step, said in self._verdicts.items() if said not in ("diverging", "noise")]
        return max(good, default=0)

    @property
    def _stops(self) -> bool:
        return self._config.on_trouble == "stop"

    def _tell(self, done: int, judged: Judged, loss: float, reporter: Reporter) -> None:
        window = min(self._outlook.window, len(self._history.losses))
        reporter.line(
            _("watch, step {step}: {verdict} (loss {loss:.4f}, mean of {window} steps)").format(
                step=done, verdict=_(_SAID[judged.verdict]), loss=loss, window=window
            )
        )
        if judged.finding is None:
            return
        self._events.finding(judged.finding)
        reporter.finding(judged.finding, helps=True)

    def _due(self, done: int) -> bool:
        return done > 0 and (done % self._every == 0 or done == self._outlook.steps)


def outlook_of(plan: Plan) -> Outlook:
    """What of the plan, and of the findings beside it, the verdict needs."""
    return Outlook(
        rates=scheduled_rates(plan.config, plan.lr),
        finds_rate=facts_of(plan.config.optimizer).finds_rate,
        foretold=frozenset(_foretold(plan.run_folder / "findings.json")),
    )


def _foretold(file: Path) -> list[str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(item["code"]) for item in found]


def _verdicts_of(events: Sequence[Mapping[str, object]], first_step: int) -> dict[int, str]:
    """The verdicts of the steps up to `first_step`, in their order."""
    found = {
        int(str(event["step"])): str(event["verdict"])
        for event in events
        if event["event"] == "verdict"
    }
    return {step: found[step] for step in sorted(found) if step <= first_step}


def history_of(events: Sequence[Mapping[str, object]], first_step: int) -> History:
    """The figures of the steps up to `first_step`; what was done again counts once."""
    history = History()
    if not first_step:
        return history
    for event in cast(Sequence[Mapping[str, Any]], events):
        step = int(event.get("step", 0))
        if step > first_step:
            continue
        match event["event"]:
            case "step":
                history.losses[step] = float(event["loss"])
                history.norms[step] = float(event["gradient_norm"])
            case "validation":
                history.validations[step] = float(event["loss"])
            case "look":
                history.previews[step] = Look(float(event["roughness"]), float(event["contrast"]))
            case "strides":
                history.strides[step] = {
                    kind: Stride(**values) for kind, values in event["kinds"].items()
                }
            case _:
                pass
    return history
