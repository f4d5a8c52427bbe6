"""Each rule's example trips it, so that `explain` and the page of findings show what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from surefoot.check.examples import EXAMPLES, PLAIN_RUN
from surefoot.check.rules import RULES
from surefoot.judging import judge
from surefoot.wording import WORDS
from tests.run_files import surefoot

# They are about files, which overrides cannot make.
OF_FILES = {"SF138", "SF042", "SF308", "SF310", "SF313", "SF321", "SF322", "SF323"}


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_trips_its_code(code: str, tmp_path: Path) -> None:
    judged = judge(tmp_path / "run.toml", EXAMPLES[code], PLAIN_RUN)
    assert code in {finding.code for finding in judged.findings}


def test_plain_run_has_no_finding(tmp_path: Path) -> None:
    assert judge(tmp_path / "run.toml", (), PLAIN_RUN).findings == []


def test_every_rule_has_an_example() -> None:
    of_rules = {code for rule in RULES for code in re.findall(r"SF\d{3}", rule.__doc__ or "")}
    assert of_rules <= set(WORDS)
    assert {
        code for code in of_rules - set(EXAMPLES) - OF_FILES if not code.startswith("SF18")
    } == set()


def test_explained_code_is_shown_with_the_numbers_of_the_example() -> None:
    shown = surefoot("explain", "SF106").stdout
    assert "schedule.warmup_steps=2000" in shown
    assert "error[SF106] the warm-up of 2000 steps is not over when the run ends at 1500" in shown
    assert surefoot("explain", "SF034").stdout.count("SF034") == 1
