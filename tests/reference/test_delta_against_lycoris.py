"""What an adapter's tensors make of a weight, compared with LyCORIS's own modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import Tensor, nn

from surefoot.tuning.delta import adapted_weight, weight_delta

MODULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "lora": (LoConModule, {}),
    "lora with a core": (LoConModule, {"use_tucker": True}),
    "loha": (LohaModule, {}),
    "loha with cores": (LohaModule, {"use_tucker": True}),
    "lokr": (LokrModule, {"factor": 4}),
    "lokr of both sides": (LokrModule, {"factor": 8, "decompose_both": True}),
    "lokr with a core": (LokrModule, {"factor": 4, "use_tucker": True}),
    "lokr of whole matrices": (LokrModule, {"factor": 4, "full_matrix": True}),
}
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(48, 32),
    "conv1d": lambda: nn.Conv1d(16, 32, 3),
    "conv2d 1x1": lambda: nn.Conv2d(48, 32, 1),
    "conv2d 3x3": lambda: nn.Conv2d(16, 32, 3),
    "conv3d": lambda: nn.Conv3d(16, 32, (3, 1, 1)),
}
NAMES = {
    "lora_up.weight": "lora_up",
    "lora_down.weight": "lora_down",
    "lora_mid.weight": "lora_mid",
    "dora_scale": "magnitude",
}


def theirs(module: str, layer: str, **options: Any) -> tuple[Any, dict[str, Tensor], Tensor]:
    """A module of LyCORIS with numbers in it, its tensors by our names, the frozen weight."""
    torch.manual_seed(0)
    make, own = MODULES[module]
    base = LAYERS[layer]()
    built = make("name", base, 1.0, lora_dim=2, alpha=3.0, **own, **options)
    for parameter in built.parameters():
        if parameter.numel() > 1:
            nn.init.normal_(parameter, std=0.3)
    saved: dict[str, Tensor] = built.custom_state_dict()
    state = {NAMES.get(name, name): value for name, value in saved.items()}
    return built, state, base.get_parameter("weight")


def their_update(built: Any, shape: tuple[int, ...]) -> Tensor:
    """The update that its forward pass adds; `get_diff_weight` of LoHa and LoKr scales it twice."""
    if isinstance(built, LoConModule):
        return built.get_diff_weight()[0].detach().reshape(shape)
    return built.get_weight(shape).detach()


@pytest.mark.parametrize("module", list(MODULES))
@pytest.mark.parametrize("layer", list(LAYERS))
def test_the_update_is_theirs(module: str, layer: str) -> None:
    built, state, weight = theirs(module, layer)
    expected = their_update(built, tuple(weight.shape))
    found = weight_delta({k: v.detach() for k, v in state.items()}, tuple(weight.shape))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("on_output", [True, False])
@pytest.mark.parametrize("module", ["lora", "loha", "lokr"])
@pytest.mark.parametrize("layer", list(LAYERS))
def test_the_weight_of_a_dora_is_theirs_on_both_axes(
    module: str, layer: str, on_output: bool
) -> None:
    built, state, weight = theirs(module, layer, weight_decompose=True, wd_on_out=on_output)
    with torch.no_grad():
        expected = built.apply_weight_decompose(weight + their_update(built, tuple(weight.shape)))
        found = adapted_weight(weight, state)
    torch.testing.assert_close(found, expected.view(weight.shape), rtol=1e-5, atol=1e-6)


def test_half_the_strength_is_half_the_change() -> None:
    built, state, weight = theirs("lora", "linear", weight_decompose=True)
    with torch.no_grad():
        whole, half = adapted_weight(weight, state), adapted_weight(weight, state, 0.5)
    del built
    torch.testing.assert_close(half - weight, (whole - weight) / 2)


@pytest.mark.parametrize(
    ("leaves", "shape", "words"),
    [
        ({"bias": torch.zeros(3)}, (3, 3), "no adapter: it consists of bias"),
        (
            {
                "lora_up": torch.zeros(4, 2),
                "lora_down": torch.zeros(2, 5),
                "alpha": torch.tensor(1.0),
            },
            (4, 6),
            r"\(4, 5\) does not fit a weight of shape \(4, 6\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    leaves: dict[str, Tensor], shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        weight_delta(leaves, shape)


def test_a_magnitude_of_another_size_is_refused() -> None:
    leaves = {
        "lora_up": torch.zeros(4, 2),
        "lora_down": torch.zeros(2, 6),
        "alpha": torch.tensor(1.0),
        "magnitude": torch.ones(4),
    }
    with pytest.raises(ValueError, match=r"a magnitude of shape \(4,\) is neither"):
        adapted_weight(torch.zeros(4, 6), leaves)
