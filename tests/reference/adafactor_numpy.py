"""Adafactor in float64 numpy, slowly and one formula a line (Shazeer & Stern 2018, 1804.04235).

Two things are not in the paper and stand here as what they mean: the momentum of `beta1` is an
average of the clipped updates, before the step size; weight decay takes the step size times
`weight_decay` off every number (Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """The options of the optimizer; with `scale_parameter="weight"`, what the tensor is too."""

    relative_step: bool = False
    warmup_init: bool = False
    scale_parameter: bool | Literal["weight"] = True
    clip_threshold: float = 1.0
    decay_rate: float = -0.8
    beta1: float = 0.0
    eps1: float = 1e-30
    eps2: float = 1e-3
    weight_decay: float = 0.0
    maximize: bool = False
    kind: str = "weight"
    weight_rms: float = 0.0
    fan_in: int = 0
    alpha: float = 1.0


@final
class AdafactorNumpy:
    """One tensor and what Adafactor remembers of it.

    Attributes:
        values: X, in the tensor's own shape.
    """

    def __init__(self, values: Array, options: Options) -> None:
        self.values = values.astype(np.float64)
        self._options = options
        self._step = 0
        self._row_sums = np.zeros(1)
        self._column_sums = np.zeros(1)
        self._square = np.zeros(1)
        self._momentum = np.zeros_like(self.values)

    def step(self, gradient: Array, lr: float) -> None:
        """One step; `lr` is not used with `relative_step`."""
        options = self._options
        self._step += 1
        gradient = -gradient if options.maximize else gradient
        update = gradient / np.sqrt(self._second_moment(gradient))
        # Algorithm 4 line 8, algorithm 5 line 6.
        update = update / max(1.0, rms(update) / options.clip_threshold)
        if options.beta1 > 0:
            self._momentum = options.beta1 * self._momentum + (1 - options.beta1) * update
            update = self._momentum
        size = self._scale() * self._rate(lr)
        decay = size * options.weight_decay * self.values
        self.values = self.values - size * update - decay

    def _second_moment(self, gradient: Array) -> Array:
        options, t = self._options, float(self._step)
        beta2 = 1 - t**options.decay_rate  # section 7.2
        square = gradient**2 + options.eps1
        if gradient.ndim < 2:  # algorithm 5, line 5
            self._square = beta2 * self._square + (1 - beta2) * square
            return self._square
        # A convolution (out, in, height, width) is the matrix (out, in * height * width).
        matrix = square.reshape(len(square), -1)
        # Algorithm 4, lines 5 to 7, with sums as the paper has them.
        self._row_sums = beta2 * self._row_sums + (1 - beta2) * matrix.sum(axis=1)
        self._column_sums = beta2 * self._column_sums + (1 - beta2) * matrix.sum(axis=0)
        product = np.outer(self._row_sums, self._column_sums) / self._row_sums.sum()
        return product.reshape(gradient.shape)

    def _rate(self, lr: float) -> float:
        """rho, section 8 and table 2."""
        t = float(self._step)
        if not self._options.relative_step:
            return lr
        return min(1e-6 * t if self._options.warmup_init else 1e-2, 1 / np.sqrt(t))

    def _scale(self) -> float:
        options = self._options
        own = max(options.eps2, rms(self.values))  # algorithm 4, line 2
        if options.scale_parameter is False:
            return 1.0
        if options.scale_parameter == "weight" and options.kind == "lora_up":
            return min(400, 0.7 * options.fan_in) * options.weight_rms / options.alpha
        if options.scale_parameter == "weight" and options.kind == "lora_down":
            return 5 * own
        if options.scale_parameter == "weight" and options.kind in ("weight", "bias"):
            return max(own, options.weight_rms)
        return own


def rms(values: Array) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(values**2)))
