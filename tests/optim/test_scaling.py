"""The step scale: its closed forms, and that it is what the optimizer does."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from surefoot.optim.adafactor import Adafactor
from surefoot.optim.scaling import ScaleParameter, StepScale, TensorKind, step_scale

KINDS: tuple[TensorKind, ...] = get_args(TensorKind)
SCALES: tuple[ScaleParameter, ...] = (True, False, "weight")
WEIGHT_RMS, FAN_IN, ALPHA, EPS2 = 0.03, 1280, 8.0, 1e-3

# The step is read off float32 numbers of its own size.
FLOAT32_TOLERANCE = 1e-6


def scale_of(kind: TensorKind, scale_parameter: ScaleParameter) -> StepScale:
    return step_scale(
        kind, scale_parameter, weight_rms=WEIGHT_RMS, fan_in=FAN_IN, alpha=ALPHA, eps2=EPS2
    )


@pytest.mark.parametrize("kind", KINDS)
def test_true_is_the_rule_of_the_paper_for_every_kind(kind: TensorKind) -> None:
    scale = scale_of(kind, True)
    assert [scale.at(rms) for rms in (0.0, 1e-4, 1e-3, 0.5, 20.0)] == [1e-3, 1e-3, 1e-3, 0.5, 20.0]


@pytest.mark.parametrize("kind", KINDS)
def test_false_is_one_for_every_kind_and_size(kind: TensorKind) -> None:
    assert {scale_of(kind, False).at(rms) for rms in (0.0, 0.5, 20.0)} == {1.0}


@pytest.mark.parametrize("rms", [0.0, 0.5, 20.0])
def test_by_weight_a_lora_up_takes_its_layer_and_alpha_and_nothing_of_its_own(rms: float) -> None:
    assert scale_of("lora_up", "weight").at(rms) == pytest.approx(400 * 0.03 / 8)


def test_by_weight_a_lora_down_steps_five_times_its_own_rms() -> None:
    scale = scale_of("lora_down", "weight")
    assert scale.at(0.5) == pytest.approx(2.5)
    assert scale.at(0.0) == pytest.approx(5e-3)


@pytest.mark.parametrize("kind", ["magnitude", "norm", "embedding"])
def test_by_weight_everything_else_is_as_in_full_fine_tuning(kind: TensorKind) -> None:
    assert scale_of(kind, "weight") == scale_of(kind, True)


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_by_weight_a_zero_weight_steps_as_if_it_had_its_usual_size(kind: TensorKind) -> None:
    assert [scale_of(kind, "weight").at(rms) for rms in (0.0, 0.01, 0.5)] == [0.03, 0.03, 0.5]
    unknown = step_scale(kind, "weight", weight_rms=0.0, fan_in=0, alpha=1.0, eps2=EPS2)
    assert unknown == scale_of(kind, True)


@pytest.mark.parametrize(("fan_in", "factor"), [(36, 25.2), (64, 44.8), (571, 399.7), (3072, 400)])
def test_by_weight_the_lora_up_of_a_narrow_layer_steps_in_proportion_to_its_inputs(
    fan_in: int, factor: float
) -> None:
    scale = step_scale("lora_up", "weight", weight_rms=1.0, fan_in=fan_in, alpha=1.0, eps2=EPS2)
    assert scale.at(0.0) == pytest.approx(factor)


def test_by_weight_the_change_of_a_layer_does_not_depend_on_alpha() -> None:
    # W + (alpha / rank) B A: the step of B times alpha is what reaches the layer.
    reached = {
        round(
            alpha
            * step_scale(
                "lora_up", "weight", weight_rms=0.5, fan_in=FAN_IN, alpha=alpha, eps2=0
            ).at(0),
            9,
        )
        for alpha in (0.5, 1.0, 16.0, 128.0)
    }
    assert reached == {200.0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale_parameter", SCALES)
@pytest.mark.parametrize("rms", [0.0, 1e-4, 0.25])
def test_the_first_step_of_the_optimizer_is_the_scale_times_lr(
    kind: TensorKind, scale_parameter: ScaleParameter, rms: float
) -> None:
    start = torch.full((6, 4), rms)
    start[::2] *= -1
    parameter = nn.Parameter(start.clone())
    group = {
        "params": [parameter],
        "kind": kind,
        "weight_rms": [WEIGHT_RMS],
        "fan_in": [FAN_IN],
        "alpha": ALPHA,
    }
    optimizer = Adafactor([group], lr=0.5, scale_parameter=scale_parameter, eps2=EPS2)
    parameter.grad = torch.ones(6, 4)
    optimizer.step()
    step = (start - parameter.detach()).double()
    expected = 0.5 * scale_of(kind, scale_parameter).at(rms)
    assert step.min().item() == pytest.approx(expected, abs=FLOAT32_TOLERANCE * (rms + expected))
    assert step.max().item() == pytest.approx(expected, abs=FLOAT32_TOLERANCE * (rms + expected))
