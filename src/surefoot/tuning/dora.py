"""DoRA: LoRA with the length of every weight row trained apart from its direction.

Liu et al. 2024, arXiv 2402.09353. The norm is taken over each output row, as PEFT and diffusers
take it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from surefoot.tuning.layers import AdaptableLayer, AdapterLayer
from surefoot.tuning.replacement import replace_targets
from surefoot.tuning.trainable import Tuned

SMALLEST_SQUARED_NORM = 1e-24
"""Floor under a squared row norm: a row of zeros is divided by 1e-12 instead of by 0."""


@final
class DoraLayer(AdapterLayer):
    """y = m / ||W + s B A|| * (W x + s B A x) + bias, with s = alpha / rank; a norm per output row.

    A row of zeros has magnitude 0 and stays at zero: neither m nor B gets a gradient there.

    Attributes:
        magnitude: m, (out,); starts as the row norms of W.
        squared_norms: ||W||^2, (out,), float32; computed once, as W is frozen.
    """

    squared_norms: Tensor

    def __init__(
        self,
        path: str,
        base: AdaptableLayer,
        *,
        rank: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        """See `AdapterLayer`."""
        super().__init__(path, base, rank=rank, alpha=alpha, generator=generator)
        rows = self.weight.detach().flatten(1)
        norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
        self.magnitude = nn.Parameter(norms)
        self.register_buffer("squared_norms", norms.square(), persistent=False)

    def combine(self, output: Tensor, update: Tensor) -> Tensor:
        """Scale the rows of the sum, and leave the bias in `output` unscaled."""
        gain = self.magnitude / self.row_norms()
        shift = torch.zeros_like(gain) if self.bias is None else (1 - gain) * self.bias.float()
        if isinstance(self.base, nn.Conv2d):
            gain, shift = gain.view(-1, 1, 1), shift.view(-1, 1, 1)
        combined = output + update
        if combined.dtype == torch.float32:
            return torch.addcmul(shift, combined, gain)
        # Near 1 the gain itself has no room in half precision, its distance from 1 has.
        excess = (gain - 1).to(combined.dtype)
        return combined + torch.addcmul(shift.to(combined.dtype), combined, excess)

    def row_norms(self) -> Tensor:
        """||W + s B A|| of every output row, (out,), float32, a constant to the backward pass.

        It is detached as section 4.3 of the paper says. Written out,

            ||W + s B A||^2 = ||W||^2 + 2 s <W, B A> + s^2 ||B A||^2

        needs nothing larger than (out, rank), since <W, B A> = <B, W A^T> and
        ||B A||^2 = <B (A A^T), B> row by row.
        """
        with torch.no_grad(), torch.autocast(self.weight.device.type, enabled=False):
            weight = self.weight.flatten(1)
            down, up = self.lora_down.flatten(1), self.lora_up.flatten(1)
            # A is rounded to W's dtype rather than W copied to float32: in half precision W x is
            # no better, and the cross term is a small part of the norm.
            projected = (weight @ down.to(weight.dtype).T).to(up.dtype)
            gram = down @ down.T
            doubled = 2 * projected + self.scale * (up @ gram)
            squared = self.squared_norms + self.scale * (up * doubled).sum(dim=1)
            return squared.clamp_min(SMALLEST_SQUARED_NORM).sqrt()

    def state(self) -> dict[str, Tensor]:
        """`lora_down`, `lora_up`, `alpha` and `magnitude`."""
        return {**self._factors(), "magnitude": self.magnitude.detach()}


def attach(
    parts: Mapping[str, nn.Module],
    targets: Mapping[str, tuple[str, ...]],
    *,
    rank: int,
    alpha: float,
    generator: torch.Generator,
) -> Tuned:
    """Freeze the parts and put a DoRA layer in the place of every target.

    B starts at zero and m as the row norms, so the model answers as before.

    Args:
        parts: Name of a part (`unet`, `text_encoder`) to its network; changed in place.
        targets: Name of a part to the paths of its linear and convolution layers to adapt.
        rank: Inner width of the update.
        alpha: The update is scaled by `alpha / rank`.
        generator: Source of the random A.

    Raises:
        TuningError: A target cannot carry an adapter; the parts are untouched then.
    """

    def make_layer(path: str, base: AdaptableLayer) -> DoraLayer:
        return DoraLayer(path, base, rank=rank, alpha=alpha, generator=generator)

    return replace_targets(parts, targets, make_layer)


def zero_rows(tuned: Tuned) -> dict[str, int]:
    """How many rows of zeros the frozen weights have, by layer path; layers without are left out.

    Such rows can learn nothing through DoRA.
    """
    counts = {
        layer.path: int((layer.squared_norms < SMALLEST_SQUARED_NORM).sum())
        for layer in tuned.layers
        if isinstance(layer, DoraLayer)
    }
    return {path: count for path, count in counts.items() if count}
