"""LoRA: a frozen weight plus a trained low-rank update (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from typing import final

from surefoot.tuning.factors import FactorLayer


@final
class LoraLayer(FactorLayer):
    """y = W x + bias + (alpha / rank) B A x."""

    def row_gain(self) -> None:
        """None: LoRA has no gain."""

    def column_gain(self) -> None:
        """None: LoRA has no gain."""
