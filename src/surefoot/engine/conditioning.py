"""Captions as the states a network attends to, encoded once where the encoder stands still."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from surefoot.families.family import Family

KEPT_BYTES = 2**30
"""Of states held in main memory: some 4,000 captions of Stable Diffusion 1.5."""


@final
class Conditioning:
    """Encodes captions; remembers them unless the text encoder is being trained."""

    def __init__(self, family: Family, trained: bool, kept_bytes: int = KEPT_BYTES) -> None:
        """Nothing is encoded yet.

        Args:
            family: Encodes.
            trained: Whether the text encoder changes from step to step.
            kept_bytes: Of states that are remembered. Shuffled tags make new texts without end:
                beyond this the one that was asked for longest ago is forgotten.
        """
        self._family = family
        self._trained = trained
        self._device = next(family.parts["text_encoder"].parameters()).device
        self._most = kept_bytes
        # In main memory: on the device they would take room from the step.
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """States `(B, L, D)` on the encoder's device, with gradients where it is trained."""
        if self._trained:
            return self._family.encode_captions(captions)
        return torch.stack([self._states(caption) for caption in captions]).to(self._device)

    def _states(self, caption: str) -> Tensor:
        kept = self._kept.get(caption)
        if kept is not None:
            self._kept.move_to_end(caption)
            return kept
        states = self._encode(caption).cpu()
        self._kept[caption] = states
        self._bytes += states.nbytes
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return states

    @torch.no_grad()
    def _encode(self, caption: str) -> Tensor:
        # Alone and in fp32: kept states must not depend on which captions came along, or on
        # whether training or validation asked first, since a resumed run asks in another order.
        with torch.autocast(self._device.type, enabled=False):
            return self._family.encode_captions([caption])[0]
