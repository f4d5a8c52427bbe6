"""How many bytes an optimizer remembers of one tensor. No torch."""

from __future__ import annotations

import math
from typing import assert_never

from surefoot.config.optimizer import AdafactorConfig, AdamWConfig, OptimizerConfig
from surefoot.config.optimizer_libraries import (
    AdamW8bitConfig,
    AdanConfig,
    CameConfig,
    DAdaptationConfig,
    LionConfig,
    MuonConfig,
    NamedOptimizerConfig,
    ProdigyConfig,
    ProdigyPlusConfig,
    ScheduleFreeAdamWConfig,
    SoapConfig,
    StableAdamWConfig,
)
from surefoot.config.tuning import WeightsDtype
from surefoot.optim.matrix_shape import matrix_shape
from surefoot.optim.scaling import TensorKind

WIDTHS: dict[WeightsDtype, int] = {"fp32": 4, "bf16": 2}
"""Bytes of a number."""

_FP32 = WIDTHS["fp32"]
_BLOCK = 256  # numbers of one scale in bitsandbytes' blockwise quantisation


def remembered_bytes(  # noqa: C901 - one row a kind
    config: OptimizerConfig, kind: TensorKind, shape: tuple[int, ...], dtype: WeightsDtype = "fp32"
) -> int:
    """Bytes that stay between two steps, the gradient and the tensor itself apart.

    Adafactor's and those in 8 bits are the same for any `dtype` of the tensor; others remember in
    it. For a class of pytorch-optimizer by name this is a guess: two numbers a weight.
    """
    numbers, width = math.prod(shape), WIDTHS[dtype]
    match config:
        case AdafactorConfig():
            compensation = numbers * width if dtype == "bf16" and config.rounding == "kahan" else 0
            momentum = numbers if config.beta1 > 0 else 0
            return _FP32 * (sum(matrix_shape(shape)) + momentum) + compensation
        case (
            AdamWConfig() | StableAdamWConfig() | ScheduleFreeAdamWConfig() | NamedOptimizerConfig()
        ):
            return width * 2 * numbers
        case AdamW8bitConfig():
            return _in_8_bits(numbers, config.min_8bit_size)
        case LionConfig():
            return width * numbers
        case CameConfig():
            return width * (numbers + (2 * _rows_and_columns(shape) or numbers))
        case DAdaptationConfig():
            return width * 3 * numbers
        case AdanConfig() | ProdigyConfig():
            return width * 4 * numbers
        case MuonConfig():
            return width * (numbers if is_matrix(kind, shape) else 2 * numbers)
        case SoapConfig():
            sides = shape if len(shape) > 1 else ()
            squares = sum(side**2 for side in sides if side <= config.max_precondition_dim)
            return width * (2 * numbers + 2 * squares)
        case ProdigyPlusConfig():
            return _prodigy_plus(config, kind, shape, width)
        case _:
            assert_never(config)


def is_matrix(kind: TensorKind, shape: tuple[int, ...]) -> bool:
    """Whether Muon takes it: convolutions count as matrices, embeddings do not."""
    return len(shape) >= 2 and kind != "embedding"


def _rows_and_columns(shape: tuple[int, ...]) -> int:
    """CAME factors the last two axes, which are the kernel of a convolution."""
    if len(shape) < 2:
        return 0
    return math.prod(shape[:-1]) + math.prod(shape[:-2] + shape[-1:])


def _in_8_bits(numbers: int, smallest: int) -> int:
    if numbers < smallest:
        return _FP32 * 2 * numbers
    tables = 2 * 256  # what the 8 bits stand for, signed and unsigned
    return 2 * numbers + _FP32 * (2 * -(-numbers // _BLOCK) + tables)


def _prodigy_plus(
    config: ProdigyPlusConfig, kind: TensorKind, shape: tuple[int, ...], width: int
) -> int:
    numbers = math.prod(shape)
    ordered = sorted(shape)
    factored = config.factored and len(shape) > 1 and ordered[-1] >= 32
    # Row and column means along the two longest sides.
    second = width * numbers
    if factored:
        second = _FP32 * (numbers // ordered[-1] + numbers // ordered[-2])
    sample = -(-numbers // 11)  # every eleventh number, in bfloat16
    kept = (0 if config.use_speed else 2 * sample) + (2 if kind == "lora_up" else 2 * sample)
    return width * numbers + second + kept
