"""LoRA and DoRA layers: identity at the start, the closed form after, dtypes, the switch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from surefoot.tuning import dora, lora
from surefoot.tuning.layers import AdapterLayer, TuningError
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.trainable import Tuned, disabled

Attach = Callable[..., Tuned]
ATTACH: dict[str, Attach] = {
    "lora": partial(attach_adapters, lora.LoraLayer),
    "dora": partial(attach_adapters, dora.DoraLayer),
}
KINDS = pytest.mark.parametrize("kind", ["lora", "dora"])

# float32 rounding of a layer's output of order 1.
FLOAT32_TOLERANCE = 1e-6
# Eight bits of mantissa, a few roundings, outputs of order 1.
BFLOAT16_TOLERANCE = 3e-2

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 9), (2, 5, 12)),
    "linear without bias": (lambda: nn.Linear(12, 9, bias=False), (2, 12)),
    "1x1": (lambda: nn.Conv2d(6, 9, 1), (2, 6, 7, 7)),
    "3x3 stride 2": (lambda: nn.Conv2d(6, 9, 3, stride=2, padding=1), (2, 6, 7, 7)),
    "3x2 dilated": (
        lambda: nn.Conv2d(6, 9, (3, 2), padding="same", dilation=2, bias=False),
        (2, 6, 7, 7),
    ),
}
EVERY_LAYER = pytest.mark.parametrize("layer", LAYERS)


class Model(nn.Module):
    """One layer to adapt, and one to leave alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.rest = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def model_and_input(layer: str) -> tuple[Model, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    return Model(make()), torch.randn(shape)


def attach(kind: str, model: nn.Module, *, rank: int = 4, alpha: float = 6.0) -> Tuned:
    generator = torch.Generator().manual_seed(1)
    return ATTACH[kind](
        {"unet": model}, {"unet": ("inner",)}, rank=rank, alpha=alpha, generator=generator
    )


def move(tuned: Tuned) -> None:
    """Give every adapter a value that training could have given it."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for trainable in tuned.trainables:
            noise = torch.randn(trainable.parameter.shape, generator=generator)
            match trainable.kind:
                case "lora_up":
                    trainable.parameter.copy_(0.3 * noise)
                case "magnitude":
                    trainable.parameter.mul_(1 + 0.2 * noise)
                case _:
                    pass


def effective_weight(kind: str, layer: AdapterLayer) -> np.ndarray:
    """W + s B A, its rows set to the length m for DoRA; float64, from the papers."""
    weight = layer.weight.double().numpy()
    rows = weight.reshape(weight.shape[0], -1)
    state = {name: tensor.double().numpy() for name, tensor in layer.state().items()}
    down = state["lora_down"].reshape(layer.rank, -1)
    up = state["lora_up"].reshape(weight.shape[0], layer.rank)
    rows = rows + float(state["alpha"]) / layer.rank * up @ down
    if kind == "dora":
        rows = (
            rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)) * state["magnitude"].reshape(-1, 1)
        )
    return rows.reshape(weight.shape)


@KINDS
@EVERY_LAYER
def test_a_fresh_adapter_changes_no_bit_of_the_output(kind: str, layer: str) -> None:
    model, x = model_and_input(layer)
    before = model(x)
    attach(kind, model)
    assert torch.equal(model(x), before)


@KINDS
@EVERY_LAYER
def test_the_output_is_that_of_the_merged_weight_in_float64(kind: str, layer: str) -> None:
    model, x = model_and_input(layer)
    tuned = attach(kind, model)
    move(tuned)
    base = tuned.layers[0].base
    weight = torch.from_numpy(effective_weight(kind, tuned.layers[0]))
    bias = None if base.bias is None else base.bias.double()
    if isinstance(base, nn.Linear):
        expected = F.linear(x.double(), weight, bias)
    else:
        expected = F.conv2d(
            x.double(), weight, bias, base.stride, base.padding, base.dilation, base.groups
        )
    torch.testing.assert_close(model(x).double(), expected, rtol=1e-5, atol=1e-5)


@EVERY_LAYER
def test_row_norms_from_factors_equal_those_of_the_merged_weight(layer: str) -> None:
    model, _ = model_and_input(layer)
    tuned = attach("dora", model)
    move(tuned)
    (adapter,) = tuned.layers
    assert isinstance(adapter, dora.DoraLayer)
    rows = effective_weight("lora", adapter).reshape(9, -1)
    expected = np.sqrt((rows**2).sum(axis=1))
    np.testing.assert_allclose(adapter.norms().numpy(), expected, rtol=1e-6)
    assert not adapter.norms().requires_grad


class LargestTensor(TorchDispatchMode):
    """Records the element count of the largest tensor that an operation newly made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        storages = {
            value.untyped_storage().data_ptr() for value in args if isinstance(value, Tensor)
        }
        if isinstance(output, Tensor) and output.untyped_storage().data_ptr() not in storages:
            self.elements = max(self.elements, output.numel())
        return output


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dora_step_makes_no_tensor_of_the_size_of_the_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Model(nn.Linear(64, 48)).to(dtype)
    tuned = attach("dora", model)
    move(tuned)
    x = torch.randn(3, 64, dtype=dtype, requires_grad=True)
    with LargestTensor() as largest:
        model(x).float().square().sum().backward()
    assert 0 < largest.elements <= 4 * 64


@KINDS
@EVERY_LAYER
def test_exactly_the_adapters_get_gradients(kind: str, layer: str) -> None:
    model, x = model_and_input(layer)
    tuned = attach(kind, model)
    move(tuned)
    x.requires_grad_(True)
    model(x).square().sum().backward()
    held = {id(trainable.parameter) for trainable in tuned.trainables}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    for parameter in model.parameters():
        if id(parameter) in held:
            assert parameter.grad is not None
            assert parameter.grad.abs().min() > 0
        else:
            assert parameter.grad is None
    assert x.grad is not None


@KINDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@EVERY_LAYER
def test_adapters_stay_float32_on_a_half_precision_model(
    kind: str, dtype: torch.dtype, layer: str
) -> None:
    model, x = model_and_input(layer)
    model, x = model.to(dtype), x.to(dtype)
    tuned = attach(kind, model)
    move(tuned)
    assert {trainable.parameter.dtype for trainable in tuned.trainables} == {torch.float32}
    output = model(x)
    assert output.dtype == dtype
    output.float().square().sum().backward()
    assert all(trainable.parameter.grad is not None for trainable in tuned.trainables)
    reference = model.float()(x.float())
    torch.testing.assert_close(output.float(), reference, rtol=0, atol=BFLOAT16_TOLERANCE)


@KINDS
@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
@EVERY_LAYER
def test_under_autocast_the_output_has_the_dtype_of_the_layers_own(
    kind: str, base: torch.dtype, layer: str
) -> None:
    model, x = model_and_input(layer)
    model = model.to(base)
    tuned = attach(kind, model)
    move(tuned)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    assert all(trainable.parameter.grad is not None for trainable in tuned.trainables)
    reference = model.float()(x)
    torch.testing.assert_close(output.float(), reference, rtol=0, atol=BFLOAT16_TOLERANCE)


def test_a_small_change_of_a_magnitude_is_not_lost_in_bfloat16() -> None:
    # 1.003 itself is 1 in bfloat16, and with it nothing would change. Outputs can only keep their
    # value or grow by a whole step of 2^-7; over many of them it comes to about 0.003.
    torch.manual_seed(0)
    model = Model(nn.Linear(256, 512, bias=False)).to(torch.bfloat16)
    x = torch.randn(64, 256).to(torch.bfloat16)
    before = model(x).double()
    tuned = attach("dora", model)
    with torch.no_grad():
        tuned.layers[0].get_parameter("magnitude").mul_(1.003)
    growth = (model(x).double() * before).sum() / before.square().sum() - 1
    assert 0.002 < growth.item() < 0.004


@KINDS
def test_disabled_gives_the_base_model_and_restores_each_layer(kind: str) -> None:
    model, x = model_and_input("linear")
    before = model(x)
    tuned = attach(kind, model)
    move(tuned)
    after = model(x)
    assert not torch.allclose(after, before, atol=1e-2)
    with disabled(tuned):
        assert torch.equal(model(x), before)
        with disabled(tuned):
            pass
        assert torch.equal(model(x), before)
    assert torch.equal(model(x), after)
    with pytest.raises(RuntimeError, match="in the preview"), disabled(tuned):
        raise RuntimeError("in the preview")
    assert torch.equal(model(x), after)


@KINDS
def test_adapters_are_drawn_from_the_generator_alone(kind: str) -> None:
    draws: list[Tensor] = []
    for seed in (3, 4):
        model, _ = model_and_input("linear")
        torch.manual_seed(seed)
        attach(kind, model)
        draws.append(model.get_parameter("inner.lora_down").detach())
    assert torch.equal(draws[0], draws[1])


@KINDS
def test_trainables_tell_the_optimizer_what_they_are(kind: str) -> None:
    model = Model(nn.Linear(400, 300))
    tuned = attach(kind, model, rank=8, alpha=2.0)
    weight = model.get_parameter("inner.base.weight").detach().double()
    names = {trainable.name: trainable for trainable in tuned.trainables}
    kinds = ["lora_down", "lora_up"] + ["magnitude"] * (kind == "dora")
    assert sorted(names) == [f"unet.inner.{kind}" for kind in kinds]
    for name, trainable in names.items():
        assert trainable.kind == name.rpartition(".")[2]
        assert trainable.weight_rms == pytest.approx(weight.square().mean().sqrt().item())
        assert (trainable.alpha, trainable.rank) == (2.0, 8)
        assert trainable.parameter is model.get_parameter(name.removeprefix("unet."))
    assert not names["unet.inner.lora_up"].parameter.any()
    down = names["unet.inner.lora_down"].parameter.detach()
    assert down.square().mean().sqrt().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.05)


@KINDS
def test_a_layer_answers_for_the_one_it_replaced(kind: str) -> None:
    for layer in ("linear", "3x3 stride 2"):
        model, _ = model_and_input(layer)
        original = cast("nn.Linear | nn.Conv2d", model.inner)
        attach(kind, model.eval())
        assert model.inner is not original
        assert model.inner.weight is original.weight
        assert model.inner.bias is original.bias
        assert not model.inner.training
        for name in ("in_features", "out_features", "in_channels", "out_channels"):
            assert getattr(model.inner, name, "none") == getattr(original, name, "none")


def test_zero_rows_are_counted_and_harmless() -> None:
    model, x = model_and_input("linear")
    with torch.no_grad():
        model.get_parameter("inner.weight")[[2, 5]] = 0
    before = model(x)
    tuned = attach("dora", model)
    assert dora.zero_rows(tuned) == {"unet.inner": 2}
    torch.testing.assert_close(model(x), before, rtol=0, atol=FLOAT32_TOLERANCE)
    for _ in range(3):
        model(x).square().sum().backward()
        with torch.no_grad():
            for parameter in (trainable.parameter for trainable in tuned.trainables):
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all()
                parameter -= 0.01 * parameter.grad
                parameter.grad = None
    assert model(x).isfinite().all()
    assert dora.zero_rows(attach("dora", model_and_input("linear")[0])) == {}


@KINDS
def test_state_keeps_the_frozen_weights_and_the_adapter_after_reload(kind: str) -> None:
    model, x = model_and_input("3x3 stride 2")
    move(attach(kind, model))
    other, _ = model_and_input("3x3 stride 2")
    attach(kind, other)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(x), model(x))


@KINDS
def test_every_unfit_target_is_named_and_the_model_left_as_it_was(kind: str) -> None:
    model = nn.ModuleDict(
        {
            "good": nn.Linear(4, 4),
            "norm": nn.LayerNorm(4),
            "attention": nn.MultiheadAttention(4, 2),
        }
    )
    model["again"] = model["good"]
    targets = {
        "unet": ("good", "norm", "missing", "attention.out_proj", "again"),
        "text_encoder": ("x",),
    }
    with pytest.raises(TuningError) as error:
        ATTACH[kind]({"unet": model}, targets, rank=2, alpha=1.0, generator=torch.Generator())
    lines = str(error.value).splitlines()
    words = [
        "unet.norm is a LayerNorm",
        "unet.missing is no layer",
        "unet.attention.out_proj is the output of torch's MultiheadAttention",
        "unet.again is the same layer as unet.good",
        "text_encoder is no part",
    ]
    assert [line.startswith(word) for line, word in zip(lines, words, strict=True)] == [True] * 5
    assert type(model["good"]) is nn.Linear
    assert all(parameter.requires_grad for parameter in model.parameters())


@KINDS
def test_no_target_at_all_is_an_error(kind: str) -> None:
    with pytest.raises(TuningError, match="No layer is a target"):
        ATTACH[kind](
            {"unet": Model(nn.Linear(2, 2))},
            {"unet": ()},
            rank=2,
            alpha=1.0,
            generator=torch.Generator(),
        )


@KINDS
def test_an_adapted_layer_is_not_adapted_again(kind: str) -> None:
    model, _ = model_and_input("linear")
    attach(kind, model)
    with pytest.raises(TuningError, match=r"unet\.inner is a (Lora|Dora)Layer, not a linear"):
        attach(kind, model)
