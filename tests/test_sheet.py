"""The effective-step sheet says beforehand what the optimizer then does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from surefoot.config.load import load
from surefoot.config.run import RunConfig
from surefoot.engine.assemble import load_family
from surefoot.engine.attach import attach
from surefoot.engine.optimizer import build_optimizer
from surefoot.finding import StepRow
from surefoot.optim.root_mean_square import root_mean_squares
from surefoot.optim.scaling import TensorKind
from surefoot.plan import Plan, resolve
from surefoot.sheet import PlannedTensor, effective_steps, planned_schedule
from surefoot.survey import survey
from surefoot.tuning.trainable import Trainable
from tests.tiny_sd import build_tiny_pipeline

# A fresh lora_down is random: 64 x 16 uniform numbers have an RMS within 1.4 % of its expectation,
# the median of dozens of such tensors within a few tenths.
STEP_TOLERANCE = 0.01
RMS_TOLERANCE = 0.02
# The travel of a run adds that the tensor and the way it goes are not quite unrelated.
TRAVEL_TOLERANCE = 0.03

TUNINGS = {
    "full": 'kind = "full"',
    "lora": 'kind = "lora"\nrank = 64\nalpha = 8.0\ntargets = "all"',
    "dora": 'kind = "dora"\nrank = 64\nalpha = 8.0\ntargets = "all"',
    "gaussian": 'kind = "lora"\nrank = 64\ntargets = "all"\ninitialisation = "gaussian"',
    "loha": 'kind = "loha"\nrank = 256\nalpha = 8.0\ntargets = "all"',
    "dora input": 'kind = "dora"\nrank = 64\nalpha = 8.0\ntargets = "all"\nnorm_axis = "input"',
}
OPTIMIZERS = {
    "adafactor true": 'kind = "adafactor"\nscale_parameter = true\nlr = 1e-3',
    "adafactor false": 'kind = "adafactor"\nscale_parameter = false\nlr = 1e-3',
    "adafactor weight": 'kind = "adafactor"\nscale_parameter = "weight"\nlr = 1e-3',
    "adafactor auto": 'kind = "adafactor"',
    "adafactor momentum": 'kind = "adafactor"\nbeta1 = 0.9',
    "adafactor relative_step": ('kind = "adafactor"\nscale_parameter = true\nrelative_step = true'),
    # The sheet is about the gradient's part; decay takes 0.01 lr of each number more.
    "adamw": 'kind = "adamw"\nlr = 1e-3\nweight_decay = 0.0',
    "adamw_8bit": 'kind = "adamw_8bit"\nlr = 1e-3\nweight_decay = 0.0\nmin_8bit_size = 600',
    "lion": 'kind = "lion"\nlr = 1e-3',
    "came": 'kind = "came"\nlr = 1e-4',
    "stable_adamw": 'kind = "stable_adamw"\nlr = 1e-3\nweight_decay = 0.0',
    "adan": 'kind = "adan"\nlr = 1e-3',
    "schedule_free_adamw": 'kind = "schedule_free_adamw"\nlr = 1e-3',
}

IN_BF16 = {
    "adafactor kahan": 'kind = "adafactor"\nrounding = "kahan"',
    "adamw": OPTIMIZERS["adamw"],
    "came": OPTIMIZERS["came"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_pipeline(seed=0).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def plan_of(model: Path, tmp_path: Path) -> Callable[[str, str], Plan]:
    """Writes a run.toml of a tuning and an optimizer section, and resolves it."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "a.txt").write_text("a red square", encoding="utf-8")

    def make(tuning: str, optimizer: str) -> Plan:
        path = tmp_path / "run.toml"
        path.write_text(
            f'''name = "tiny"
[model]
path = "{model.as_posix()}"
[tuning]
parts = ["unet", "text_encoder"]
{tuning}
[optimizer]
{optimizer}
[[data.folders]]
path = "pictures"
[train]
steps = 10
device = "cpu"
''',
            encoding="utf-8",
        )
        loaded = load(path)
        found = survey(loaded)
        assert [finding.code for finding in found.findings] == []
        return resolve(loaded, found)

    return make


def by_kind(trainables: Sequence[Trainable]) -> dict[str, list[Trainable]]:
    kinds: dict[str, list[Trainable]] = {}
    for item in trainables:
        kinds.setdefault(item.kind, []).append(item)
    return kinds


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def step_once(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Steps with gradients of +-1, and how far each element went.

    Their squares are 1 throughout, so that Adafactor's factors are exact and its update is of
    size 1 in every element, which is what clipping leaves alone; Adam's is 1 / (1 + eps).
    """
    generator = torch.Generator().manual_seed(0)
    before = [parameter.detach().double() for parameter in parameters]
    for parameter in parameters:
        signs = torch.randint(0, 2, parameter.shape, generator=generator)
        parameter.grad = signs.to(parameter.dtype) * 2 - 1
    optimizer.step()
    pairs = zip(parameters, before, strict=True)
    return [(parameter.detach().double() - start).abs() for parameter, start in pairs]


def bytes_held(optimizer: Optimizer) -> int:
    """What the optimizer remembers, but for the counters of steps."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for key, value in state.items()
        # CAME's RMS of the tensor is one number that nothing reads.
        if isinstance(value, Tensor) and key not in ("step", "RMS")
    )


def assert_row(row: StepRow, members: Sequence[Trainable], rms: Sequence[float]) -> None:
    assert row.tensors == len(members)
    assert row.numbers == sum(item.parameter.numel() for item in members)
    assert row.rms == pytest.approx(median(rms), rel=RMS_TOLERANCE)
    known = [item.weight_rms for item in members]
    assert any(row.weight_rms == pytest.approx(rms, rel=RMS_TOLERANCE) for rms in known)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_the_sheet_predicts_the_first_step_and_the_memory_of_the_real_optimizer(
    plan_of: Callable[[str, str], Plan], tuning: str, optimizer_name: str
) -> None:
    plan = plan_of(TUNINGS[tuning], OPTIMIZERS[optimizer_name])
    tuned = attach(plan, load_family(plan, torch.device("cpu")))
    optimizer = build_optimizer(plan.config.optimizer, plan.lr, tuned.trainables)
    parameters = [item.parameter for item in tuned.trainables]
    sizes = root_mean_squares(item.parameter for item in tuned.trainables)
    rms = {item.name: size for item, size in zip(tuned.trainables, sizes, strict=True)}
    steps = dict(zip(rms, step_once(optimizer, parameters), strict=True))

    kinds = by_kind(tuned.trainables)
    assert {row.kind for row in plan.sheet} == kinds.keys()
    for row in plan.sheet:
        members = kinds[row.kind]
        assert_row(row, members, [rms[item.name] for item in members])
        taken = median([float(steps[item.name].median()) for item in members])
        assert taken == pytest.approx(row.first, rel=STEP_TOLERANCE)
    numbers = sum(parameter.numel() for parameter in parameters)
    assert (plan.trained_numbers, plan.bytes.trained) == (numbers, 4 * numbers)
    assert plan.bytes.optimizer == bytes_held(optimizer)


@pytest.mark.parametrize("optimizer_name", ["adafactor weight", "adamw"])
@pytest.mark.parametrize("rank", [2, 64])
def test_the_sheet_predicts_lokr_but_for_the_chance_in_its_small_matrices(
    plan_of: Callable[[str, str], Plan], rank: int, optimizer_name: str
) -> None:
    tuning = f'kind = "lokr"\nrank = {rank}\nalpha = 1.0\nfactor = 2'
    plan = plan_of(tuning, OPTIMIZERS[optimizer_name])
    tuned = attach(plan, load_family(plan, torch.device("cpu")))
    optimizer = build_optimizer(plan.config.optimizer, plan.lr, tuned.trainables)
    steps = step_once(optimizer, [item.parameter for item in tuned.trainables])
    kinds = by_kind(tuned.trainables)
    rows = {row.kind: row for row in plan.sheet}
    assert rows.keys() == kinds.keys()
    for kind, members in kinds.items():
        assert rows[kind].numbers == sum(item.parameter.numel() for item in members)
    first = [
        float(step.median())
        for item, step in zip(tuned.trainables, steps, strict=True)
        if item.kind == "lora_up"
    ]
    assert rows["lora_up"].first == pytest.approx(median(first), rel=STEP_TOLERANCE)
    assert plan.bytes.optimizer == bytes_held(optimizer)


@pytest.mark.parametrize("name", ["adafactor momentum", "adamw_8bit", *IN_BF16])
def test_the_memory_of_bf16_weights_is_that_of_the_real_optimizer(
    plan_of: Callable[[str, str], Plan], name: str
) -> None:
    plan = plan_of('kind = "full"\nweights = "bf16"', (OPTIMIZERS | IN_BF16)[name])
    tuned = attach(plan, load_family(plan, torch.device("cpu")))
    parameters = [item.parameter for item in tuned.trainables]
    assert {parameter.dtype for parameter in parameters} == {torch.bfloat16}
    optimizer = build_optimizer(plan.config.optimizer, plan.lr, tuned.trainables)
    step_once(optimizer, parameters)
    assert plan.bytes.trained == plan.bytes.gradients == 2 * plan.trained_numbers
    assert plan.bytes.optimizer == bytes_held(optimizer)


def test_the_sheet_shows_the_misfit_and_the_weight_rule_mends_it(
    plan_of: Callable[[str, str], Plan],
) -> None:
    def relative_steps(optimizer: str) -> dict[str, float]:
        sheet = plan_of(TUNINGS["dora"], OPTIMIZERS[optimizer]).sheet
        return {row.kind: row.first / row.weight_rms for row in sheet}

    misfit, mended = relative_steps("adafactor true"), relative_steps("adafactor weight")
    assert misfit["magnitude"] > 300 * misfit["lora_up"]
    assert misfit["magnitude"] > 30 * mended["magnitude"] / mended["lora_up"] * misfit["lora_up"]


# A layer of 256 x 1024, as its adapter and on its own, and the tuning and optimizer sections.
LAYER_IN, RANK, ALPHA, WEIGHT_RMS = 1024, 16, 8.0, 0.04
TRAVELLERS: dict[str, tuple[TensorKind, tuple[int, ...], float]] = {
    "lora_up": ("lora_up", (256, RANK), 0.0),
    "lora_down": ("lora_down", (RANK, LAYER_IN), 1 / math.sqrt(3 * LAYER_IN)),
    "weight": ("weight", (256, LAYER_IN), WEIGHT_RMS),
    "bias": ("bias", (4096,), 0.2),
}
STEPPERS = {
    "true": {"scale_parameter": True, "lr": 0.1},
    "false": {"scale_parameter": False, "lr": 1e-2},
    "weight": {"scale_parameter": "weight", "lr": 3e-2},
    "relative_step": {"scale_parameter": True, "relative_step": True},
    "momentum": {"scale_parameter": False, "lr": 1e-2, "beta1": 0.9},
    "lion": {"kind": "lion", "lr": 1e-3},
    "came": {"kind": "came", "lr": 1e-4},
    "adan": {"kind": "adan", "lr": 1e-3},
}


def run_config(optimizer: dict[str, object]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "travel",
            "model": {"path": "builtin"},
            "tuning": {"kind": "lora", "rank": RANK, "alpha": ALPHA},
            "optimizer": {"kind": "adafactor", **optimizer},
            "schedule": {"kind": "cosine", "warmup_steps": 5},
            "data": {"folders": [{"path": "builtin"}]},
            "train": {"steps": 40},
        }
    )


def travel(config: RunConfig, kind: TensorKind, start: Tensor, lr: float) -> Tensor:
    """Where a tensor ends after the whole run, with gradients of one size and sign."""
    item = Trainable("unet.x", nn.Parameter(start.clone()), kind, WEIGHT_RMS, LAYER_IN, ALPHA, RANK)
    optimizer = build_optimizer(config.optimizer, lr, [item])
    item.parameter.grad = -torch.ones_like(start)
    schedule = planned_schedule(config)
    for step in range(config.train.steps):
        factor = schedule.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * factor
        optimizer.step()
    return item.parameter.detach()


def planned(traveller: str) -> PlannedTensor:
    kind, shape, rms = TRAVELLERS[traveller]
    # A lora_down drawn within 1 / sqrt(inputs) has an RMS of 1 / sqrt(3 inputs).
    reach = math.sqrt(RANK / (3 * LAYER_IN))
    return PlannedTensor(
        kind, math.prod(shape), rms, WEIGHT_RMS, ALPHA, RANK, LAYER_IN, reach=reach
    )


@pytest.mark.parametrize("optimizer", STEPPERS)
@pytest.mark.parametrize("traveller", TRAVELLERS)
def test_total_is_how_far_a_run_of_steady_gradients_goes(traveller: str, optimizer: str) -> None:
    kind, shape, rms = TRAVELLERS[traveller]
    config = run_config(STEPPERS[optimizer])
    lr = 0.0 if config.optimizer.lr == "auto" else config.optimizer.lr
    start = rms * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (row,) = effective_steps([planned(traveller)], config, lr)
    travelled = (travel(config, kind, start, lr) - start).mean().item()
    assert travelled == pytest.approx(row.total, rel=TRAVEL_TOLERANCE)


def test_layer_change_of_a_lora_up_is_that_of_the_layer() -> None:
    config = run_config(STEPPERS["weight"])
    (row,) = effective_steps([planned("lora_up")], config, 3e-2)
    up = travel(config, "lora_up", torch.zeros(256, RANK), 3e-2)
    bound = 1 / math.sqrt(LAYER_IN)
    down = torch.empty(RANK, LAYER_IN)
    down.uniform_(-bound, bound, generator=torch.Generator().manual_seed(0))
    change = root_mean_squares([ALPHA / RANK * up @ down])[0] / WEIGHT_RMS
    assert row.layer_change == pytest.approx(change, rel=0.05)  # 1024 sums of 16: 2.2 % at random


@pytest.mark.parametrize("traveller", ["lora_down", "weight", "bias"])
def test_layer_change_of_other_tensors_is_relative_to_their_own_start(traveller: str) -> None:
    tensor = planned(traveller)
    (row,) = effective_steps([tensor], run_config(STEPPERS["false"]), 1e-2)
    assert row.layer_change == pytest.approx(row.total / tensor.rms)


def test_rows_come_in_a_fixed_order_and_count_every_tensor() -> None:
    tensors = [planned(name) for name in ("weight", "bias", "lora_up", "weight")]
    rows = effective_steps(tensors, run_config(STEPPERS["false"]), 1e-2)
    assert [(row.kind, row.tensors, row.numbers) for row in rows] == [
        ("lora_up", 1, 256 * RANK),
        ("weight", 2, 2 * 256 * LAYER_IN),
        ("bias", 1, 4096),
    ]


def test_later_steps_follow_the_schedule(plan_of: Callable[[str, str], Plan]) -> None:
    plan = plan_of(TUNINGS["lora"], OPTIMIZERS["adamw"])
    last = plan.steps - 1
    for row in plan.sheet:
        expected = [
            row.first / plan.schedule.factor(0) * plan.schedule.factor(max(0, step))
            for step in (math.ceil(0.1 * plan.steps) - 1, math.ceil(0.5 * plan.steps) - 1, last)
        ]
        assert list(row.later) == pytest.approx(expected)


@pytest.mark.parametrize("tuning", ["lora", "dora"])
def test_rate_of_full_fine_tuning_moves_the_layer_as_much(
    tuning: str, plan_of: Callable[[str, str], Plan]
) -> None:
    generator = torch.Generator().manual_seed(3)
    plan = plan_of(TUNINGS[tuning], OPTIMIZERS["adamw"])
    rows = {row.kind: row for row in plan.sheet}
    up, rank, alpha = rows["lora_up"], 64, 8.0
    # A step of Adam moves each number by its rate, up or down.
    signs = torch.randint(0, 2, (300, rank), generator=generator) * 2.0 - 1.0
    down = torch.rand(rank, up.fan_in, generator=generator) * 2 - 1
    change = alpha / rank * (up.first * signs) @ (down / math.sqrt(up.fan_in))
    assert up.full_lr == pytest.approx(float(change.square().mean().sqrt()), rel=0.05)
    assert rows["lora_down"].full_lr == 0
    if magnitude := rows.get("magnitude"):
        # A row of n numbers is as long as their RMS times the root of n, and moves with its length.
        moved = magnitude.first / math.sqrt(magnitude.fan_in)
        assert magnitude.full_lr == pytest.approx(moved)


def test_rate_of_a_whole_weight_is_its_own(plan_of: Callable[[str, str], Plan]) -> None:
    for row in plan_of(TUNINGS["full"], OPTIMIZERS["adamw"]).sheet:
        assert row.full_lr == pytest.approx(1e-3)
