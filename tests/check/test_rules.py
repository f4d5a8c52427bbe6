"""Each rule on a plan that trips it, and on the nearest one that does not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from surefoot.check.render import render_finding
from surefoot.check.rules import RULES, review
from surefoot.finding import LEVELS, Finding
from tests.check.caption_cases import CAPTION_CASES
from tests.check.format_cases import FORMAT_CASES
from tests.check.memory_cases import BF16, MEMORY_CASES
from tests.check.objective_cases import OBJECTIVE_CASES
from tests.check.optimizer_cases import OPTIMIZER_CASES
from tests.check.picture_cases import PICTURE_CASES
from tests.check.rate_cases import RATE_CASES, SET_CASES
from tests.check.rule_cases import SCHEDULE_CASES, Case
from tests.check.save_cases import SAVE_CASES
from tests.check.tuning_cases import TUNING_CASES
from tests.run_files import look, write_pictures, write_run

SCALED = "optimizer.scale_parameter=true"
UNSCALED = "optimizer.scale_parameter=false"
RELATIVE = "optimizer.relative_step=true"
FULL = "tuning.kind=full"
LORA = "tuning.kind=lora"
ADAMW = "optimizer.kind=adamw"


CASES = (
    Case(
        "SF101",
        "own_scale_of_adapters",
        "error",
        (SCALED, LORA, "optimizer.lr=1e-4"),
        ((UNSCALED,), (SCALED, FULL), (ADAMW,), ()),
        {"tuning": "LoRA", "eps2": 1e-3, "steps": 120, "up_first": 1e-7, "other": "lora_down"},
        "optimizer.scale_parameter",
    ),
    Case(
        "SF102",
        "rate_set_twice",
        "error",
        (RELATIVE, "optimizer.lr=1e-3", "schedule.warmup_steps=5"),
        ((RELATIVE,), (RELATIVE, "schedule.kind=constant"), ("optimizer.lr=1e-3",)),
        {"ignored": "optimizer.lr + schedule", "first": 1e-2, "last": 1e-2},
        "optimizer.lr",
    ),
    Case(
        "SF103",
        "warmup_without_relative_step",
        "error",
        ("optimizer.warmup_init=true",),
        (("optimizer.warmup_init=true", RELATIVE), ("optimizer.warmup_init=false",)),
        {},
        "optimizer.warmup_init",
    ),
    Case(
        "SF104",
        "relative_step_is_constant",
        "note",
        (RELATIVE, "train.steps=9999"),
        ((RELATIVE, "train.steps=10000"), ("train.steps=9999",)),
        {"steps": 9999, "shape": "a constant rate of 1e-2"},
        "optimizer.relative_step",
    ),
    Case(
        "SF105",
        "clipped_twice",
        "warning",
        ("train.clip_grad_norm=1.0",),
        (("train.clip_grad_norm=1.0", ADAMW), ("train.clip_grad_norm=off",)),
        {"clip": 1.0},
        "train.clip_grad_norm",
    ),
    *SCHEDULE_CASES,
    Case(
        "SF107",
        "alpha_far_from_rank",
        "warning",
        (ADAMW, "tuning.rank=16", "tuning.alpha=1"),
        (
            (ADAMW, "tuning.rank=16", "tuning.alpha=4"),
            (ADAMW, "tuning.rank=16", "tuning.alpha=64"),
            (UNSCALED, "tuning.rank=16"),
            ("tuning.rank=16", "tuning.alpha=1"),
            (ADAMW, FULL),
        ),
        {"scale": 1 / 16},
        "tuning.alpha",
    ),
    Case(
        "SF108",
        "average_longer_than_run",
        "warning",
        ("train.ema=0.999",),
        (("train.ema=0.97",), ("train.ema=off",), ("train.ema=0.999", "train.steps=3001")),
        {"ema": 0.999, "steps": 120, "mended": pytest.approx(1 - 10 / 120)},
        "train.ema",
    ),
    Case(
        "SF109",
        "relative_rate_too_high",
        "warning",
        ("optimizer.lr=0.1",),
        (
            ("optimizer.lr=0.03",),
            ("optimizer.lr=0.1", UNSCALED),
            ("optimizer.lr=0.1", ADAMW),
            (RELATIVE, "optimizer.lr=0.1"),
        ),
        {"lr": 0.1, "percent": 10.0},
        "optimizer.lr",
    ),
    Case(
        "SF201",
        "wrong_prediction",
        "warning",
        ("model.prediction=v_prediction",),
        (("model.prediction=epsilon",), ("model.prediction=v_prediction", "model.path=nowhere")),
        {"asked": "v_prediction", "found": "epsilon"},
        "model.prediction",
    ),
    Case(
        "SF026",
        "targets_that_match_nothing",
        "error",
        ('tuning.targets=["attn2.to_k", "attn3.to_k"]',),
        (
            ('tuning.targets=["attn2.to_k", "*.ff.net.2"]',),
            # Meant for one of the two parts.
            ('tuning.targets=["attn2.to_k", "q_proj"]', "tuning.parts=['unet', 'text_encoder']"),
            ('tuning.targets=["attn3.to_k"]', "model.path=nowhere"),
            (FULL,),
        ),
        {"pattern": "attn3.to_k", "part": "unet"},
        "tuning.targets",
    ),
    Case(
        "SF027",
        "resolution_that_does_not_fit",
        "error",
        ("data.resolution=50",),
        (("data.resolution=48",), (), ("data.resolution=50", "model.path=nowhere")),
        {"resolution": 50},
        "data.resolution",
    ),
    Case(
        "SF303",
        "batch_larger_than_set",
        "warning",
        ("train.gradient_accumulation=2",),
        (("data.folders.0.repeats=2", "train.gradient_accumulation=2"), ("train.batch_size=2",)),
        {"batch": 4, "pictures": 2},
        "train.batch_size",
    ),
    Case(
        "SF304",
        "pictures_scaled_up",
        "warning",
        ("data.resolution=96",),
        (("data.resolution=64",),),
        {"count": 2, "pictures": 2, "example": "0.png", "factor": 1.5},
        "data.folders",
    ),
    *(Case(*case) for case in OPTIMIZER_CASES),
    *MEMORY_CASES,
    *TUNING_CASES,
    *RATE_CASES,
    *SET_CASES,
    *CAPTION_CASES,
    *SAVE_CASES,
    *OBJECTIVE_CASES,
    *PICTURE_CASES,
    *FORMAT_CASES,
)
# Rules about files, each with tests of its own here.
ELSEWHERE = {
    "pictures_cropped",
    "buckets_smaller_than_a_batch",
    "disk_without_room",
    "zero_terminal_signal",
    "captions_cut_off",
    "unpaired_braces",
    "quantiser_not_installed",
}


def with_code(findings: list[Finding], code: str) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


def test_every_rule_has_its_case() -> None:
    tested = {case.rule for case in CASES} | ELSEWHERE
    assert tested == {rule.__name__ for rule in RULES}


def test_every_code_of_a_rule_has_a_case_that_trips_it_and_one_that_does_not() -> None:
    rules = [rule for rule in RULES if rule.__name__ not in ELSEWHERE]
    given = {code for rule in rules for code in re.findall(r"SF\d{3}", rule.__doc__ or "")}
    tripped = {case.code for case in CASES}
    assert given - tripped == set()
    assert {case.code for case in CASES if case.passes} == tripped


def test_run_of_defaults_has_no_finding(tmp_path: Path) -> None:
    _plan, _survey, findings = look(write_run(tmp_path))
    assert findings == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_is_tripped_with_the_numbers_of_the_run(case: Case, tmp_path: Path) -> None:
    code = case.code
    run_file = write_run(tmp_path)
    plan, found, findings = look(run_file, *case.trips)
    finding = with_code(findings, code)[0]
    assert (finding.level, finding.path) == (case.level, case.path)
    for key, value in case.values.items():
        expected = pytest.approx(value) if isinstance(value, float) else value
        assert finding.values[key] == expected, key
    rule = {rule.__name__: rule for rule in RULES}[case.rule]
    assert [item.code for item in rule(plan, found)] == [code]
    shown = render_finding(finding, "run.toml", run_file.read_text(encoding="utf-8")).plain
    assert shown.startswith(f"{case.level}[{code}] ")
    assert "{" not in shown


@pytest.mark.parametrize(
    ("code", "overrides"), [(case.code, passes) for case in CASES for passes in case.passes]
)
def test_rule_keeps_silent_where_all_is_well(
    code: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    _plan, _survey, findings = look(write_run(tmp_path), *overrides)
    assert with_code(findings, code) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_proposed_change_mends_what_it_is_proposed_for(case: Case, tmp_path: Path) -> None:
    code = case.code
    run_file = write_run(tmp_path)
    _plan, _survey, before = look(run_file, *case.trips)
    changes = with_code(before, code)[0].changes
    overrides = [f"{change.path}={change.value}" for change in changes]
    _plan, _survey, after = look(run_file, *case.trips, *overrides)
    assert bool(changes) == (with_code(after, code) == [])
    assert len(after) <= len(before)


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 19, 21, 29])
def test_proposed_average_fits_runs_of_any_length(steps: int, tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    overrides = (f"train.steps={steps}", "train.ema=0.9999")
    finding = with_code(look(run_file, *overrides)[2], "SF108")[0]
    change = finding.changes[0]
    after = look(run_file, *overrides, f"{change.path}={change.value}")[2]
    assert with_code(after, "SF108") == []


@pytest.mark.parametrize(
    ("lr", "changed"), [("auto", False), ("1e-4", True), ("1e-2", False), ("1", True)]
)
def test_repair_of_the_scale_takes_the_rate_along(lr: str, changed: bool, tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    _plan, _survey, findings = look(run_file, SCALED, f"optimizer.lr={lr}")
    changes = with_code(findings, "SF101")[0].changes
    assert ("optimizer.lr" in {change.path for change in changes}) == changed
    overrides = [f"{change.path}={change.value}" for change in changes]
    mended, _survey, after = look(run_file, SCALED, f"optimizer.lr={lr}", *overrides)
    assert after == []
    assert mended.lr == 1e-2
    # The step that the finding promised is the one that the mended plan has.
    promised = with_code(findings, "SF101")[0].values["up_mended"]
    up = next(row for row in mended.sheet if row.kind == "lora_up")
    assert promised == pytest.approx(up.first)


@pytest.mark.parametrize("eps2", ["0", "1e-30", "0.5"])
def test_any_floor_of_the_scale_can_be_judged(eps2: str, tmp_path: Path) -> None:
    overrides = (SCALED, f"optimizer.eps2={eps2}", RELATIVE, "optimizer.warmup_init=true")
    _plan, _survey, findings = look(write_run(tmp_path), *overrides)
    finding = with_code(findings, "SF101")[0]
    assert "almost unable to learn" in render_finding(finding, "run.toml", "").plain


def test_rate_that_grows_away_is_told_from_one_that_stalls(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    low = with_code(look(run_file, SCALED, RELATIVE)[2], "SF101")[0]
    high = with_code(look(run_file, SCALED, "optimizer.lr=1")[2], "SF101")[0]
    assert str(low.values["outcome"]).startswith("It stays practically zero")
    assert str(high.values["outcome"]).startswith("Once its RMS passes the floor")


def test_full_fine_tuning_scaled_by_its_own_weights_has_a_relative_rate(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    assert with_code(look(run_file, FULL, SCALED, "optimizer.lr=1")[2], "SF109") != []
    assert with_code(look(run_file, FULL, SCALED, "optimizer.lr=1e-2")[2], "SF109") == []


def test_warm_up_of_relative_step_is_a_ramp_to_the_end(tmp_path: Path) -> None:
    overrides = (RELATIVE, "optimizer.warmup_init=true", "optimizer.lr=1e-3")
    findings = look(write_run(tmp_path), *overrides)[2]
    assert with_code(findings, "SF104")[0].values["shape"] == "a ramp of 1e-6 a step"
    rates = with_code(findings, "SF102")[0].values
    assert (rates["first"], rates["last"]) == (pytest.approx(1e-6), pytest.approx(120e-6))


def test_nearest_resolutions_are_proposed(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    for resolution in (9, 50, 63, 65, 127):
        values = with_code(look(run_file, f"data.resolution={resolution}")[2], "SF027")[0].values
        multiple, below, above = (int(values[key]) for key in ("multiple", "below", "above"))
        assert below % multiple == above % multiple == 0
        assert 0 < below <= max(multiple, resolution) < above + multiple
        assert above > resolution
        for proposed in (below, above):
            findings = look(run_file, f"data.resolution={proposed}")[2]
            assert with_code(findings, "SF027") == []


class Usage:
    """What `shutil.disk_usage` answers."""

    def __init__(self, free: int) -> None:
        self.free = free


def test_disk_without_room_is_refused_until_there_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = write_run(tmp_path)
    plan, _survey, _findings = look(run_file)
    needed = plan.disk_needed
    for free, refused in ((0, True), (needed - 1, True), (needed, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: Usage(free))
        findings = look(run_file)[2]
        assert bool(with_code(findings, "SF042")) == refused
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0))
    finding = with_code(look(run_file)[2], "SF042")[0]
    assert (finding.level, finding.path, finding.unusable) == ("error", "folder", True)
    assert finding.values == {"needed_mb": needed / 1e6, "free_mb": 0.0}


def test_run_that_goes_on_needs_only_what_it_has_not_written_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = write_run(tmp_path)
    plan, _survey, _findings = look(run_file)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _path: Usage(plan.bytes.checkpoint + plan.bytes.export)
    )
    assert with_code(look(run_file)[2], "SF042") != []
    for number in range(plan.config.save.keep + plan.config.watch.keep_best):
        checkpoint = plan.run_folder / f"checkpoints/step-{number:06d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "x").write_bytes(b"\0" * plan.bytes.checkpoint)
    assert with_code(look(run_file)[2], "SF042") != []
    plan.cache_folder.mkdir(parents=True)
    (plan.cache_folder / "x").write_bytes(b"\0" * plan.bytes.cache)
    assert with_code(look(run_file)[2], "SF042") == []


def test_worst_findings_come_first(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    (tmp_path / "pictures/0.txt").unlink()
    overrides = (RELATIVE, SCALED, "train.clip_grad_norm=1", "data.resolution=96", "train.ema=0.99")
    _plan, _survey, findings = look(write_run(tmp_path), *overrides)
    assert [finding.code for finding in findings] == [
        "SF037", "SF101", "SF105", "SF108", "SF304", "SF104",
    ]  # fmt: skip
    assert [LEVELS.index(finding.level) for finding in findings] == [0, 0, 1, 1, 1, 2]


def test_rules_are_silent_about_what_could_not_be_looked_at(tmp_path: Path) -> None:
    changes = {"model.path": "nowhere", "data.folders": [{"path": "nowhere"}], "folder": "/proc/x"}
    plan, found, findings = look(write_run(tmp_path, changes), SCALED, "data.resolution=50")
    assert [finding.code for finding in findings] == ["SF020", "SF030", "SF041"]
    assert review(plan, found) == findings


@pytest.mark.parametrize("kind", ["adamw", "lion", "prodigy"])
def test_optimizers_that_round_to_the_nearest_are_told_to_lose_steps(
    kind: str, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path)
    (finding,) = with_code(look(run_file, *BF16, f"optimizer.kind={kind}")[2], "SF129")
    assert [change.path for change in finding.changes] == ["tuning.weights"]
    assert float(finding.values["percent"]) > 90
    shown = render_finding(finding, "run.toml", run_file.read_text(encoding="utf-8")).plain
    assert "lost in rounding" in shown


def test_gradients_that_cannot_be_clipped_are_not_said_to_be_clipped_twice(tmp_path: Path) -> None:
    overrides = ("optimizer.step_in_backward=true", "train.clip_grad_norm=1.0")
    assert with_code(look(write_run(tmp_path), *overrides)[2], "SF105") == []
