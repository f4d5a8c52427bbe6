"""Adapters where a model is not plain: quantised, compiled, called twice, written into."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from surefoot.tuning import dora, lora
from surefoot.tuning.layers import AdapterLayer, TuningError
from surefoot.tuning.merging import merged
from surefoot.tuning.replacement import attach_adapters
from surefoot.tuning.trainable import Tuned

Kind = Literal["lora", "output", "input"]
KINDS = pytest.mark.parametrize("kind", ["lora", "output", "input"])
WIDTH = 64


def adapted(kind: Kind, layer: nn.Module) -> tuple[nn.Module, Tuned, AdapterLayer]:
    """A layer with an adapter whose every tensor has moved."""
    model = nn.Sequential(layer)
    generator = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {"rank": 3, "alpha": 2.0, "generator": generator}
    places = {"unet": model}, {"unet": ("0",)}
    tuned = (
        attach_adapters(lora.LoraLayer, *places, **options)
        if kind == "lora"
        else attach_adapters(dora.DoraLayer, *places, axis=kind, **options)
    )
    with torch.no_grad():
        for item in tuned.trainables:
            noise = 0.1 * torch.randn(item.parameter.shape, generator=generator)
            item.parameter.copy_(item.parameter * (1 + noise) + 0.3 * noise)
    return model, tuned, tuned.layers[0]


def plain(kind: Kind) -> tuple[nn.Module, Tuned, AdapterLayer]:
    torch.manual_seed(0)
    return adapted(kind, nn.Linear(WIDTH, 48))


def gradients(model: nn.Module) -> list[Tensor]:
    found = [item.grad for item in model.parameters() if item.requires_grad]
    for item in model.parameters():
        item.grad = None
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("quantised", ["4 bit", "8 bit"])
@KINDS
def test_a_quantised_layer_is_adapted_by_the_numbers_it_stands_for(
    kind: Kind, quantised: str
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layer = (
        bitsandbytes.nn.Linear4bit(WIDTH, 48, quant_type="nf4", compute_dtype=torch.float32)
        if quantised == "4 bit"
        else bitsandbytes.nn.Linear8bitLt(WIDTH, 48, has_fp16_weights=False)
    ).to("cpu")
    x = torch.randn(5, WIDTH, requires_grad=True)
    layer(x)  # quantises an 8 bit layer
    model, tuned, adapter = adapted(kind, layer)
    numbers = adapter.frozen_weight()
    rms = numbers.square().mean().sqrt().item()
    assert tuned.trainables[0].weight_rms == pytest.approx(rms, rel=1e-5)
    output = model(x)
    expected = nn.functional.linear(x, adapter.merged_weight(), layer.bias)
    # bitsandbytes rounds the inputs of an 8 bit layer to 8 bits too.
    difference = (output - expected).norm() / expected.norm()
    assert difference < (1e-5 if quantised == "4 bit" else 2e-2)
    output.sum().backward()
    assert len(gradients(model)) == len(tuned.trainables)
    with pytest.raises(TuningError, match=r"unet\.0 holds .* into which no adapter"), merged(tuned):
        pass


def test_weights_of_unknown_meaning_are_refused() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    layer.weight.data = torch.zeros(4, 4, dtype=torch.int16)
    with pytest.raises(TuningError, match=r"unet\.0 holds torch\.int16 numbers"):
        adapted("lora", layer)


@KINDS
def test_a_look_in_inference_mode_spoils_no_training(kind: Kind) -> None:
    model, _, _ = plain(kind)
    x = torch.randn(5, WIDTH)
    with torch.inference_mode():
        before = model(x)
    output = model(x)
    output.sum().backward()
    assert torch.equal(output, before)


@KINDS
def test_called_twice_gives_the_sum_of_both_gradients(kind: Kind) -> None:
    model, _, _ = plain(kind)
    first, second = torch.randn(5, WIDTH), torch.randn(2, 3, WIDTH)
    wanted: list[Tensor] = []
    for x in (first, second):
        model(x).square().sum().backward()
        found = gradients(model)
        wanted = [a + b for a, b in zip(wanted, found, strict=True)] if wanted else found
    (model(first).square().sum() + model(second).square().sum()).backward()
    torch.testing.assert_close(gradients(model), wanted, rtol=1e-5, atol=1e-5)


@KINDS
def test_strided_inputs_are_as_good_as_others(kind: Kind) -> None:
    model, _, _ = plain(kind)
    x = torch.randn(WIDTH, 3, 5, requires_grad=True)
    strided, packed = x.permute(1, 2, 0), x.permute(1, 2, 0).contiguous()
    outputs = model(strided), model(packed)
    torch.testing.assert_close(*outputs)
    results = [torch.autograd.grad(output.square().sum(), x)[0] for output in outputs]
    torch.testing.assert_close(*results)


@KINDS
def test_no_tokens_are_no_error(kind: Kind) -> None:
    model, _, _ = plain(kind)
    x = torch.randn(0, 7, WIDTH, requires_grad=True)
    output = model(x)
    assert output.shape == (0, 7, 48)
    output.sum().backward()
    assert all(not gradient.any() for gradient in gradients(model))


@pytest.mark.parametrize("kind", ["lora", "input"])
@pytest.mark.parametrize("shape", [(5, WIDTH), (2, 5, WIDTH)])
def test_the_output_may_be_written_into(kind: Kind, shape: tuple[int, ...]) -> None:
    model, _, _ = plain(kind)
    x = torch.randn(shape)
    model(x).relu().sum().backward()
    wanted = gradients(model)
    model(x).relu_().sum().backward()
    torch.testing.assert_close(gradients(model), wanted)


def test_a_norm_per_output_refuses_a_write_into_its_output_instead_of_learning_wrong() -> None:
    model, _, _ = plain("output")
    output = model(torch.randn(5, WIDTH)).relu_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@KINDS
def test_under_autocast_no_rounded_copy_of_the_weight_is_kept(kind: Kind) -> None:
    model, _, adapter = plain(kind)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(5, WIDTH, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        output = model(x)
    weights = [tensor for tensor in kept if tensor.shape == adapter.weight.shape]
    assert weights
    assert all(tensor.data_ptr() == adapter.weight.data_ptr() for tensor in weights)
    output.float().sum().backward()
    assert x.grad is not None


# torch's compiler does things itself that torch warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*is not a leaf Tensor:UserWarning")
@KINDS
def test_compiled_answers_and_learns_the_same_also_after_a_step(kind: Kind) -> None:
    model, tuned, adapter = plain(kind)
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(5, WIDTH)
    for _step in range(2):
        torch.testing.assert_close(compiled(x), model(x))
        model(x).square().sum().backward()
        wanted = gradients(model)
        compiled(x).square().sum().backward()
        torch.testing.assert_close(gradients(model), wanted, rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            adapter.get_parameter("lora_up").mul_(3)
        tuned.weights_changed()
