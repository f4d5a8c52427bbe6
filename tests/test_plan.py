"""The plan: no `auto` left, sizes that hold, and what makes two runs the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from safetensors.numpy import load_file

from surefoot.builtin import BUILTIN_MODEL
from surefoot.optim.schedules import Schedule
from surefoot.plan import (
    PLAN_FILE,
    Plan,
    changed_settings,
    differences,
    read_plan,
    settings,
    write_plan,
)
from surefoot.tuning.targets import Target
from tests.run_files import look, write_pictures, write_run

UNET = BUILTIN_MODEL / "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = BUILTIN_MODEL / "text_encoder/model.safetensors"


def plan_of(run_file: Path, *overrides: str) -> Plan:
    return look(run_file, *overrides)[0]


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    return write_run(tmp_path)


def test_automatic_values_are_all_resolved(run_file: Path) -> None:
    plan = plan_of(run_file)
    assert plan.prediction == "epsilon"
    assert plan.resolution == 64
    assert plan.device == "cpu"
    assert set(plan.targets["unet"].values()) == {Target(rank=16, alpha=16.0)}
    assert plan.lr == 1e-2
    assert (plan.validate_every, plan.preview_every, plan.save_every) == (30, 60, 30)
    assert plan.run_folder == run_file.parent / "runs/cat"
    assert plan.cache_folder == run_file.parent / "runs/.cache/latents"
    for name, value in TypeAdapter(Plan).dump_python(plan, mode="json").items():
        assert name == "config" or value != "auto"


@pytest.mark.parametrize(
    ("overrides", "lr"),
    [
        (("tuning.kind=full",), 1e-2),
        (("optimizer.scale_parameter=true", "tuning.kind=full"), 1e-2),
        (("optimizer.scale_parameter=false",), 1e-4),
        (("optimizer.scale_parameter=false", "tuning.kind=full"), 1e-5),
        (("optimizer.kind=adamw",), 1e-4),
        (("optimizer.kind=adamw", "tuning.kind=full"), 1e-5),
        (("optimizer.kind=adamw", "optimizer.lr=3e-4"), 3e-4),
        (("optimizer.kind=lion",), 1e-4 / 5),
        (("optimizer.kind=lion", "tuning.kind=full"), 1e-5 / 5),
        (("optimizer.kind=came",), 1e-4 / 2),
        (("optimizer.kind=muon",), 1e-4),
        (("optimizer.kind=schedule_free_adamw",), 3e-4),
        (("optimizer.kind=prodigy", "tuning.kind=full"), 1.0),
        (("optimizer.kind=prodigy_plus",), 1.0),
        (("optimizer.kind=pytorch_optimizer", "optimizer.name=DAdaptLion"), 1.0),
        (("optimizer.kind=pytorch_optimizer", "optimizer.name=AdaBelief"), 1e-4),
    ],
)
def test_automatic_rate_is_relative_or_the_customary_one(
    overrides: tuple[str, ...], lr: float, run_file: Path
) -> None:
    assert plan_of(run_file, *overrides).lr == pytest.approx(lr)


@pytest.mark.parametrize(
    ("steps", "validate", "preview", "save"),
    [(1, 1, 1, 1), (10, 3, 5, 3), (1000, 250, 500, 250), (9000, 2250, 4500, 500)],
)
def test_automatic_intervals_are_shares_of_the_run(
    steps: int, validate: int, preview: int, save: int, run_file: Path
) -> None:
    plan = plan_of(run_file, f"train.steps={steps}")
    assert (plan.validate_every, plan.preview_every, plan.save_every) == (validate, preview, save)


@pytest.mark.parametrize(
    ("overrides", "schedule"),
    [
        ((), Schedule("cosine", 120)),
        (("schedule.warmup_steps=7",), Schedule("cosine", 120, 7)),
        (("schedule.warmup_fraction=0.05",), Schedule("cosine", 120, 6)),
        (
            ("schedule.kind=rex", "schedule.end_factor=0.1", "train.steps=9"),
            Schedule("rex", 9, end_factor=0.1),
        ),
        (("schedule.kind=inverse_sqrt",), Schedule("inverse_sqrt", 120, timescale=12)),
        (
            ("schedule.kind=inverse_sqrt", "schedule.warmup_fraction=0.2"),
            Schedule("inverse_sqrt", 120, 24, timescale=24),
        ),
        (
            ("schedule.kind=cosine_restarts", "schedule.cycles=3", "schedule.cycle_multiplier=2.0"),
            Schedule("cosine_restarts", 120, cycles=3, cycle_multiplier=2.0),
        ),
        (("schedule.kind=polynomial",), Schedule("polynomial", 120, power=2.0)),
    ],
)
def test_schedule_of_the_plan_is_in_steps(
    overrides: tuple[str, ...], schedule: Schedule, run_file: Path
) -> None:
    assert plan_of(run_file, *overrides).schedule == schedule


def test_intervals_that_are_given_stay(run_file: Path) -> None:
    plan = plan_of(run_file, "validation.every=7", "preview.every=8", "save.every=9")
    assert (plan.validate_every, plan.preview_every, plan.save_every) == (7, 8, 9)


def test_epochs_count_repeats_batches_and_accumulation(tmp_path: Path) -> None:
    write_pictures(tmp_path / "more", 5)
    folders = [{"path": "pictures", "repeats": 3}, {"path": "more"}]
    run_file = write_run(tmp_path, {"data.folders": folders})
    plan = plan_of(run_file, "train.gradient_accumulation=3", "train.steps=11")
    assert (plan.pictures, plan.pictures_in_epoch) == (7, 11)
    assert plan.epochs == pytest.approx(11 * 2 * 3 / 11)


def test_trained_numbers_are_those_of_the_files(run_file: Path) -> None:
    unet, text_encoder = load_file(UNET), load_file(TEXT_ENCODER)
    assert plan_of(run_file, "tuning.kind=full").trained_numbers == sum(
        weight.size for weight in unet.values()
    )
    both = plan_of(run_file, "tuning.kind=full", "tuning.parts=['unet', 'text_encoder']")
    assert both.trained_numbers == sum(
        weight.size
        for weight in [*unet.values(), *text_encoder.values()]
        if np.issubdtype(weight.dtype, np.floating)
    )
    overrides = ("tuning.targets=['attn2.to_k']", "tuning.rank=5")
    targets = [weight for name, weight in unet.items() if name.endswith("attn2.to_k.weight")]
    lora = sum(5 * (weight.shape[0] + weight.shape[1]) for weight in targets)
    plan = plan_of(run_file, "tuning.kind=lora", *overrides)
    assert len(plan.targets["unet"]) == len(targets)
    assert plan.trained_numbers == lora
    dora = plan_of(run_file, "tuning.kind=dora", *overrides)
    assert dora.trained_numbers == lora + sum(len(weight) for weight in targets)


def test_first_pattern_that_matches_a_layer_gives_its_rank_and_alpha(run_file: Path) -> None:
    patterns = 'tuning.rank_pattern={ "attn2.to_k" = 4, "attn2.*" = 8 }'
    alphas = 'tuning.alpha_pattern={ "attn1.*" = 2.0, "attn2.to_v" = "auto" }'
    plan = plan_of(run_file, patterns, alphas, "tuning.alpha=6.0", "tuning.targets=attention")
    given = {path.split(".", 1)[1]: target for path, target in plan.targets["unet"].items()}
    ends = {".".join(path.split(".")[-2:]): target for path, target in given.items()}
    assert ends["attn2.to_k"] == Target(rank=4, alpha=6.0)
    assert ends["attn2.to_q"] == Target(rank=8, alpha=6.0)
    assert ends["attn2.to_v"] == Target(rank=8, alpha=8.0)
    assert ends["attn1.to_k"] == Target(rank=16, alpha=2.0)


def test_rslora_multiplies_by_alpha_over_the_root_of_each_rank(run_file: Path) -> None:
    pattern = 'tuning.rank_pattern={ "to_k" = 4 }'
    plan = plan_of(run_file, pattern, "tuning.alpha=3.0", "tuning.rslora=true")
    scales = {target.rank: target.alpha / target.rank for target in plan.targets["unet"].values()}
    assert scales == pytest.approx({4: 3 / 2, 16: 3 / 4})


def test_preset_linear_leaves_convolutions_out_and_all_takes_them(run_file: Path) -> None:
    shapes = {name: weight.shape for name, weight in load_file(UNET).items()}
    linear = plan_of(run_file, "tuning.targets=linear").targets["unet"]
    everything = plan_of(run_file, "tuning.targets=all").targets["unet"]
    assert {len(shapes[f"{name}.weight"]) for name in linear} == {2}
    assert {len(shapes[f"{name}.weight"]) for name in everything} == {2, 4}
    assert set(linear) < set(everything)


def test_bytes_are_those_of_the_numbers(run_file: Path) -> None:
    plain = plan_of(run_file, "optimizer.kind=adamw")
    numbers = plain.trained_numbers
    assert plain.bytes.trained == plain.bytes.gradients == 4 * numbers
    assert plain.bytes.optimizer == 8 * numbers
    assert plain.bytes.checkpoint == 12 * numbers
    assert plain.bytes.ema == 0
    # Two pictures of 4 latent channels at a quarter of 64 pixels, mean and deviation.
    side = plain.resolution // plain.vae_factor
    assert plain.bytes.cache == 2 * 2 * 4 * 4 * side**2
    averaged = plan_of(run_file, "train.ema=0.9", "data.flip=true")
    assert averaged.bytes.ema == 4 * numbers
    assert averaged.bytes.cache == 2 * plain.bytes.cache
    assert averaged.bytes.optimizer < plain.bytes.optimizer / 5
    whole = plan_of(run_file, "tuning.kind=full", "data.cache=off")
    assert whole.bytes.export > plain.bytes.export
    assert whole.bytes.cache == 0


@pytest.mark.parametrize("overrides", [(), ("tuning.kind=full",), ("optimizer.kind=adamw",)])
def test_plan_is_read_back_as_it_was_written(overrides: tuple[str, ...], run_file: Path) -> None:
    plan = plan_of(run_file, *overrides)
    plan.run_folder.mkdir(parents=True)
    write_plan(plan)
    read = read_plan(plan.run_folder)
    assert read == plan
    assert read.fingerprint == plan.fingerprint
    assert differences(read, plan) == []


def test_plan_that_is_missing_or_no_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        read_plan(tmp_path)
    for text in ("", "{}", "[]", '{"config": 3}'):
        (tmp_path / PLAN_FILE).write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"Plan|JSON"):
            read_plan(tmp_path)


@pytest.mark.parametrize(
    ("override", "keys"),
    [
        ("seed=1", {"seed"}),
        ("tuning.rank=8", {"tuning.rank", "resolved.targets.unet"}),
        ("tuning.kind=lora", {"tuning.kind", "tuning.norm_axis"}),
        ("tuning.targets=attention", {"tuning.targets", "resolved.targets.unet"}),
        ("data.flip=true", {"data.flip"}),
        ("data.folders.0.repeats=2", {"data.folders", "resolved.pictures_in_epoch"}),
        ("train.batch_size=1", {"train.batch_size"}),
    ],
)
def test_other_weights_or_pictures_are_another_run(
    override: str, keys: set[str], run_file: Path
) -> None:
    before, after = plan_of(run_file), plan_of(run_file, override)
    assert before.fingerprint != after.fingerprint
    assert set(differences(before, after)) == keys
    assert changed_settings(settings(before), settings(after)) == {}


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        (("train.steps=121",), {"train.steps": ("120", "121")}),
        (("optimizer.beta1=0.5",), {"optimizer.beta1": ("0.0", "0.5")}),
        (("optimizer.scale_parameter=true",), {"optimizer.scale_parameter": ('"weight"', "true")}),
        (
            ("optimizer.lr=2e-2",),
            {"optimizer.lr": ('"auto"', "0.02"), "resolved.lr": ("0.01", "0.02")},
        ),
        # The rate that `auto` stands for changes with what it multiplies.
        (
            ("optimizer.scale_parameter=false",),
            {
                "optimizer.scale_parameter": ('"weight"', "false"),
                "resolved.lr": ("0.01", "0.0001"),
            },
        ),
        # Of another kind, keys that both have; those of one alone go with it.
        (
            ("optimizer.kind=adamw", "optimizer.lr=1e-2"),
            {
                "optimizer.kind": ('"adafactor"', '"adamw"'),
                "optimizer.lr": ('"auto"', "0.01"),
                "optimizer.beta1": ("0.0", "0.9"),
                "optimizer.weight_decay": ("0.0", "0.01"),
            },
        ),
        (("schedule.kind=rex",), {"schedule.kind": ('"cosine"', '"rex"')}),
        (("schedule.warmup_fraction=0.1",), {"schedule.warmup_fraction": ("0.0", "0.1")}),
        (("objective.snr_gamma=5",), {"objective.snr_gamma": ('"off"', "5.0")}),
        (("train.clip_grad_norm=1",), {"train.clip_grad_norm": ('"off"', "1.0")}),
    ],
)
def test_what_only_trains_otherwise_is_the_same_run_with_changed_settings(
    overrides: tuple[str, ...], changes: dict[str, tuple[str, str]], run_file: Path
) -> None:
    before, after = plan_of(run_file), plan_of(run_file, *overrides)
    assert before.fingerprint == after.fingerprint
    assert changed_settings(settings(before), settings(after)) == changes


@pytest.mark.parametrize(
    "override",
    [
        "preview.prompts=['a cat']",
        "preview.every=3",
        "save.every=3",
        "save.keep=9",
        "folder=elsewhere",
        "name=dog",
    ],
)
def test_what_only_looks_or_saves_is_the_same_run(override: str, run_file: Path) -> None:
    before, after = plan_of(run_file), plan_of(run_file, override)
    assert before.config != after.config
    assert before.fingerprint == after.fingerprint
    assert differences(before, after) == []
    assert changed_settings(settings(before), settings(after)) == {}


def test_run_stays_the_same_when_it_is_moved_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    run_file = write_run(tmp_path / "here")
    before = plan_of(run_file)
    shutil.move(tmp_path / "here", tmp_path / "there")
    after = plan_of(tmp_path / "there/run.toml")
    assert before.run_folder != after.run_folder
    assert before.fingerprint == after.fingerprint


def test_added_picture_makes_another_run(run_file: Path) -> None:
    before = plan_of(run_file)
    write_pictures(run_file.parent / "pictures", 3)
    changed = differences(before, plan_of(run_file))
    assert changed == ["resolved.content", "resolved.pictures", "resolved.pictures_in_epoch"]


def test_changed_caption_or_weight_makes_another_run_and_a_moved_folder_does_not(
    run_file: Path,
) -> None:
    before = plan_of(run_file)
    assert plan_of(run_file).content == before.content
    caption = next((run_file.parent / "pictures").glob("*.txt"))
    caption.write_text("something else", encoding="utf-8")
    assert differences(before, plan_of(run_file)) == ["resolved.content"]


def test_plan_is_plain_json(run_file: Path) -> None:
    plan = plan_of(run_file)
    text = TypeAdapter(Plan).dump_json(plan)
    assert "NaN" not in text.decode()
    assert set(json.loads(text)) == {field.name for field in dataclasses.fields(Plan)}
