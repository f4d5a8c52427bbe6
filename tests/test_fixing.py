"""`check --fix`: findings go, comments stay, and what changes the training is asked for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from surefoot import fixing
from surefoot.check.repair import repaired
from surefoot.config.overrides import with_overrides
from surefoot.finding import Change
from surefoot.judging import judge
from tests.check.test_rules import CASES, Case
from tests.run_files import surefoot, write_run

COMMENTS = (
    "# first, about all of it",
    "# above the name",
    "# beside it",
    "# a section's own",
    "# the last",
)
LAYOUT = """\
{first}

{above}
name   =   "cat"      {beside}
[model]
path = "builtin"
[[data.folders]]
path = "pictures"

{section}
[tuning]
kind = "dora"
[optimizer]
kind = "adafactor"
[train]
    steps = 120
    batch_size = 2
    device = "cpu"
{last}
"""
REPAIRABLE = [case for case in CASES if case.code not in ("SF026", "SF027")]


def commented(folder: Path, overrides: tuple[str, ...]) -> Path:
    """A run.toml with comments everywhere, and the overrides in it."""
    run_file = write_run(folder)
    first, above, beside, section, last = COMMENTS
    text = LAYOUT.format(first=first, above=above, beside=beside, section=section, last=last)
    run_file.write_text(with_overrides(text, overrides), encoding="utf-8")
    return run_file


def codes(run_file: Path, level: str = "") -> set[str]:
    findings = judge(run_file).findings
    return {item.code for item in findings if level in ("", item.level)}


@pytest.mark.parametrize("case", REPAIRABLE, ids=str)
def test_what_can_be_mended_is_gone_and_nothing_new_is_wrong(case: Case, tmp_path: Path) -> None:
    run_file = commented(tmp_path, case.trips)
    before = judge(run_file).findings
    given = run_file.read_text(encoding="utf-8")
    errors = codes(run_file, "error")
    assert case.code in {item.code for item in before}
    result = surefoot("check", run_file, "--fix", "--yes")
    after = run_file.read_text(encoding="utf-8")
    assert codes(run_file, "error") <= errors
    if any(item.changes for item in before if item.code == case.code):
        assert case.code not in codes(run_file)
        assert "was changed" in result.stdout
    # An override of `data.folders` has put other tables where one of them stood.
    for comment in (comment for comment in COMMENTS if comment in given):
        assert comment in after
    assert 'name   =   "cat"      # beside it' in after
    assert "    batch_size = 2" in after


def test_without_a_terminal_only_what_leaves_the_training_alone_is_made(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"optimizer.warmup_init": True, "train.clip_grad_norm": 1.0})
    result = surefoot("check", run_file, "--fix")
    assert result.exit_code == 0
    document = tomllib.loads(run_file.read_text(encoding="utf-8"))
    assert document["optimizer"]["warmup_init"] is False
    assert document["train"]["clip_grad_norm"] == 1.0
    assert "-warmup_init = true" in result.stdout
    assert "+warmup_init = false" in result.stdout
    assert "left as it is; --yes makes it too" in result.stdout


@pytest.mark.parametrize("answer", [True, False])
def test_what_changes_the_training_is_asked_once(
    answer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return answer

    monkeypatch.setattr(fixing, "_can_ask", lambda: True)
    monkeypatch.setattr(fixing.typer, "confirm", confirm)
    run_file = write_run(tmp_path, {"train.clip_grad_norm": 1.0})
    before = run_file.read_text(encoding="utf-8")
    surefoot("check", run_file, "--fix")
    assert len(asked) == 1
    assert (run_file.read_text(encoding="utf-8") == before) != answer
    assert ("SF105" in codes(run_file)) != answer


def test_slip_of_the_keyboard_is_mended_in_its_line(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    text = run_file.read_text(encoding="utf-8")
    wrong = text.replace("[optimizer]", "[optimzer]  # which?").replace(
        "batch_size = 2", "batchsize = 2   # two"
    )
    run_file.write_text(wrong, encoding="utf-8")
    assert surefoot("check", run_file).exit_code == 2
    assert surefoot("check", run_file, "--fix").exit_code == 0
    mended = run_file.read_text(encoding="utf-8")
    assert "[optimizer]  # which?\n" in mended
    assert "batch_size = 2   # two\n" in mended


def test_line_ends_mark_and_link_are_kept(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"train.clip_grad_norm": 1.0})
    content = b"\xef\xbb\xbf" + run_file.read_bytes().replace(b"\n", b"\r\n")
    run_file.write_bytes(content)
    link = tmp_path / "link.toml"
    link.symlink_to(run_file)
    surefoot("check", link, "--fix", "--yes")
    expected = content.replace(b"clip_grad_norm = 1.0", b'clip_grad_norm = "off"')
    assert run_file.read_bytes() == expected
    assert link.is_symlink()


def test_nothing_is_written_where_nothing_can_be_mended(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"model.path": "nowhere"})
    before = run_file.stat()
    result = surefoot("check", run_file, "--fix", "--yes")
    assert result.exit_code == 2
    assert "nothing was changed" in result.stdout
    assert run_file.stat().st_mtime_ns == before.st_mtime_ns
    assert surefoot("check", tmp_path / "no.toml", "--fix").exit_code == 2
    assert surefoot("check", run_file, "train.steps=1", "--fix").exit_code == 2


def test_new_key_goes_to_the_end_of_its_own_section() -> None:
    text = '[data]\nflip = true  # mirrored\n\n[[data.folders]]\npath = "x"\n'
    mended = repaired(text, [Change("data.cache", '"off"', '"disk"')])
    assert mended == text.replace("mirrored\n", 'mirrored\ncache = "off"\n')
    mended = repaired(text, [Change("train.ema", '"off"', "0.9")])
    assert mended == text + '\n[train]\nema = "off"\n'


def test_other_kind_of_a_section_loses_the_keys_that_it_does_not_have() -> None:
    text = '[schedule]\nkind = "cosine"\nend_factor = 0.1\nwarmup_steps = 3\n'
    mended = repaired(text, [Change("schedule.kind", '"constant"', '"cosine"')])
    assert tomllib.loads(mended) == {"schedule": {"kind": "constant", "warmup_steps": 3}}


@pytest.mark.parametrize(
    "text", ["train = { steps = 3 }\n", "train.steps = 3\n", "[train]\nsteps = 3"]
)
def test_repair_is_made_however_the_section_is_written(text: str) -> None:
    for change in (
        Change("train.ema", "0.5", '"off"'),
        Change("train.steps", "4", "3"),
        Change("train.steps", "", "3", "remove"),
    ):
        expected = tomllib.loads(text)
        if change.action == "remove":
            del expected["train"]["steps"]
        else:
            expected["train"][change.path.rpartition(".")[2]] = float(change.value)
        mended = tomllib.loads(repaired(text, [change]))
        assert mended.get("train", {}) == expected["train"]


def test_file_of_another_trainer_is_left_as_it_is(tmp_path: Path) -> None:
    theirs = tmp_path / "kohya.toml"
    theirs.write_text(
        'pretrained_model_name_or_path = "sd.safetensors"\ntrain_data_dir = "pictures"\n'
        'network_module = "networks.lora"\noptimizer_type = "AdaFactor"\nlearnin_rate = 1e-4\n',
        encoding="utf-8",
    )
    before = theirs.read_bytes()
    result = surefoot("check", theirs, "--fix", "--yes")
    assert theirs.read_bytes() == before
    assert "was changed" not in result.output
