"""`review_training` on models and optimizers that are none of ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim import Optimizer

import surefoot
from surefoot import parameter_groups, review_training


def adapted(dora: bool = True) -> nn.Module:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    config = LoraConfig(r=4, lora_alpha=4, use_dora=dora, target_modules=["0", "1"])
    return get_peft_model(model, config)  # pyright: ignore[reportArgumentType]


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [item for item in model.parameters() if item.requires_grad]


def codes(model: nn.Module, optimizer: Any) -> list[str]:
    return [finding.code for finding in review_training(model, optimizer).findings]


def test_adamw_on_an_adapter_has_no_finding() -> None:
    model = adapted()
    review = review_training(model, torch.optim.AdamW(trained(model), lr=1e-4))
    assert review.findings == ()
    assert {row.kind: row.step for row in review.rows} == pytest.approx(
        {"lora_up": 1e-4, "lora_down": 1e-4, "magnitude": 1e-4}
    )


def adafactors(model: nn.Module) -> list[Optimizer]:
    from transformers import Adafactor

    return [
        Adafactor(trained(model), lr=1e-4, scale_parameter=True, relative_step=False),
        Adafactor(trained(model)),
        torch.optim.Adafactor(trained(model), lr=1e-3),
    ]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_adafactors_own_scale_leaves_a_fresh_adapter_idle(number: int) -> None:
    model = adapted()
    # The rate that would move lora_up would ruin the magnitude, says the second.
    assert codes(model, adafactors(model)[number]) == ["SF543", "SF545"]


def test_adafactor_without_it_and_ours_by_the_weight_have_no_finding() -> None:
    from transformers import Adafactor

    model = adapted()
    off = Adafactor(trained(model), lr=3e-4, scale_parameter=False, relative_step=False)
    assert codes(model, off) == []
    assert codes(model, surefoot.Adafactor(parameter_groups(model), lr=1e-2)) == []


def test_a_magnitude_whose_steps_are_orders_beyond_those_of_the_matrices_is_found() -> None:
    model = adapted()
    optimizer = torch.optim.Adafactor(trained(model), lr=0.1)  # 1e-4 for lora_up
    review = review_training(model, optimizer)
    assert [finding.code for finding in review.findings] == ["SF545"]
    layer = model.get_submodule("base_model.model.0")
    tensors = dict(layer.named_parameters())
    up, down = tensors["lora_B.default.weight"], tensors["lora_A.default.weight"]
    weight = tensors["base_layer.weight"]
    with torch.no_grad():
        moved = torch.where(torch.rand_like(up) < 0.5, 1e-4, -1e-4) @ down
    change = float(moved.norm() / weight.norm())
    assert review.findings[0].values["up"] == pytest.approx(100 * change, rel=0.3)
    assert review.findings[0].values["magnitude"] == pytest.approx(10, rel=1e-3)

    names = {name: item for name, item in model.named_parameters() if item.requires_grad}
    apart = torch.optim.Adafactor(
        [
            {"params": [item for name, item in names.items() if "magnitude" not in name]},
            {"params": [item for name, item in names.items() if "magnitude" in name], "lr": 1e-3},
        ],
        lr=0.1,
    )
    assert codes(model, apart) == []


@pytest.mark.parametrize(("lr", "expected"), [(1e-4, []), (1.0, ["SF546"]), (1e-9, ["SF546"])])
def test_a_rate_of_another_optimizer_is_found(lr: float, expected: list[str]) -> None:
    model = adapted(dora=False)
    said = ["SF543"] if lr == 1e-9 else expected  # of a fresh adapter there is more to say
    assert codes(model, torch.optim.AdamW(trained(model), lr=lr)) == said
    whole = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 8))
    assert codes(whole, torch.optim.AdamW(whole.parameters(), lr=lr)) == expected


def test_prodigy_wants_a_factor_for_its_rate() -> None:
    from prodigyopt import Prodigy

    model = adapted()
    assert codes(model, Prodigy(trained(model), lr=1e-4)) == ["SF547"]
    assert codes(model, Prodigy(trained(model))) == []


def test_sgd_is_not_judged_by_its_rate() -> None:
    whole = nn.Linear(64, 64)
    assert codes(whole, torch.optim.SGD(whole.parameters(), lr=10.0)) == []


def test_a_warm_up_does_not_make_a_rate_look_like_none() -> None:
    model = adapted()
    optimizer = torch.optim.AdamW(trained(model), lr=1e-4)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 100)
    assert optimizer.param_groups[0]["lr"] == 0
    assert codes(model, optimizer) == []


def test_tensors_that_only_one_side_has_are_named() -> None:
    model = adapted()
    some = [item for name, item in model.named_parameters() if "magnitude" not in name]
    held = [item for item in some if item.requires_grad]
    stranger = nn.Parameter(torch.ones(32))  # what a magnitude was before it was made anew
    review = review_training(model, torch.optim.AdamW([*held, stranger], lr=1e-4))
    assert [finding.code for finding in review.findings] == ["SF541", "SF542"]
    assert "magnitude" in str(review.findings[0].values["example"])
    assert "error[SF541]" in str(review)


def test_steps_that_bfloat16_rounds_away_are_found() -> None:
    model = nn.Linear(64, 64).to(torch.bfloat16)
    assert "SF544" in codes(model, torch.optim.AdamW(model.parameters(), lr=1e-7))
    assert codes(nn.Linear(64, 64), torch.optim.AdamW(model.parameters(), lr=1e-7)) != []
