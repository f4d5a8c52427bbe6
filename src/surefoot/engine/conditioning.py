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
        self._device_type = next(family.parts["text_encoder"].parameters()).device.type
        self._kept: dict[str, Tensor] = {}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """States `(B, L, D)`, with gradients where the encoder is trained."""
        if self._trained:
            return self._family.encode_captions(captions)
        for caption in captions:
            if caption not in self._kept:
                self._kept[caption] = self._encode(caption)
        return torch.stack([self._kept[caption] for caption in captions])

    @torch.no_grad()
    def _encode(self, caption: str) -> Tensor:
        # Alone and in fp32: kept states must not depend on which captions came along, or on
        # whether training or validation asked first, since a resumed run asks in another order.
        with torch.autocast(self._device_type, enabled=False):
            return self._family.encode_captions([caption])[0]
