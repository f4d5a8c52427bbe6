"""A file of another trainer to its readings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from surefoot.config.load import Loaded
from surefoot.families.facts import FAMILIES
from surefoot.finding import Finding
from surefoot.importers.ai_toolkit import read_ai_toolkit
from surefoot.importers.diffusers_scripts import read_diffusers
from surefoot.importers.diffusion_pipe import read_diffusion_pipe
from surefoot.importers.document import Leaf, flat
from surefoot.importers.judge import Reading, judge_theirs, worst_first
from surefoot.importers.musubi import read_musubi
from surefoot.importers.onetrainer import read_onetrainer
from surefoot.importers.recognise import Theirs
from surefoot.importers.record import TRAINER_NAMES, TheirRun
from surefoot.importers.sd_scripts import read_sd_scripts
from surefoot.importers.settle import config_of
from surefoot.importers.simpletuner import read_simpletuner
from surefoot.survey import ModelSurvey, resolve_path, survey_model


def readings(theirs: Theirs, path: Path) -> tuple[Reading, ...]:
    """The ways in which the trainer reads the file, the commonest first, and their findings.

    Raises:
        Refused: If it has values of a wrong type.
    """
    first, *others = [judge_theirs(run, _model_at_hand(run, path)) for run in _runs(theirs, path)]
    others = [other for other in others if _says_more(other, first)]
    differing = [other for other in others if other.config != first.config]
    return (_compared(first, differing[0]) if differing else first, *others)


def _says_more(other: Reading, first: Reading) -> bool:
    """Whether it is another run, or has the same fault at another place of the file."""
    places = {(finding.code, finding.path) for finding in first.findings}
    return other.config != first.config or any(
        finding.level == "error" and (finding.code, finding.path) not in places
        for finding in other.findings
    )


def _model_at_hand(run: TheirRun, path: Path) -> ModelSurvey | None:
    """The model that the run names, if it is a whole one on this machine that surefoot can read."""
    loaded = Loaded(config_of(run.settings), "", path)
    try:
        there = resolve_path(loaded, loaded.config.model.path).exists()
    except (OSError, ValueError):
        return None
    if run.family not in FAMILIES or not there:
        return None
    findings: list[Finding] = []
    found = survey_model(loaded, findings)
    return found if found.parts and not findings else None


def _runs(theirs: Theirs, path: Path) -> tuple[TheirRun, ...]:
    match theirs.trainer:
        case "onetrainer":
            return read_onetrainer(theirs.document, path)
        case "sd_scripts":
            return read_sd_scripts(theirs.document, path)
        case "ai_toolkit":
            return read_ai_toolkit(theirs.document)
        case "musubi":
            return read_musubi(theirs.document, path)
        case "simpletuner":
            return read_simpletuner(theirs.document, path)
        case "diffusion_pipe":
            return read_diffusion_pipe(theirs.document, path)
        case "diffusers":
            return read_diffusers(theirs.document)
        case _:
            assert_never(theirs.trainer)


def _compared(first: Reading, other: Reading) -> Reading:
    """The first reading, with a finding that says where the other differs."""
    configs = [reading.config.model_dump(mode="json") for reading in (first, other)]
    here, there = (dict(flat(config)) for config in configs)
    differing = [
        f"{path} {_shown(here.get(path))} / {_shown(there.get(path))}"
        for path in dict.fromkeys((*here, *there))
        if here.get(path) != there.get(path)
    ]
    values = {
        "trainer": TRAINER_NAMES[first.run.trainer],
        "first": first.run.meaning,
        "second": other.run.meaning,
        "differing": ", ".join(differing),
    }
    finding = Finding("SF704", "warning", "optimizer", dict(values))
    return replace(first, findings=worst_first([*first.findings, finding]))


def _shown(value: Leaf) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)
