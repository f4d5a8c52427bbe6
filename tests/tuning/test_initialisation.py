from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot.tuning import dora, lora
from surefoot.tuning.factors import FactorLayer
from surefoot.tuning.initialisation import Initialisation, fresh_factors
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.trainable import Tuned

LAYERS = {
    "linear": lambda: nn.Linear(24, 20),
    "convolution": lambda: nn.Conv2d(6, 20, 3, padding=1),
}


def made(layer: str) -> tuple[nn.ModuleDict, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(3, 24) if layer == "linear" else torch.randn(2, 6, 5, 5)
    return nn.ModuleDict({"inner": LAYERS[layer]()}), x


def attached(
    kind: str, model: nn.Module, initialisation: Initialisation = "pissa", rank: int = 4
) -> tuple[Tuned, FactorLayer]:
    attach = partial(attach_adapters, lora.LoraLayer if kind == "lora" else dora.DoraLayer)
    tuned = attach(
        {"unet": model},
        {"unet": ("inner",)},
        rank=rank,
        alpha=6.0,
        generator=torch.Generator().manual_seed(1),
        initialisation=initialisation,
    )
    layer = tuned.layers[0]
    assert isinstance(layer, FactorLayer)
    return tuned, layer


def moved(layer: FactorLayer) -> None:
    with torch.no_grad():
        for name in ("lora_down", "lora_up"):
            parameter = layer.get_parameter(name)
            parameter.add_(0.05 * torch.randn(parameter.shape))


def test_gaussian_has_the_deviation_that_it_says_and_lora_up_is_zero() -> None:
    weight = torch.zeros(30, 4000)
    down, up = fresh_factors("gaussian", weight, 8, 1.0, torch.Generator().manual_seed(0))
    assert float(down.std()) == pytest.approx(1 / 8, rel=0.02)
    assert not up.any()


@pytest.mark.parametrize("layer", list(LAYERS))
def test_principal_factors_are_those_of_the_singular_value_decomposition(layer: str) -> None:
    model, _ = made(layer)
    _, tuned = attached("lora", model)
    weight = tuned.weight.detach().flatten(1).double().numpy()
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    expected = left[:, :4] * values[:4] @ right[:4]
    down, up = tuned.lora_down.detach().flatten(1), tuned.lora_up.detach().flatten(1)
    found = tuned.scale * (up @ down).double().numpy()
    # Random weights are the hardest case: no value stands out. A thousandth is what is promised.
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    # Each factor has the root of the values.
    lengths = np.sqrt(values[:4] / tuned.scale)
    np.testing.assert_allclose(down.norm(dim=1).numpy(), lengths, rtol=1e-3)
    np.testing.assert_allclose(up.norm(dim=0).numpy(), lengths, rtol=1e-3)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_the_model_answers_as_before_and_its_weight_is_untouched(kind: str, layer: str) -> None:
    model, x = made(layer)
    before, weight = model["inner"](x), model["inner"].get_parameter("weight").clone()
    _, tuned = attached(kind, model)
    torch.testing.assert_close(model["inner"](x), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(tuned.weight, weight)
    assert float(tuned.delta_norm()) < 1e-5
    assert float(tuned.delta().norm()) < 1e-5


@pytest.mark.parametrize("layer", list(LAYERS))
def test_output_and_gradients_are_those_of_the_difference_in_float64(layer: str) -> None:
    model, x = made(layer)
    _, tuned = attached("lora", model)
    down, up = (tuned.get_parameter(n).detach().double() for n in ("lora_down", "lora_up"))
    moved(tuned)
    a = tuned.lora_down.detach().double().requires_grad_()
    b = tuned.lora_up.detach().double().requires_grad_()
    base = copy.deepcopy(tuned.base).double()
    difference = b.flatten(1) @ a.flatten(1) - up.flatten(1) @ down.flatten(1)
    weight = base.weight.detach() + tuned.scale * difference.view(base.weight.shape)
    if isinstance(base, nn.Linear):
        expected = F.linear(x.double(), weight, base.bias)
    else:
        expected = F.conv2d(x.double(), weight, base.bias, padding=1)
    expected.square().sum().backward()
    output = model["inner"](x)
    output.square().sum().backward()
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    for found, wanted in ((tuned.lora_down, a), (tuned.lora_up, b)):
        assert found.grad is not None
        assert wanted.grad is not None
        torch.testing.assert_close(found.grad.double(), wanted.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_state_is_an_adapter_of_twice_the_rank_on_the_original_weight(kind: str) -> None:
    model, x = made("linear")
    _, tuned = attached(kind, model)
    moved(tuned)
    state = tuned.state()
    assert state["lora_down"].shape == (8, 24)
    assert float(state["alpha"]) / 8 == tuned.scale
    expected = F.linear(x, tuned.merged_weight(), tuned.bias)
    torch.testing.assert_close(model["inner"](x), expected, rtol=1e-5, atol=1e-5)


def test_what_it_started_from_can_be_kept_and_put_back() -> None:
    model, x = made("linear")
    tuned, layer = attached("lora", model)
    moved(layer)
    assert sorted(tuned.starts()) == ["unet.inner.start_down", "unet.inner.start_up"]
    assert not attached("lora", made("linear")[0], "kaiming")[0].starts()
    other, _ = made("linear")
    _, copied = attached("lora", other)
    copied.load_state_dict(layer.state_dict())
    assert torch.equal(other["inner"](x), model["inner"](x))


def test_a_rank_above_the_layer_s_own_leaves_the_rest_at_zero() -> None:
    model, x = made("linear")
    before = model["inner"](x)
    _, tuned = attached("lora", model, rank=32)
    torch.testing.assert_close(model["inner"](x), before, rtol=1e-5, atol=1e-5)
    assert not tuned.lora_up[:, 20:].any()


def test_the_same_generator_gives_the_same_factors_and_leaves_torch_s_own_alone() -> None:
    models = [made("linear")[0] for _ in range(2)]
    before = torch.get_rng_state()
    first, second = (attached("lora", model)[1] for model in models)
    assert torch.equal(first.lora_down, second.lora_down)
    assert torch.equal(torch.get_rng_state(), before)
