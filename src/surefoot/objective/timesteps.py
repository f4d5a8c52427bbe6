"""How noise levels are drawn, as positions between no noise and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from surefoot.config.objective import TimestepDraw


@dataclass(frozen=True)
class Timesteps:
    """A distribution of noise levels.

    Attributes:
        draw_by: `uniform`, or `logit_normal`: the sigmoid of a normal number (Esser et al. 2024,
            arXiv 2403.03206, section 3.1).
        mean: Of that number.
        std: Its deviation.
        shift: s in t -> s t / (1 + (s - 1) t), which comes after the draw (section 5.3.2, equation
            23); 1 for none.
        least: Where in the process draws begin; the distribution is squeezed between the two.
        most: Where they end.
    """

    draw_by: TimestepDraw = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    least: float = 0.0
    most: float = 1.0

    @property
    def is_uniform(self) -> bool:
        """Whether every timestep between the ends is as likely."""
        return self.draw_by == "uniform" and self.shift == 1.0

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Positions `(count,)` in [0, 1], fp32, before they are squeezed between the ends."""
        match self.draw_by:
            case "uniform":
                drawn = torch.rand(count, generator=generator)
            case "logit_normal":
                normal = torch.randn(count, generator=generator)
                drawn = torch.sigmoid(self.mean + self.std * normal)
            case _:
                assert_never(self.draw_by)
        return self.shift * drawn / (1 + (self.shift - 1) * drawn)
