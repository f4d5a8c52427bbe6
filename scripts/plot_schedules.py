"""Draws every learning-rate schedule for docs/schedules.md: `python scripts/plot_schedules.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from surefoot.optim.schedules import Schedule

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "schedules.png"
STEPS, WARMUP = 200, 20
SCHEDULES = {
    "constant": Schedule("constant", STEPS, WARMUP),
    "linear": Schedule("linear", STEPS, WARMUP),
    "cosine": Schedule("cosine", STEPS, WARMUP),
    "cosine, end_factor = 0.2": Schedule("cosine", STEPS, WARMUP, 0.2),
    "cosine_restarts, cycles = 3": Schedule("cosine_restarts", STEPS, WARMUP, cycles=3),
    "polynomial, power = 2": Schedule("polynomial", STEPS, WARMUP, power=2.0),
    "inverse_sqrt, timescale = 20": Schedule("inverse_sqrt", STEPS, WARMUP, timescale=WARMUP),
    "rex": Schedule("rex", STEPS, WARMUP),
}


def main() -> None:
    """Writes the picture."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    for panel, (name, schedule) in zip(panels.flat, SCHEDULES.items(), strict=True):
        panel.plot(range(STEPS), [schedule.factor(step) for step in range(STEPS)], color="#1f5fa8")
        panel.axvline(WARMUP, color="#bbbbbb", linewidth=1, linestyle=":")
        panel.set_title(name, fontsize=11)
        panel.set_ylim(0, 1.05)
        panel.set_xlim(0, STEPS)
    figure.supxlabel(f"step (warm-up of {WARMUP} steps, dotted)")
    figure.supylabel("factor on the learning rate")
    # Without the version of matplotlib in it, the same curves give the same file.
    figure.savefig(PICTURE, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
