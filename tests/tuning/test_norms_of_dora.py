"""DoRA's norms are computed once for each state of the factors, and never stand still with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from surefoot.optim.adafactor import Adafactor
from surefoot.optim.grouping import group_by_kind
from surefoot.tuning import dora
from surefoot.tuning.dora import DoraLayer
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.trainable import Tuned


def tuned_layer(axis: dora.NormAxis = "output") -> tuple[nn.Module, DoraLayer, Tuned]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10), nn.Tanh())
    generator = torch.Generator().manual_seed(1)
    tuned = attach_adapters(
        dora.DoraLayer,
        {"unet": model},
        {"unet": ("0",)},
        rank=3,
        alpha=2.0,
        generator=generator,
        axis=axis,
    )
    layer = tuned.layers[0]
    assert isinstance(layer, DoraLayer)
    nn.init.normal_(layer.lora_up, std=0.1, generator=generator)
    return model, layer, tuned


def counted(layer: DoraLayer, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    calls: list[None] = []
    computed = DoraLayer._computed_norms

    def count(self: DoraLayer) -> torch.Tensor:
        calls.append(None)
        return computed(self)

    monkeypatch.setattr(DoraLayer, "_computed_norms", count)
    return calls


def true_norms(layer: DoraLayer) -> torch.Tensor:
    dimension = 1 if layer.axis == "output" else 0
    return (layer.weight.double() + layer.delta().double()).norm(dim=dimension).float()


def test_accumulation_checkpointing_and_looking_compute_them_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, layer, _ = tuned_layer()
    calls = counted(layer, monkeypatch)
    for _step in range(3):
        x = torch.randn(5, 12, requires_grad=True)
        result = checkpoint(model, x, use_reentrant=False)
        assert isinstance(result, torch.Tensor)
        result.sum().backward()
    with torch.no_grad():
        model(torch.randn(2, 12))
    assert len(calls) == 1


@pytest.mark.parametrize("axis", ["output", "input"])
def test_every_step_of_adafactor_makes_them_new(axis: dora.NormAxis, arithmetic: str) -> None:
    del arithmetic
    model, layer, tuned = tuned_layer(axis)
    groups = group_by_kind(tuned.trainables)
    optimizer = Adafactor(groups, lr=0.1, scale_parameter="weight")
    for _step in range(3):
        model(torch.randn(5, 12)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(layer.norms(), true_norms(layer), rtol=2e-6, atol=0)


def test_a_write_past_torch_is_seen_once_it_is_told() -> None:
    _, layer, tuned = tuned_layer()
    layer.norms()
    layer.lora_up.data.mul_(3)
    tuned.weights_changed()
    torch.testing.assert_close(layer.norms(), true_norms(layer), rtol=2e-6, atol=0)


def test_a_loaded_state_and_another_tensor_are_seen() -> None:
    _, layer, _ = tuned_layer()
    layer.norms()
    other, _, _ = tuned_layer()
    state = {name: 2 * value for name, value in other.state_dict().items()}
    layer.load_state_dict({k.removeprefix("0."): v for k, v in state.items() if k[0] == "0"})
    factors = layer.lora_up @ layer.lora_down * layer.scale
    layer.squared_norms.copy_(layer.weight.square().sum(dim=1))
    expected = (layer.weight + factors).norm(dim=1)
    torch.testing.assert_close(layer.norms(), expected.detach(), rtol=2e-6, atol=0)
    layer.lora_up = nn.Parameter(torch.zeros_like(layer.lora_up))
    torch.testing.assert_close(layer.norms(), layer.weight.norm(dim=1), rtol=2e-6, atol=0)
