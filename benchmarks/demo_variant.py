"""The demo's run with some sections replaced: what benchmarks that drive whole runs start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from surefoot.builtin import DEMO_RUN
from surefoot.config.load import Loaded, load
from surefoot.plan import Plan, resolve
from surefoot.survey import Survey, survey


@dataclass(frozen=True)
class Prepared:
    """A run, ready to be trained. It was not checked: some cases are what the check refuses."""

    loaded: Loaded
    found: Survey
    plan: Plan


def prepare(
    name: str,
    folder: Path,
    *,
    seed: int,
    train: Mapping[str, object],
    tuning: Mapping[str, object],
    optimizer: Mapping[str, object],
) -> Prepared:
    """Writes `folder/name.toml` and resolves it.

    It draws no previews; it validates and saves after the last step only.

    Args:
        name: The run's name; its folder is `folder/runs/name`.
        folder: Where the run file goes.
        seed: The run's seed.
        train: Keys of the section `train` that differ from the demo's; `steps` is one of them.
        tuning: The whole section `tuning`.
        optimizer: The whole section `optimizer`.

    Raises:
        Refused: If a section has a value that it cannot have.
    """
    document = tomlkit.parse(DEMO_RUN.read_text(encoding="utf-8"))
    document["name"] = name
    document["seed"] = seed
    document["tuning"] = dict(tuning)
    document["optimizer"] = dict(optimizer)
    document["train"].update(train)
    document["validation"]["every"] = train["steps"]
    document["preview"]["prompts"] = []
    document["save"]["every"] = train["steps"]
    run_file = folder / f"{name}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    run_file.write_text(tomlkit.dumps(document), encoding="utf-8")
    loaded = load(run_file)
    found = survey(loaded)
    return Prepared(loaded, found, resolve(loaded, found))
