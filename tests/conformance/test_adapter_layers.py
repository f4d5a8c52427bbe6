"""What every adapter does on every kind of layer.

A row in `TUNINGS` and in `LAYERS` is all that a new one needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from surefoot.tuning import dora, loha, lokr, lora
from surefoot.tuning.delta import SMALLEST_SQUARED_NORM, normed_dimensions, weight_delta
from surefoot.tuning.layers import AdapterLayer
from surefoot.tuning.merging import merged
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.trainable import Tuned

Attach = Callable[..., Tuned]

TUNINGS: dict[str, tuple[Attach, dict[str, Any]]] = {
    "lora": (partial(attach_adapters, lora.LoraLayer), {}),
    "dora over outputs": (partial(attach_adapters, dora.DoraLayer), {"axis": "output"}),
    "dora over inputs": (partial(attach_adapters, dora.DoraLayer), {"axis": "input"}),
    "loha": (partial(attach_adapters, loha.LohaLayer), {}),
    "lokr": (partial(attach_adapters, lokr.LokrLayer), {}),
    "lokr of whole sides": (partial(attach_adapters, lokr.LokrLayer), {"factor": 2}),
}
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 10), (3, 5, 12)),
    "linear without bias": (lambda: nn.Linear(12, 10, bias=False), (7, 12)),
    "fused projections": (lambda: nn.Linear(12, 36), (2, 4, 12)),
    "conv1d 3": (lambda: nn.Conv1d(6, 8, 3, padding=1), (2, 6, 9)),
    "conv2d 1x1": (lambda: nn.Conv2d(6, 8, 1), (2, 6, 5, 4)),
    "conv2d 3x3 stride 2": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 7, 7)),
    "conv2d 3x2 dilated": (
        lambda: nn.Conv2d(6, 8, (3, 2), padding=(2, 1), dilation=(2, 1), bias=False),
        (2, 6, 6, 5),
    ),
    "conv2d in groups": (lambda: nn.Conv2d(6, 8, 3, padding=1, groups=2), (2, 6, 5, 5)),
    "conv2d depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 5, 5)),
    "conv2d reflecting": (
        lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"),
        (2, 6, 5, 5),
    ),
    "conv3d 3x1x1": (lambda: nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0)), (1, 4, 4, 3, 3)),
    "conv3d 3x3x3 in groups": (lambda: nn.Conv3d(4, 6, 3, groups=2), (1, 4, 4, 4, 4)),
}
EVERY = [
    pytest.mark.parametrize("tuning", list(TUNINGS)),
    pytest.mark.parametrize("kind", list(LAYERS)),
]


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    for mark in EVERY:
        test = mark(test)
    return test


class Model(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def made(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    return Model(make()).to(dtype), torch.randn(shape, dtype=dtype)


def attached(tuning: str, model: Model, **options: Any) -> tuple[Tuned, AdapterLayer]:
    attach, own = TUNINGS[tuning]
    generator = torch.Generator().manual_seed(1)
    tuned = attach(
        {"unet": model},
        {"unet": ("inner",)},
        rank=3,
        alpha=5.0,
        generator=generator,
        **own,
        **options,
    )
    return tuned, tuned.layers[0]


@torch.no_grad()
def train_a_little(tuned: Tuned) -> None:
    """Values that training could have given."""
    generator = torch.Generator().manual_seed(2)
    for item in tuned.trainables:
        noise = torch.randn(item.parameter.shape, generator=generator)
        if item.kind == "magnitude":
            item.parameter.mul_(1 + 0.2 * noise)
        else:
            item.parameter.add_(0.1 * noise)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_changes_no_bit(tuning: str, kind: str, dtype: torch.dtype) -> None:
    model, x = made(kind, dtype)
    before = model(x)
    attached(tuning, model)
    after = model(x)
    assert after.dtype == dtype
    assert torch.equal(after, before)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_equals_unmerged_and_unmerging_is_exact(
    tuning: str, kind: str, dtype: torch.dtype
) -> None:
    model, x = made(kind, dtype)
    tuned, layer = attached(tuning, model)
    train_a_little(tuned)
    weight = layer.weight.clone()
    beside = model(x)
    with merged(tuned):
        assert not torch.equal(layer.weight, weight)
        within = model(x)
    assert torch.equal(layer.weight, weight)
    assert torch.equal(model(x), beside)
    # A product of a dozen terms of size 1: rounded once for each side and sum.
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(within, beside, rtol=tolerance, atol=tolerance)


def plain(layer: AdapterLayer, x: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The layer in float64 by the formula itself; its output, its tensors and its input."""
    base = copy.deepcopy(layer.base).double()
    leaves = {
        name: tensor.double().requires_grad_(name != "alpha")
        for name, tensor in layer.state().items()
    }
    weight = base.weight.detach() + weight_delta(leaves, layer.weight_shape)
    if "magnitude" in leaves:
        over = normed_dimensions(tuple(leaves["magnitude"].shape), layer.weight_shape)
        norm = weight.detach().square().sum(over, keepdim=True).clamp_min(SMALLEST_SQUARED_NORM)
        weight = weight * (leaves["magnitude"] / norm.sqrt())
    x = x.detach().double().requires_grad_()
    if isinstance(base, nn.Linear):
        return F.linear(x, weight, base.bias), leaves, x
    return base._conv_forward(x, weight, base.bias), leaves, x


@everywhere
def test_gradients_are_those_of_the_plain_formula_in_float64(tuning: str, kind: str) -> None:
    model, x = made(kind)
    tuned, layer = attached(tuning, model)
    train_a_little(tuned)
    expected, leaves, precise = plain(layer, x)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3))
    expected.backward(direction.double())
    x = x.clone().requires_grad_()
    output = model(x)
    output.backward(direction)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    assert x.grad is not None
    assert precise.grad is not None
    torch.testing.assert_close(x.grad.double(), precise.grad, rtol=1e-5, atol=1e-5)
    for name, parameter in layer.named_parameters(recurse=False):
        found, wanted = parameter.grad, leaves[name].grad
        assert found is not None
        assert wanted is not None
        error = (found.double() - wanted.reshape(found.shape)).abs().max()
        assert error <= 1e-5 * wanted.abs().max(), name


@everywhere
def test_autocast_gives_the_same_up_to_its_rounding(tuning: str, kind: str) -> None:
    model, x = made(kind)
    tuned, layer = attached(tuning, model)
    train_a_little(tuned)
    x.requires_grad_()
    exact = model(x)
    exact.sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters(recurse=False)}
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x)
    assert rounded.dtype == torch.bfloat16
    rounded.float().sum().backward()
    torch.testing.assert_close(rounded.float(), exact, rtol=5e-2, atol=5e-2)
    for name, parameter in layer.named_parameters(recurse=False):
        wanted = gradients[name]
        assert parameter.grad is not None
        assert wanted is not None
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - wanted).norm() <= 3e-2 * wanted.norm(), name


@everywhere
def test_a_hook_on_the_frozen_layer_is_called_and_changes_nothing(tuning: str, kind: str) -> None:
    model, x = made(kind)
    tuned, layer = attached(tuning, model)
    train_a_little(tuned)
    without = model(x)
    without.sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters(recurse=False)}
    layer.zero_grad()
    calls: list[None] = []
    layer.base.register_forward_pre_hook(lambda *_: calls.append(None))
    output = model(x)
    output.sum().backward()
    assert calls
    torch.testing.assert_close(output, without, rtol=1e-5, atol=1e-5)
    for name, parameter in layer.named_parameters(recurse=False):
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)


def with_gain_alone(layer: dora.DoraLayer, x: Tensor) -> Tensor:
    """The frozen layer with W replaced by g W, and nothing of B A."""
    base = copy.deepcopy(layer.base)
    over = 0 if layer.axis == "output" else 1
    shape = [1] * base.weight.ndim
    shape[over] = -1
    others = [index for index in range(base.weight.ndim) if index != over]
    gain = layer.magnitude / torch.linalg.vector_norm(layer.weight + layer.delta(), dim=others)
    with torch.no_grad():
        base.weight.mul_(gain.view(shape))
    return base(x)


@everywhere
def test_dropout_is_on_the_adapter_alone_and_in_training_only(tuning: str, kind: str) -> None:
    model, x = made(kind)
    tuned, layer = attached(tuning, model, dropout=0.999999)
    train_a_little(tuned)
    weight, base = layer.merged_weight(), layer.frozen_weight()
    model.eval()
    whole = model(x)
    model.train()
    alone = model(x)
    frozen = layer.base(x)
    # Of the adapter nothing is left but DoRA's gain, on what the frozen layer gets or gives.
    expected = with_gain_alone(layer, x) if isinstance(layer, dora.DoraLayer) else frozen
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(whole, frozen, atol=1e-3)
    assert not torch.allclose(weight, base)
    assert not torch.allclose(whole, alone, atol=1e-4)


@everywhere
def test_a_row_of_zeros_stays_and_gives_no_nan(tuning: str, kind: str) -> None:
    model, x = made(kind)
    weight = model.inner.weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight[0].zero_()
        weight[:, 0].zero_()
    before = model(x)
    _, layer = attached(tuning, model)
    output = model(x)
    assert torch.equal(output, before)
    output.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@everywhere
def test_the_state_in_another_layer_gives_the_same_weight(tuning: str, kind: str) -> None:
    model, _ = made(kind)
    tuned, layer = attached(tuning, model)
    train_a_little(tuned)
    other, _ = made(kind)
    _, copied = attached(tuning, other)
    with torch.no_grad():
        for name, tensor in layer.state().items():
            if name != "alpha":
                parameter = getattr(copied, name)
                parameter.copy_(tensor.reshape(parameter.shape))
    assert torch.equal(copied.merged_weight(), layer.merged_weight())
