"""Pictures from a finished run, beside those of its base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from surefoot.engine.assemble import (
    attach,
    load_family,
    load_trained,
    open_checkpoints,
    open_device,
)
from surefoot.engine.preview import draw_previews, write_sheet
from surefoot.finding import Finding, Refused
from surefoot.language import N_
from surefoot.plan import Plan, read_plan


def sample_run(
    run_folder: Path,
    prompts: Sequence[str],
    *,
    seed: int,
    guidance: float,
    steps: int,
    out: Path | None,
) -> Path:
    """Draws each prompt with the base model and with the trained one; returns the sheet.

    Raises:
        Refused: If the folder holds no run, or one without a checkpoint.
    """
    # A run folder may have been moved or copied since it was written.
    plan = replace(_read(run_folder), run_folder=run_folder.resolve())
    state = open_checkpoints(plan).read_last([])
    if state is None:
        raise _refused(run_folder, N_("no checkpoint yet"))
    chosen = tuple(prompts) or plan.config.preview.prompts
    if not chosen:
        raise Refused([Finding("SF048", "error", "")])
    preview = plan.config.preview.model_copy(
        update={"prompts": chosen, "seed": seed, "guidance": guidance, "steps": steps}
    )
    folder = out or _next_folder(plan.run_folder / "samples")
    family = load_family(plan, open_device(plan.device))
    # The font on the sheet, Pillow's own, has Latin letters only.
    rows = [("base", draw_previews(family, preview, plan.resolution, folder / "base"))]
    tuned = attach(plan, family)
    load_trained(tuned, {**state.tensors, **state.averages})
    trained = draw_previews(family, preview, plan.resolution, folder / "trained")
    rows.append(("trained", trained))
    write_sheet(folder / "sheet.png", rows, chosen)
    return folder / "sheet.png"


def _read(run_folder: Path) -> Plan:
    try:
        return read_plan(run_folder)
    except OSError:
        raise _refused(run_folder, N_("it has no plan.json")) from None
    except ValueError as error:
        raise _refused(run_folder, str(error).splitlines()[0]) from None


def _refused(folder: Path, reason: str) -> Refused:
    return Refused([Finding("SF047", "error", "", {"folder": str(folder), "reason": reason})])


def _next_folder(samples: Path) -> Path:
    number = 1
    while (samples / f"sample-{number:03d}").exists():
        number += 1
    return samples / f"sample-{number:03d}"
