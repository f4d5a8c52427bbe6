"""Frozen layers kept in fewer bits, under adapters.

The linear layers of a part give way to those of bitsandbytes (Dettmers et al. 2022, "LLM.int8()";
Dettmers et al. 2023, "QLoRA", section 3: NF4), or their weights to torchao's. Convolutions, norms
and embeddings stay as they are. Adapters read the numbers by `frozen_weight`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, assert_never

import torch
from torch import nn

Quantised = Literal["nf4", "int8", "torchao_int8", "torchao_fp8"]


@torch.no_grad()
def quantise(part: nn.Module, kind: Quantised, compute: torch.dtype) -> int:
    """Quantises the linear layers of a part where they are; returns how many.

    Args:
        part: A network, in float32.
        kind: What becomes of the weights.
        compute: What bitsandbytes' 4 bit layers multiply in.

    Raises:
        ImportError: The library is not installed.
    """
    linear = [path for path, module in part.named_modules() if type(module) is nn.Linear]
    for path in linear:
        layer = part.get_submodule(path)
        assert isinstance(layer, nn.Linear)
        match kind:
            case "nf4" | "int8":
                part.set_submodule(path, _bitsandbytes(layer, kind, compute))
            case "torchao_int8" | "torchao_fp8":
                _torchao(layer, kind)
            case _:
                assert_never(kind)
    part.requires_grad_(False)
    return len(linear)


def _bitsandbytes(layer: nn.Linear, kind: Literal["nf4", "int8"], compute: torch.dtype) -> Any:  # noqa: ANN401
    modules: Any = import_module("bitsandbytes.nn")
    sizes = layer.in_features, layer.out_features, layer.bias is not None
    if kind == "nf4":
        made = modules.Linear4bit(*sizes, compute_dtype=compute, quant_type="nf4")
        # Some CPUs would have it lay the weight out anew at the first call in evaluation, in a way
        # that cannot be read back, and that widths such as 160 do not fit.
        made.support_avx512bf16_for_cpu = False
    else:
        # No threshold: with one, single inputs would be multiplied apart in float16.
        made = modules.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=0.0)
    device = layer.weight.device
    made.load_state_dict(layer.state_dict())
    made = made.to(device)
    # On a CPU 8 bit weights are made at the first call only.
    made(torch.zeros(1, layer.in_features, device=device))
    return made.train(layer.training)


def _torchao(layer: nn.Linear, kind: Literal["torchao_int8", "torchao_fp8"]) -> None:
    quantization: Any = import_module("torchao.quantization")
    if kind == "torchao_int8":
        configuration = quantization.Int8WeightOnlyConfig(version=2)
    else:
        configuration = quantization.Float8WeightOnlyConfig()
    quantization.quantize_(layer, configuration)
