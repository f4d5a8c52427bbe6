from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from surefoot.tuning import dora, lora
from surefoot.tuning.layers import AdapterLayer
from surefoot.tuning.max_norm import limit_norms
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.trainable import Tuned


def tuned_model(kind: str, std: float = 1.0) -> tuple[nn.Module, Tuned]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"small": nn.Linear(8, 6), "large": nn.Conv2d(8, 6, 3)})
    attach = partial(attach_adapters, lora.LoraLayer if kind == "lora" else dora.DoraLayer)
    tuned = attach(
        {"unet": model},
        {"unet": ("small", "large")},
        rank=4,
        alpha=12.0,
        generator=torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        for layer, size in zip(tuned.layers, (0.01, std), strict=True):
            nn.init.normal_(layer.get_parameter("lora_up"), std=size)
    return model, tuned


def norm_of(layer: AdapterLayer) -> float:
    return float(layer.delta().double().norm())


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_norm_from_factors_is_that_of_the_update(kind: str) -> None:
    _, tuned = tuned_model(kind)
    for layer in tuned.layers:
        assert float(layer.delta_norm()) == pytest.approx(norm_of(layer), rel=1e-5)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_only_what_is_too_large_is_scaled_back_and_evenly(kind: str) -> None:
    _, tuned = tuned_model(kind)
    small, large = tuned.layers
    before = {name: value.clone() for name, value in tuned.adapters().items()}
    whole = norm_of(large)
    assert int(limit_norms(tuned, 0.5)) == 1
    assert norm_of(large) == pytest.approx(0.5, rel=1e-5)
    ratio = (0.5 / whole) ** 0.5
    for leaf in ("lora_down", "lora_up"):
        expected = before[f"{large.path}.{leaf}"] * ratio
        torch.testing.assert_close(large.get_parameter(leaf).detach(), expected)
        assert torch.equal(small.get_parameter(leaf), before[f"{small.path}.{leaf}"])
    assert int(limit_norms(tuned, 0.5 + 1e-4)) == 0


def test_a_fresh_adapter_stays_as_it_is() -> None:
    _, tuned = tuned_model("dora", std=0.0)
    with torch.no_grad():
        tuned.layers[0].get_parameter("lora_up").zero_()
    before = [value.clone() for value in tuned.adapters().values()]
    assert int(limit_norms(tuned, 0.5)) == 0
    assert all(map(torch.equal, before, tuned.adapters().values()))


def test_the_norms_of_a_dora_follow() -> None:
    _, tuned = tuned_model("dora")
    layer = tuned.layers[1]
    assert isinstance(layer, dora.DoraLayer)
    layer.norms()
    limit_norms(tuned, 0.5)
    expected = (layer.weight + layer.delta()).flatten(1).norm(dim=1)
    torch.testing.assert_close(layer.norms(), expected.detach(), rtol=1e-6, atol=0)
