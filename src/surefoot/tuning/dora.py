"""DoRA: LoRA with the length of every weight row trained apart from its direction.

Liu et al. 2024, arXiv 2402.09353. Which dimension has a length of its own is the axis: `output`, as
the paper, PEFT and diffusers take it, or `input`, as OneTrainer does unless told otherwise.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from surefoot.config.tuning import Initialisation
from surefoot.tuning.delta import SMALLEST_SQUARED_NORM
from surefoot.tuning.factors import FactorLayer
from surefoot.tuning.layers import AdaptableLayer
from surefoot.tuning.trainable import Tuned

NormAxis = Literal["output", "input"]


@final
class DoraLayer(FactorLayer):
    """LoRA with a gain m / ||W + s B A|| on every output or input, s = alpha / rank.

    output: y = g * (W x + s B A x) + bias, a norm over each row
    input:  y = (W + s B A) (g * x) + bias, a norm over each column and the kernel

    A row of zeros has magnitude 0 and stays at zero: neither m nor B gets a gradient there.

    Attributes:
        axis: Which of the two.
        magnitude: m, (out,) or (in / groups,), float32; starts as the norms of W.
        squared_norms: ||W||^2, as `magnitude`, float32; computed once, as W is frozen.
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
        dropout: float = 0.0,
        initialisation: Initialisation = "kaiming",
        axis: NormAxis = "output",
    ) -> None:
        """See `FactorLayer`."""
        super().__init__(
            path,
            base,
            rank=rank,
            alpha=alpha,
            generator=generator,
            dropout=dropout,
            initialisation=initialisation,
        )
        self.axis: NormAxis = axis
        weight = self.frozen_weight().detach()
        over = [index for index in range(weight.ndim) if index != self._kept_dimension]
        squared = torch.linalg.vector_norm(weight, dim=over, dtype=torch.float32).square()
        # The root of the same numbers that `norms` begins with, so that the gain begins at 1.
        self.magnitude = nn.Parameter(squared.sqrt())
        self.register_buffer("squared_norms", squared, persistent=False)
        self._norms: Tensor | None = None
        self._norms_of: tuple[object, ...] = ()

    @property
    def _kept_dimension(self) -> int:
        return 0 if self.axis == "output" else 1

    def row_gain(self) -> Tensor | None:
        """Gives m / ||W + s B A|| of every output, or None on the other axis."""
        return self.magnitude / self.norms() if self.axis == "output" else None

    def column_gain(self) -> Tensor | None:
        """Gives m / ||W + s B A|| of every input, or None on the other axis."""
        return self.magnitude / self.norms() if self.axis == "input" else None

    def norms(self) -> Tensor:
        """||W + s B A|| along the axis, as `magnitude`, float32, a constant to the backward pass.

        It is detached as section 4.3 of the paper says, and computed once for each state of the
        factors: accumulation, gradient checkpointing and previews find it done. Whatever writes to
        a factor without torch's knowledge must say so (`Tuned.weights_changed`).
        """
        if torch.compiler.is_compiling():
            return self._computed_norms()  # what is compiled once would keep the first ones
        key = self._state_of_factors()
        if self._norms is None or key != self._norms_of:
            # What is computed in inference mode could never be used in training.
            with torch.inference_mode(False):
                self._norms, self._norms_of = self._computed_norms(), key
        return self._norms

    def _state_of_factors(self) -> tuple[object, ...]:
        factors = (self.lora_down, self.lora_up)
        return tuple((item.data_ptr(), item._version, item.device) for item in factors)

    def _computed_norms(self) -> Tensor:
        """The norms from the factors, which needs nothing larger than (out, rank).

            ||W + s B A||^2 = ||W||^2 + 2 s <W, B A> + s^2 ||B A||^2

        where <W, B A> = <B, W A^T> and ||B A||^2 = <B (A A^T), B> row by row, and
        <W, B A> = <A, B^T W> and ||B A||^2 = <A, (B^T B) A> column by column.
        """
        device = self.weight.device.type
        with torch.no_grad(), torch.autocast(device, enabled=False):
            # Of a kernel, the inputs and the places in it are columns alike.
            weight = self.frozen_weight().flatten(1)
            down, up = (factor.flatten(1) for factor in self.both_factors())
            # A factor is rounded to W's dtype rather than W copied to float32: in half precision
            # W x is no better, and the cross term is a small part of the norm.
            if self.axis == "output":
                crossed = (weight @ down.to(weight.dtype).T).to(up.dtype)
                changes = up * (2 * crossed + self.scale * (up @ (down @ down.T)))
                change = changes.sum(dim=1)
            else:
                crossed = (up.to(weight.dtype).T @ weight).to(down.dtype)
                changes = down * (2 * crossed + self.scale * ((up.T @ up) @ down))
                change = changes.sum(dim=0).view(self.magnitude.shape[0], -1).sum(dim=1)
            squared = self.squared_norms + self.scale * change
            return squared.clamp_min(SMALLEST_SQUARED_NORM).sqrt()

    def state(self) -> dict[str, Tensor]:
        """`lora_down`, `lora_up`, `alpha`, and `magnitude` in a shape that tells the axis."""
        shape = [1] * self.lora_down.ndim
        shape[self._kept_dimension] = -1
        return {**super().state(), "magnitude": self.magnitude.detach().view(shape)}


def zero_rows(tuned: Tuned) -> dict[str, int]:
    """How many norms of the frozen weights are zero, by layer path; layers without are left out.

    Such rows can learn nothing through DoRA.
    """
    counts = {
        layer.path: int((layer.squared_norms < SMALLEST_SQUARED_NORM).sum())
        for layer in tuned.layers
        if isinstance(layer, DoraLayer)
    }
    return {path: count for path, count in counts.items() if count}
