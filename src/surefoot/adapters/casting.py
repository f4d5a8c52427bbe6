"""Numbers in another dtype, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from surefoot.finding import Finding, Refused
from surefoot.formats.finite import computable

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of float32 or float64 in a dtype, or in float32 where that ends too early."""
    fits = bool((tensor.abs() <= torch.finfo(dtype).max).all())
    return tensor.to(dtype if fits else torch.float32)


@dataclass
class Cast:
    """Casts tensors to one dtype and counts what becomes zero.

    Attributes:
        dtype: Floating tensors are cast to it; None leaves each as it is.
        vanished: Numbers that became zero.
        numbers: All that were cast.
    """

    dtype: torch.dtype | None
    vanished: int = 0
    numbers: int = 0

    def __call__(self, name: str, tensor: Tensor, otherwise: torch.dtype) -> Tensor:
        """One tensor in the dtype.

        Args:
            name: For the finding.
            tensor: Any; one of whole numbers is returned as it is.
            otherwise: The dtype of the result where none was asked for.

        Raises:
            Refused: A number is beyond the range of the dtype and would become infinite.
        """
        dtype = self.dtype or otherwise
        if not tensor.is_floating_point() or tensor.dtype == dtype:
            return tensor
        numbers, most = computable(tensor), torch.finfo(dtype).max
        # Not by what becomes infinite: dtypes of 8 bits end at their largest number.
        beyond = numbers.isfinite() & (numbers.abs() > most)
        if bool(beyond.any()):
            largest = float(numbers[beyond].abs().max())
            values = {"name": name, "largest": largest, "most": most}
            dtype_name = str(dtype).removeprefix("torch.")
            raise Refused([Finding("SF086", "error", "", {**values, "dtype": dtype_name})])
        cast = numbers.to(dtype)
        self.vanished += int(((cast == 0) & (numbers != 0)).sum())
        self.numbers += tensor.numel()
        return cast

    def findings(self) -> list[Finding]:
        """A note if numbers became zero."""
        if self.dtype is None or not self.vanished:
            return []
        values = {"count": self.vanished, "percent": 100 * self.vanished / self.numbers}
        name = str(self.dtype).removeprefix("torch.")
        return [Finding("SF611", "warning", "", {**values, "dtype": name})]
