"""No false alarms while training: one run of each kind; the benchmark trains them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.false_alarms import STEPS, cell, table
from benchmarks.sane_settings import METHODS, OPTIMIZERS
from benchmarks.watched import Told, watched

CHOSEN = (
    ("full", "adamw"),
    ("full in bf16", "adafactor"),
    ("lora", "adamw clipped"),
    ("lora on everything", "lion"),
    ("dora", "adafactor"),
    ("dora", "prodigy"),
    ("loha", "schedule-free"),
    ("lokr", "adafactor unscaled"),
)
QUICK: Mapping[str, Mapping[str, object]] = {"preview": {"prompts": []}, "validation": {"draws": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: they share the encoded pictures."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(("method", "optimizer"), CHOSEN)
def test_a_sane_run_is_not_cried_at(method: str, optimizer: str, folder: Path) -> None:
    overrides = (*METHODS[method], *OPTIMIZERS[optimizer])
    told = watched(folder, "sane", overrides, steps=STEPS, pictures=24, changes=QUICK)
    assert told.foretold == ()
    assert told.codes == {}
    assert list(told.validations) == [0, STEPS // 2, STEPS]
    assert set(told.verdicts.values()) <= {"learning", "no verdict yet"}


def test_the_table_shows_what_was_said_against_a_run() -> None:
    def told(*foretold: str, codes: Mapping[int, str] | None = None) -> Told:
        verdicts = {5: "no verdict yet", 10: "learning"}
        return Told(foretold, verdicts, dict(codes or {}), {}, 0, Path(), 0, 0.0)

    cells = {
        ("full", "adamw"): cell(told()),
        ("lora", "adamw"): cell(told("SF101", codes={10: "SF519"})),
    }
    assert table(cells, ["full", "lora"], ["adamw"]).splitlines() == [
        "| | full | lora |",
        "|---|---|---|",
        "| adamw | learning | **SF101, SF519** |",
    ]
