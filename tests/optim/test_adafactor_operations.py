"""What Adafactor asks of a device: operations and memory of a step, and no waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from surefoot.optim import stepping
from surefoot.optim.adafactor import Adafactor

RANK = 16


def on_meta(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[nn.Parameter]:
    """Parameters with gradients on "meta", a device which has shapes and no numbers."""
    parameters = [nn.Parameter(torch.empty(s, device="meta", dtype=dtype)) for s in shapes]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    return parameters


def sdxl_linears() -> Iterator[tuple[int, int]]:
    """(out, in) of the linear layers in the transformer blocks of SDXL's UNet."""
    for width, blocks in ((640, 10), (1280, 60)):
        of_block = [
            *[(width, width)] * 4,
            *[(width, width), (width, 2048), (width, 2048), (width, width)],
            *[(8 * width, width), (width, 4 * width)],
        ]
        yield from of_block * blocks


def sdxl_lora() -> list[dict[str, object]]:
    shapes = {
        "lora_down": [(RANK, columns) for _, columns in sdxl_linears()],
        "lora_up": [(rows, RANK) for rows, _ in sdxl_linears()],
    }
    groups: list[dict[str, object]] = []
    for kind, of_kind in shapes.items():
        parameters = on_meta(of_kind, torch.float32)
        groups.append(
            {
                "params": parameters,
                "kind": kind,
                "weight_rms": [0.03] * len(parameters),
                "fan_in": [640] * len(parameters),
            }
        )
    return groups


class Operations(TorchDispatchMode):
    """Counts the operations of torch; a view costs a device nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if not func.is_view and not str(func).startswith("profiler."):
            self.counted[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations_of_second_step(optimizer: Adafactor) -> Counter[str]:
    optimizer.step()  # the first makes the state
    with Operations() as operations:
        optimizer.step()
    return operations.counted


@pytest.mark.parametrize("scale", [True, "weight"])
def test_the_1400_tensors_of_an_sdxl_lora_take_200_operations(scale: bool | str) -> None:
    groups = sdxl_lora()
    optimizer = Adafactor(groups, scale_parameter=scale)  # pyright: ignore[reportArgumentType]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1400
    counted = operations_of_second_step(optimizer)
    assert counted.total() <= 200, counted


OPTIONS: dict[str, dict[str, Any]] = {
    "momentum": {"beta1": 0.9},
    "weight decay": {"weight_decay": 0.1},
    "all": {"beta1": 0.9, "weight_decay": 0.1, "maximize": True, "clip_threshold": 2.0},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounding", ["stochastic", "kahan", "nearest"])
@pytest.mark.parametrize("option", OPTIONS)
def test_operations_do_not_grow_with_the_number_of_tensors(
    option: str, rounding: Any, dtype: torch.dtype
) -> None:
    counts: list[int] = []
    for number in (2, 50):
        parameters = on_meta([(64, 16)] * number, dtype)
        optimizer = Adafactor(parameters, rounding=rounding, **OPTIONS[option])
        counts.append(operations_of_second_step(optimizer).total())
    assert counts[0] == counts[1]


class Devices(TorchDispatchMode):
    """Notes operations that read a tensor of main memory which is not a number of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        found = [*args, *(kwargs or {}).values(), out]
        tensors = [x for y in found for x in (y if isinstance(y, list | tuple) else [y])]
        if any(isinstance(x, Tensor) and x.device.type == "cpu" for x in tensors):
            self.sent.append(str(func))
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounding", ["stochastic", "kahan", "nearest"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("block", [1 << 24, 256])
def test_no_step_waits_for_the_device_or_sends_it_anything(
    block: int, option: str, rounding: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # "meta" has no numbers: a step that looked at one would raise.
    monkeypatch.setattr(stepping, "_BLOCK_ELSEWHERE", block)
    parameters = on_meta([(64, 16), (64, 16), (8, 3, 3, 3), (40,), ()], dtype)
    optimizer = Adafactor(parameters, rounding=rounding, **OPTIONS[option])
    optimizer.step()
    with Devices() as devices:
        optimizer.step()
    assert not devices.sent


class Allocated(TorchDispatchMode):
    """The bytes of the storages that live at once, of those made within."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._known: set[int] = set()

    def know(self, tensors: Sequence[Tensor]) -> None:
        self._known |= {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, Tensor):
                self._live[tensor] = True
        sizes = {
            storage.data_ptr(): storage.nbytes()
            for storage in (tensor.untyped_storage() for tensor in self._live)
        }
        held = sum(size for address, size in sizes.items() if address not in self._known)
        self.peak = max(self.peak, held)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_large_tensor_is_stepped_in_a_few_blocks_of_memory(
    option: str, rounding: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "_allowed", False)
    monkeypatch.setattr(stepping, "_BLOCK_ON_CPU", 1 << 14)
    parameter = nn.Parameter(torch.randn(1024, 256).to(dtype))  # 16 blocks
    parameter.grad = torch.randn(1024, 256).to(dtype)
    optimizer = Adafactor([parameter], rounding=rounding, **OPTIONS[option])
    optimizer.step()
    known = [parameter.data, parameter.grad, *optimizer.state[parameter].values()]
    with Allocated() as allocated:
        allocated.know([tensor for tensor in known if isinstance(tensor, Tensor)])
        optimizer.step()
    block, vectors = 4 << 14, 4 * 4 * (1024 + 256)
    # The update, and the weights that decay; random bits or Kahan's sums take three more.
    blocks = 2 if dtype is torch.float32 else 5
    assert block <= allocated.peak <= blocks * block + vectors
