"""Adapters of another shape than LoRA's: LoHa, LoKr, Tucker cores, scalars, embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from peft import (
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    get_peft_model,
)
from torch import Tensor, nn

from surefoot.optim import parameter_groups
from surefoot.optim.scaling import lora_up_factor, step_scale
from tests.optim.networks import (
    described,
    ends,
    large_network,
    network,
    rms,
)

RANK, ALPHA, LARGE_RANK = 4, 6.0, 16
# Up to five factors of sixteen to several hundred random numbers each.
SAME_SIZE = 0.2


TARGETS = ["wide", "conv"]
PEFT: dict[str, Any] = {
    "peft loha": LoHaConfig(r=LARGE_RANK, alpha=LARGE_RANK, target_modules=TARGETS),
    "peft lokr": LoKrConfig(r=LARGE_RANK, alpha=LARGE_RANK, target_modules=TARGETS),
    "peft lokr as lycoris": LoKrConfig(
        r=LARGE_RANK, alpha=LARGE_RANK, target_modules=TARGETS, init_weights="lycoris"
    ),
}
LYCORIS: dict[str, tuple[Any, dict[str, Any]]] = {
    "locon": (LoConModule, {}),
    "locon tucker": (LoConModule, {"use_tucker": True}),
    "locon scalar": (LoConModule, {"use_scalar": True}),
    "loha": (LohaModule, {}),
    "loha tucker": (LohaModule, {"use_tucker": True}),
    "loha scalar": (LohaModule, {"use_scalar": True}),
    "lokr": (LokrModule, {"factor": 12}),
    "lokr both": (LokrModule, {"factor": 48, "decompose_both": True}),
    "lokr full": (LokrModule, {"full_matrix": True}),
}


def made(maker: str) -> tuple[nn.Module, dict[str, Callable[[], Tensor]]]:
    """A network or the adapters of one, and what computes the update of each of two layers."""
    model = large_network()
    if maker in PEFT:
        peft: Any = get_peft_model(cast(Any, model), PEFT[maker])
        layers = {name: getattr(peft.base_model.model, name) for name in TARGETS}
        return peft, {
            name: partial(layer.get_delta_weight, "default") for name, layer in layers.items()
        }
    kind, options = LYCORIS[maker]
    items = {
        name: kind(name, model.get_submodule(name), 1.0, LARGE_RANK, ALPHA, **options)
        for name in TARGETS
    }
    return nn.ModuleDict(items), {name: partial(update_of, item) for name, item in items.items()}


def update_of(item: Any) -> Tensor:
    """What is added to the layer's weight in LyCORIS's forward pass."""
    if item.name == "locon":
        return item.get_diff_weight()[0]
    # Its get_diff_weight has the scale in it twice, its forward pass once.
    return item.get_weight(item.shape) * item.scalar


@pytest.mark.parametrize("maker", [*LYCORIS, *PEFT])
def test_the_first_step_changes_the_layer_as_a_lora_or_a_weight_would(maker: str) -> None:
    model, updates = made(maker)
    plain = large_network()
    steps = {
        name: (parameter, layer_rms, group["alpha"])
        for group in cast(list[dict[str, Any]], parameter_groups(model))
        if group["kind"] == "lora_up"
        for (name, parameter), layer_rms in zip(group["params"], group["weight_rms"], strict=True)
    }
    assert len(steps) == 2
    lr = 1e-3
    for layer, weight in (("wide", plain.wide.weight), ("conv", plain.conv.weight)):
        assert updates[layer]().abs().max() == 0
        ((name, (zero, layer_rms, alpha)),) = (
            (name, row) for name, row in steps.items() if layer in name
        )
        fan_in = math.prod(weight.shape[1:])
        scale = step_scale(
            "lora_up", "weight", weight_rms=layer_rms, fan_in=fan_in, alpha=alpha, eps2=1e-3
        )
        with torch.no_grad():
            zero.copy_(torch.randn_like(zero).sign() * lr * scale.floor)
        # A fresh LoRA's: scale * sqrt(rank) * RMS(lora_down) * lr * c_B * RMS(W) / alpha.
        down = 1 / math.sqrt(3 * fan_in)
        expected = lr * rms(weight) * lora_up_factor(fan_in) * down / math.sqrt(LARGE_RANK)
        if is_as_free_as_a_weight(name):
            expected = lr * rms(weight)
        assert rms(updates[layer]()) == pytest.approx(expected, rel=SAME_SIZE)


def is_as_free_as_a_weight(name: str) -> bool:
    end = name.removesuffix(".default").rpartition(".")[2]
    return end in ("scalar", "lokr_w1", "lokr_w2")


def test_the_embedding_of_peft_has_the_other_factor_at_zero() -> None:
    config = LoraConfig(r=RANK, lora_alpha=8, target_modules=["table"], use_dora=True)
    model = get_peft_model(cast(Any, network()), config)
    found = described(parameter_groups(model))
    assert ends(found, "lora_embedding_B.default")[0] == "lora_down"
    kind, alpha, layer_rms = ends(found, "lora_embedding_A.default")
    assert (kind, alpha) == ("lora_up", 8.0)
    # Its partner is drawn with an RMS of 1 rather than 1 / sqrt(3 fan in).
    expected = rms(network().table.weight) / math.sqrt(3 * 24)
    assert layer_rms == pytest.approx(expected, rel=0.2)
