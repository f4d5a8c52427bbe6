"""Keeps the last checkpoint from before a run came to harm, which later ones would push out."""

from __future__ import annotations

import shutil

from surefoot.engine.session import Session


def keep_last_good(session: Session, done: int) -> None:
    """Copies it to `best/`, unless a better one is kept there by its validation loss.

    It is the newest that is no later than the last verdict without harm; there may be none. Nothing
    is done where the verdict after `done` steps is one without harm.

    Raises:
        OSError: If the disk is full.
    """
    good = session.watch.last_good
    if not session.plan.config.watch.keep_best or session.best.steps():
        return
    if good == done:
        return
    whole = [
        path for path in session.checkpoints.steps() if int(path.name.removeprefix("step-")) <= good
    ]
    if whole:
        target = session.plan.run_folder / "best" / whole[-1].name
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(whole[-1], part)
        part.rename(target)
        session.events.write("last_good", step=done, folder=target.name)
