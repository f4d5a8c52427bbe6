"""LoHa and LoKr equal LyCORIS's, in the tensors they consist of and in what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lycoris.functional import factorization
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import Tensor, nn

from surefoot.tuning.factor_shapes import factorised
from surefoot.tuning.layers import AdaptableLayer
from surefoot.tuning.loha import LohaLayer
from surefoot.tuning.lokr import LokrLayer

LAYERS: dict[str, tuple[Callable[[], AdaptableLayer], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(48, 40), (3, 7, 48)),
    "conv1d": (lambda: nn.Conv1d(24, 36, 3, padding=1), (2, 24, 9)),
    "conv2d 1x1": (lambda: nn.Conv2d(24, 36, 1), (2, 24, 5, 4)),
    "conv2d 3x3": (lambda: nn.Conv2d(24, 36, 3, stride=2, padding=1), (2, 24, 7, 7)),
    "conv3d": (lambda: nn.Conv3d(12, 18, (3, 1, 1)), (1, 12, 4, 3, 3)),
}
ADAPTERS: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "loha": (LohaLayer, LohaModule, {}, {}),
    "lokr": (LokrLayer, LokrModule, {}, {}),
    "lokr factor 4": (LokrLayer, LokrModule, {"factor": 4}, {"factor": 4}),
    "lokr of four factors": (
        LokrLayer,
        LokrModule,
        {"rank": 2, "decompose_both": True},
        {"lora_dim": 2, "decompose_both": True},
    ),
    "lokr of whole sides": (LokrLayer, LokrModule, {"rank": 24}, {"lora_dim": 24}),
}


def pair(adapter: str, kind: str) -> tuple[Any, Any, Tensor]:
    """Ours and LyCORIS's on layers with the same weight, and an input."""
    torch.manual_seed(0)
    ours, theirs, own, foreign = ADAPTERS[adapter]
    make, shape = LAYERS[kind]
    base, copy = make(), make()
    copy.load_state_dict(base.state_dict())
    generator = torch.Generator().manual_seed(1)
    options = {"rank": 3, "alpha": 1.5, "generator": generator} | own
    layer = ours("unet.layer", base, **options)
    given = {"lora_dim": 3, "alpha": 1.5, "bypass_mode": False} | foreign
    return layer, theirs("layer", copy, **given), torch.randn(shape)


def parameters(module: Any) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False))


@pytest.mark.parametrize("kind", list(LAYERS))
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_tensors_are_those_of_lycoris_and_begin_as_large(adapter: str, kind: str) -> None:
    layer, module, _ = pair(adapter, kind)
    ours, theirs = parameters(layer), parameters(module)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in theirs.items()
    }
    for name, tensor in ours.items():
        mine, other = (
            float(item.detach().square().mean().sqrt()) for item in (tensor, theirs[name])
        )
        if not other:
            assert not tensor.any()
            continue
        # The RMS of n independent numbers scatters by about 1 / sqrt(2 n) of itself.
        assert abs(mine / other - 1) < 5 / tensor.numel() ** 0.5


@pytest.mark.parametrize("kind", list(LAYERS))
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_output_and_gradients_are_those_of_lycoris(adapter: str, kind: str) -> None:
    layer, module, x = pair(adapter, kind)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in parameters(layer).items():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            parameters(module)[name].copy_(tensor)
    # LyCORIS multiplies a LoKr by its scale once more on the way to the layer than this.
    weight = module.get_weight(layer.weight_shape)
    torch.testing.assert_close(layer.delta(), weight, rtol=1e-5, atol=1e-6)
    direction = torch.randn(layer.base(x).shape, generator=generator)
    output = layer(x)
    output.backward(direction)
    expected = layer.base(x) + applied(layer.base, x, weight)
    expected.backward(direction)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    for name, tensor in parameters(layer).items():
        wanted = parameters(module)[name].grad
        assert tensor.grad is not None
        assert wanted is not None
        assert (tensor.grad - wanted).norm() <= 1e-5 * wanted.norm()


def applied(base: AdaptableLayer, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(base, nn.Linear):
        return torch.nn.functional.linear(x, weight)
    return base._conv_forward(x, weight, None)


@pytest.mark.parametrize("factor", [-1, 2, 4, 7, 8, 16, 640])
def test_sides_are_cut_as_lycoris_cuts_them(factor: int) -> None:
    for size in [*range(1, 200), 320, 640, 768, 1280, 2560, 3072, 5120, 10240, 12288]:
        ours = factorised(size, "auto" if factor < 0 else factor)
        assert ours == factorization(size, factor), (size, factor)
