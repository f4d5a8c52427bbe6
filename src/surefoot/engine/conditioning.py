"""Captions as the states a network attends to, encoded once where the encoder stands still."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from surefoot.families.family import Family


@final
class Conditioning:
    """Encodes captions; remembers them unless the text encoder is being trained."""

    def __init__(self, family: Family, trained: bool) -> None:
        """`trained` says whether the text encoder changes from step to step."""
        self._family = family
        self._trained = trained
        self._kept: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """States `(B, L, D)`, with gradients where the encoder is trained."""
        if self._trained:
            return self._family.encode_captions(captions)
        new = sorted(set(captions) - self._kept.keys())
        if new:
            with torch.no_grad():
                self._kept.update(zip(new, self._family.encode_captions(new), strict=True))
        return torch.stack([self._kept[caption] for caption in captions])
