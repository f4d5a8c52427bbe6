"""The same weights in PEFT and here: the same output, the same gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer as PeftLoraLayer
from torch import Tensor, nn

from surefoot.tuning import dora, lora
from surefoot.tuning.replacement import attach_adapters

# float32; sums over at most 72 products per output and 200 outputs per gradient.
RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-5

RANK, ALPHA = 3, 5

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(24, 16), (2, 5, 24)),
    "linear without bias": (lambda: nn.Linear(24, 16, bias=False), (2, 5, 24)),
    "1x1": (lambda: nn.Conv2d(8, 12, 1), (2, 8, 7, 7)),
    "3x3 stride 2": (lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1), (2, 8, 7, 7)),
}


def attach_reference(model: nn.Module, use_dora: bool) -> dict[str, nn.Parameter]:
    """Put PEFT's adapter on the layer `inner`, B not zero and m not the norm."""
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["inner"], use_dora=use_dora)
    inject_adapter_in_model(config, model)
    layer = model.get_submodule("inner")
    assert isinstance(layer, PeftLoraLayer)
    tensors = reference_tensors(layer, use_dora)
    with torch.no_grad():
        tensors["lora_up"].normal_(std=0.3)
        if use_dora:
            tensors["magnitude"].mul_(1.25)
    return tensors


def reference_tensors(layer: PeftLoraLayer, use_dora: bool) -> dict[str, nn.Parameter]:
    """PEFT's parameters by our names."""
    modules = {"lora_down": layer.lora_A, "lora_up": layer.lora_B}
    if use_dora:
        modules["magnitude"] = layer.lora_magnitude_vector
    return {name: module["default"].get_parameter("weight") for name, module in modules.items()}


def close(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert ours is not None
    assert theirs is not None
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(
        ours, theirs.view_as(ours), rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE
    )


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("layer", LAYERS)
def test_output_and_gradients_equal_those_of_peft(layer: str, use_dora: bool) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    theirs = nn.ModuleDict({"inner": make()})
    ours = copy.deepcopy(theirs)
    reference = attach_reference(theirs, use_dora)
    attach = partial(attach_adapters, dora.DoraLayer if use_dora else lora.LoraLayer)
    tuned = attach(
        {"unet": ours},
        {"unet": ("inner",)},
        rank=RANK,
        alpha=float(ALPHA),
        generator=torch.Generator().manual_seed(0),
    )
    adapter = dict(tuned.layers[0].named_parameters(recurse=False))
    assert adapter.keys() == reference.keys()
    with torch.no_grad():
        for name, parameter in adapter.items():
            parameter.copy_(reference[name].view_as(parameter))

    x = torch.randn(shape)
    our_input, their_input = x.clone().requires_grad_(), x.clone().requires_grad_()
    our_output, their_output = ours["inner"](our_input), theirs["inner"](their_input)
    close(our_output, their_output)
    # Not a plain sum, which would give every output the same gradient.
    direction = torch.randn(their_output.shape)
    (our_output * direction).sum().backward()
    (their_output * direction).sum().backward()
    close(our_input.grad, their_input.grad)
    for name, parameter in adapter.items():
        close(parameter.grad, reference[name].grad)
