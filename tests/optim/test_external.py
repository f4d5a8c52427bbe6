"""Optimizers of libraries: against the methods' authors, and through a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dadaptation
import prodigyopt
import pytest
import schedulefree
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from surefoot.config.load import UNIONS
from surefoot.config.optimizer import OptimizerConfig
from surefoot.config.optimizer_libraries import (
    DAdaptationConfig,
    LionConfig,
    MuonConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
    ScheduleFreeAdamWConfig,
)
from surefoot.engine.checkpoint import Checkpoints, State
from surefoot.engine.optimizer import build_optimizer
from surefoot.engine.optimizer_state import OptimizerMemory
from surefoot.finding import Refused
from surefoot.optim.facts import GOES_ON_OTHERWISE, REFUSED, facts_of
from surefoot.optim.library import class_sources
from surefoot.optim.scaling import TensorKind
from surefoot.tuning.trainable import Trainable

SHAPES: dict[TensorKind, tuple[int, ...]] = {
    "lora_up": (48, 4),
    "lora_down": (4, 12, 3, 3),
    "magnitude": (48,),
    "weight": (40, 32),
    "embedding": (20, 16),
    "bias": (7,),
}
# Two implementations add up in another order; ten steps of float32 products.
FLOAT32_TOLERANCE = 1e-5
KINDS = [kind for kind in UNIONS["optimizer"] if kind != "pytorch_optimizer"]


def trainables() -> list[Trainable]:
    """A tensor of each kind; `lora_up` starts at zero."""
    generator = torch.Generator().manual_seed(0)
    return [
        Trainable(f"{kind}.x", nn.Parameter(start * (kind != "lora_up")), kind, 0.1, 32, 4.0, 4)
        for kind, shape in SHAPES.items()
        for start in [0.1 * torch.randn(shape, generator=generator)]
    ]


def take_steps(optimizer: Optimizer, parameters: list[Tensor], first: int, last: int) -> None:
    """Noisy gradients of a bowl, with a learning rate that falls."""
    start = optimizer.param_groups[0]["lr"] / (1 - (first - 1) / 20) if first else None
    rate = start or optimizer.param_groups[0]["lr"]
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for item in parameters:
            item.grad = torch.randn(item.shape, generator=generator) + 3 * item.detach() + 1
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / 20)
        optimizer.step()
        optimizer.zero_grad()


def section(kind: str) -> OptimizerConfig:
    return UNIONS["optimizer"][kind]()  # pyright: ignore[reportReturnType]


def rate_of(config: OptimizerConfig) -> float:
    return 1.0 if facts_of(config).finds_rate else 1e-3


def interrupted(config: OptimizerConfig, folder: Path) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors after twelve steps, and after the same with a checkpoint at the fifth."""
    whole = trainables()
    optimizer = build_optimizer(config, rate_of(config), whole)
    take_steps(optimizer, [item.parameter for item in whole], 0, 12)

    first = trainables()
    optimizer = build_optimizer(config, rate_of(config), first)
    memory = OptimizerMemory(optimizer, first)
    take_steps(optimizer, [item.parameter for item in first], 0, 5)
    tensors = {item.name: item.parameter.detach() for item in first}
    checkpoints = Checkpoints(folder, "print", 1)
    checkpoints.write(State(5, tensors, memory.read(), {}, {}))
    state = checkpoints.read_last([])
    assert state is not None

    second = trainables()
    optimizer = build_optimizer(config, rate_of(config), second)
    with torch.no_grad():
        for item in second:
            item.parameter.copy_(state.tensors[item.name])
    OptimizerMemory(optimizer, second).restore(state.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = rate_of(config) * (1 - 4 / 20)
    take_steps(optimizer, [item.parameter for item in second], 5, 12)
    return [item.parameter for item in whole], [item.parameter for item in second]


@pytest.mark.parametrize("kind", KINDS)
def test_run_that_goes_on_from_a_checkpoint_ends_as_one_that_never_stopped(
    kind: str, tmp_path: Path
) -> None:
    whole, resumed = interrupted(section(kind), tmp_path)
    assert all(map(torch.equal, whole, resumed))
    assert not any(map(torch.equal, whole, [item.parameter for item in trainables()]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_steps_on_a_gpu_are_those_of_the_cpu(kind: str) -> None:
    config, there = section(kind), trainables()
    here = trainables()
    for item in there:
        item.parameter.data = item.parameter.data.cuda()
    for items in (here, there):
        optimizer = build_optimizer(config, rate_of(config), items)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for item in items:
                gradient = torch.randn(item.parameter.shape, generator=generator)
                item.parameter.grad = gradient.to(item.parameter.device)
            optimizer.step()
    for ours, theirs in zip(here, there, strict=True):
        # Muon iterates in bfloat16 on both.
        moved = rate_of(config) * (0.1 if kind == "muon" else 0.01)
        torch.testing.assert_close(ours.parameter, theirs.parameter.cpu(), rtol=1e-3, atol=moved)


BY_NAME = ["AggMo", "AdaShift", "Alice", "Kron", "NorMuon", "RMSprop", "SPlus", "ScheduleFreeRAdam"]


@pytest.mark.parametrize("name", BY_NAME)
def test_class_by_name_goes_on_alike_unless_the_check_says_otherwise(
    name: str, tmp_path: Path
) -> None:
    whole, resumed = interrupted(NamedOptimizerConfig(name=name), tmp_path)
    assert all(map(torch.equal, whole, resumed)) == (name not in GOES_ON_OTHERWISE)


def test_lists_of_classes_name_classes_of_the_library() -> None:
    assert {*REFUSED, *GOES_ON_OTHERWISE} <= class_sources().keys()
    assert REFUSED.keys().isdisjoint(GOES_ON_OTHERWISE)


AUTHORS: dict[str, tuple[OptimizerConfig, Callable[..., Optimizer], dict[str, Any]]] = {
    "prodigy": (
        ProdigyConfig(d0=1e-3, d_coef=0.5, growth_rate=1.5, weight_decay=0.1),
        prodigyopt.Prodigy,
        {"d0": 1e-3, "d_coef": 0.5, "growth_rate": 1.5, "weight_decay": 0.1},
    ),
    "prodigy with corrections": (
        ProdigyConfig(d0=1e-4, d_coef=8.0, bias_correction=True, beta3=0.99, safeguard_warmup=True),
        prodigyopt.Prodigy,
        {
            "d0": 1e-4,
            "d_coef": 8.0,
            "use_bias_correction": True,
            "safeguard_warmup": True,
            "beta3": 0.99,
        },
    ),
    "d_adaptation": (
        DAdaptationConfig(d0=1e-3, weight_decay=0.1),
        dadaptation.DAdaptAdam,
        {"d0": 1e-3, "weight_decay": 0.1, "decouple": True},
    ),
    "schedule_free_adamw": (
        ScheduleFreeAdamWConfig(weight_decay=0.1, r=1.0),
        schedulefree.AdamWScheduleFree,
        {"weight_decay": 0.1, "r": 1.0},
    ),
}


@pytest.mark.parametrize("name", AUTHORS)
def test_steps_are_those_of_the_authors_own_package(name: str, capsys: Any) -> None:
    config, authors, options = AUTHORS[name]
    ours, theirs = trainables(), trainables()
    optimizer = build_optimizer(config, rate_of(config), ours)
    reference = authors([item.parameter for item in theirs], lr=rate_of(config), **options)
    if isinstance(reference, schedulefree.AdamWScheduleFree):
        reference.train()
    for built, items in ((optimizer, ours), (reference, theirs)):
        take_steps(built, [item.parameter for item in items], 0, 10)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            left.parameter, right.parameter, rtol=FLOAT32_TOLERANCE, atol=1e-6
        )
    # What was compared has found a rate of its own.
    found = [group["d"] / group["d0"] for group in optimizer.param_groups if "d0" in group]
    assert all(growth > 1.1 for growth in found)


def test_lion_moves_every_number_by_the_learning_rate() -> None:
    items = trainables()
    before = [item.parameter.detach().clone() for item in items]
    optimizer = build_optimizer(LionConfig(), 1e-3, items)
    take_steps(optimizer, [item.parameter for item in items], 0, 1)
    for item, start in zip(items, before, strict=True):
        moved = (item.parameter.detach() - start).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-3, atol=0)


def test_muon_makes_matrices_orthogonal_and_leaves_the_others_to_adamw() -> None:
    items = trainables()
    optimizer = build_optimizer(MuonConfig(), 1e-3, items)
    matrices = {group["kind"] for group in optimizer.param_groups if group["use_muon"]}
    assert matrices == {"lora_up", "lora_down", "weight"}
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    before = {item.kind: item.parameter.detach().clone() for item in items}
    take_steps(optimizer, [item.parameter for item in items], 0, 1)
    for item in items:
        step = (item.parameter.detach() - before[item.kind]).flatten(
            1 if item.kind in matrices else 0
        )
        if item.kind in matrices:
            # Five iterations bring the singular values into 0.7 to 1.2, not to 1.
            values = torch.linalg.svdvals(step) / (0.2e-3 * max(step.shape) ** 0.5)
            assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
        else:
            torch.testing.assert_close(step.abs(), torch.full_like(step, 1e-3), rtol=1e-3, atol=0)


def test_values_that_a_class_refuses_are_said_in_one_finding() -> None:
    config = NamedOptimizerConfig(name="AdaBelief", arguments={"betas": (0.9, 2.0)})
    with pytest.raises(Refused) as refused:
        build_optimizer(config, 1e-3, trainables())
    (finding,) = refused.value.findings
    assert (finding.code, finding.path) == ("SF117", "optimizer.arguments")
    assert finding.values["reason"] == "beta2 must be in the range [0.0, 1.0)"


def test_memory_that_no_checkpoint_can_hold_is_an_error() -> None:
    items = trainables()
    optimizer = build_optimizer(LionConfig(), 1e-3, items)
    optimizer.state[items[0].parameter]["projector"] = object()
    with pytest.raises(TypeError, match="projector"):
        OptimizerMemory(optimizer, items).read()
