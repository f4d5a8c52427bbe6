"""The loop, in run order."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from surefoot.config.tuning import FullConfig
from surefoot.engine.attach import HALF
from surefoot.engine.last_good import keep_last_good
from surefoot.engine.noising import add_drawn_noise, losses_of
from surefoot.engine.preview import draw_previews
from surefoot.engine.progress import Reporter
from surefoot.engine.session import Session
from surefoot.engine.watch import Stopped
from surefoot.engine.wiring import Movement, check_wiring
from surefoot.finding import Finding, Refused
from surefoot.language import _
from surefoot.optim.rates import real_rates
from surefoot.optim.root_mean_square import total_norm
from surefoot.tuning.max_norm import limit_norms

_MOVED_BY = 3  # steps: the gradient of lora_down is zero at the first, since lora_up is
_REFUSED_IN_A_ROW = 3


def train(session: Session, reporter: Reporter) -> None:
    """Trains from the session's first step to the plan's last.

    Raises:
        Refused: If several gradients in a row are not finite.
        Stopped: If the watch ends the run.
        OSError: If a checkpoint cannot be written.
    """
    plan = session.plan
    if session.first_step == 0:
        _look(session, 0, reporter)
    movement = Movement(session.tuned.trainables, session.optimizer)
    refused = taken = 0
    with reporter.stage(_("training"), plan.steps, session.first_step):
        for step in range(session.first_step, plan.steps):
            started = time.monotonic()
            _set_rate(session, step)
            session.watch.before_step(step)
            loss = forward_and_backward(session, step)
            norm = gradient_norm(session)
            overflowed = False
            if math.isfinite(norm):
                step_optimizer(session)
                _limit_norms(session, step)
                refused, taken = 0, taken + 1
            elif session.scale is not None and session.scale.overflowed():
                overflowed = True
                session.events.scalars("loss_scale", step + 1, factor=session.scale.factor)
            else:
                refused = _refuse(session, step, norm, refused)
            session.optimizer.zero_grad(set_to_none=True)
            if session.average is not None:
                session.average.update(step)
            seconds = time.monotonic() - started
            session.events.scalars("step", step + 1, loss=loss, gradient_norm=norm, seconds=seconds)
            session.events.scalars("rate", step + 1, **real_rates(session.optimizer))
            if not overflowed:
                session.watch.stepped(step + 1, loss, norm)
            if taken == _MOVED_BY and not (overflowed or refused):
                _check_movement(session, movement, reporter)
            _after(session, step + 1, reporter)
            reporter.advance(_said(session, loss, seconds))


def forward_and_backward(session: Session, step: int) -> float:
    """Adds up the gradients of a step, and steps in the last backward pass where that is asked.

    Returns the mean loss.
    """
    parts = session.plan.config.train.gradient_accumulation
    total = torch.zeros((), device=session.device)
    for part in range(parts):
        if session.in_backward is not None:
            session.in_backward.enabled = part == parts - 1
        loss = _loss(session, step, part) / parts
        (loss if session.scale is None else loss * session.scale.factor).backward()
        total += loss.detach()
    return float(total)


@torch.no_grad()
def loss_at(session: Session, step: int) -> float:
    """The loss on what a step is shown, with its noise and timesteps; nothing is trained."""
    parts = session.plan.config.train.gradient_accumulation
    return sum(float(_loss(session, step, part)) for part in range(parts)) / parts


def _loss(session: Session, step: int, part: int) -> Tensor:
    config, device = session.plan.config, session.device
    process = session.family.noise_schedule
    portion = session.feed.at(step, part)
    noised = add_drawn_noise(config.objective, process, portion.latents, portion.draws)
    half = HALF.get(config.train.precision)
    with torch.autocast(device.type, half, enabled=half is not None):
        states = session.conditioning(portion.captions)
        output = session.family.denoise(noised.noisy.to(device), noised.timestep.to(device), states)
    losses = losses_of(config.objective, process, output, noised)
    return (losses * portion.weight.to(device)).mean()


def gradient_norm(session: Session) -> float:
    """The norm of all gradients before clipping; clips where asked."""
    if session.in_backward is not None:
        return float(session.in_backward.gradient_norm())
    parameters = [item.parameter for item in session.tuned.trainables]
    if session.scale is not None:
        session.scale.divide(parameters)
    limit = session.plan.config.train.clip_grad_norm
    norm = total_norm([item.grad for item in parameters if item.grad is not None])
    # A norm that is not finite would make every gradient so, and hide where it came from.
    if limit != "off" and norm.isfinite():
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return float(norm)


def _set_rate(session: Session, step: int) -> None:
    """Sets the scheduled rates; `real_rates` tells what the optimizer makes of them."""
    factor = session.plan.schedule.factor(step)
    for group in session.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def step_optimizer(session: Session) -> None:
    """A step after the backward pass, unless it was taken within."""
    if session.in_backward is None:
        session.optimizer.step()
    if session.scale is not None:
        session.scale.fitted()
    session.tuned.weights_changed()


def _limit_norms(session: Session, step: int) -> None:
    """Scales back the updates that have grown beyond what was asked, and tells how many."""
    tuning = session.plan.config.tuning
    if not isinstance(tuning, FullConfig) and tuning.max_norm != "off":
        reduced = limit_norms(session.tuned, tuning.max_norm)
        session.events.scalars("max_norm", step + 1, layers=float(reduced))


def _refuse(session: Session, step: int, norm: float, refused: int) -> int:
    """Keeps a gradient that is not finite away from the weights."""
    bad = _not_finite(session)
    session.events.write("refused", step=step + 1, norm=str(norm), tensors=len(bad))
    if refused + 1 >= _REFUSED_IN_A_ROW:
        values = {"count": refused + 1, "step": step + 1, "example": bad[0] if bad else "?"}
        raise Refused([Finding("SF502", "error", "", dict(values))])
    return refused + 1


def _not_finite(session: Session) -> list[str]:
    """The names of the tensors whose gradient is not finite."""
    if session.in_backward is not None:
        stayed = {id(weight) for weight in session.in_backward.not_finite()}
        return [item.name for item in session.tuned.trainables if id(item.parameter) in stayed]
    return [
        item.name
        for item in session.tuned.trainables
        if item.parameter.grad is not None and not item.parameter.grad.isfinite().all()
    ]


def _check_movement(session: Session, movement: Movement, reporter: Reporter) -> None:
    check_wiring(session.tuned, session.optimizer)
    unmoved = movement.unmoved()
    if unmoved:
        values = {"count": len(unmoved), "steps": _MOVED_BY, "example": unmoved[0]}
        finding = Finding("SF501", "warning", "", dict(values))
        session.events.finding(finding)
        reporter.finding(finding)


def _after(session: Session, done: int, reporter: Reporter) -> None:
    """Validates, draws and saves, each at its own interval."""
    _look(session, done, reporter)
    if session.save_points.due(done):
        path = session.checkpoints.write(session.state(done))
        session.save_points.saved()
        session.events.write("checkpoint", step=done, folder=path.name)
    trouble = session.watch.judge(done, reporter)
    if trouble is not None:
        keep_last_good(session, done)
        if session.plan.config.watch.on_trouble == "stop":
            raise Stopped(trouble, done)


def _look(session: Session, done: int, reporter: Reporter) -> None:
    """Validation loss and previews after `done` steps, by the weights that are exported."""
    plan, preview = session.plan, session.plan.config.preview
    last = done == plan.steps
    is_best = False
    with session.averaged():
        if session.validation is not None and (done % plan.validate_every == 0 or last):
            loss = session.validation.loss(session.device)
            session.events.scalars("validation", done, loss=loss)
            reporter.line(_("step {step}: validation loss {loss:.4f}").format(step=done, loss=loss))
            is_best = session.watch.validated(done, loss)
        if preview.prompts and (done % plan.preview_every == 0 or last):
            folder = plan.run_folder / "samples" / f"step-{done:06d}"
            pictures = draw_previews(session.family, preview, plan.resolution, folder)
            session.watch.previewed(done, pictures)
            session.events.write("preview", step=done, folder=folder.name)
            check_wiring(session.tuned, session.optimizer)
    if is_best and plan.keeps_best:
        path = session.best.write(session.state(done))
        session.events.write("best", step=done, folder=path.name)


def _said(session: Session, loss: float, seconds: float) -> str:
    train = session.plan.config.train
    speed = train.batch_size * train.gradient_accumulation / seconds
    return _("loss {loss:.4f}, {speed:.1f} images/s").format(loss=loss, speed=speed)
