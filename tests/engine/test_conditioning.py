"""What is remembered of captions: by text, bounded, and the same whether remembered or not."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from surefoot.engine.conditioning import Conditioning
from surefoot.families.family import Family

STATE_BYTES = 4 * 3 * 2


class CountingFamily:
    """Encodes a caption as its length, and notes what it was asked."""

    def __init__(self) -> None:
        self.parts: dict[str, nn.Module] = {"text_encoder": nn.Linear(1, 1)}
        self.asked: list[str] = []

    def encode_captions(self, captions: list[str]) -> Tensor:
        self.asked += captions
        return torch.stack([torch.full((3, 2), float(len(text))) for text in captions])


def conditioning(**values: Any) -> tuple[Conditioning, CountingFamily]:
    family = CountingFamily()
    return Conditioning(cast(Family, family), **values), family


def test_each_text_is_encoded_once_while_there_is_room() -> None:
    encode, family = conditioning(trained=False)
    first = encode(["a", "bb", "a"])
    assert torch.equal(encode(["a", "bb", "a"]), first)
    assert first[:, 0, 0].tolist() == [1, 2, 1]
    assert family.asked == ["a", "bb"]


def test_text_asked_for_longest_ago_is_forgotten_and_comes_back_the_same() -> None:
    encode, family = conditioning(trained=False, kept_bytes=2 * STATE_BYTES)
    encode(["a", "bb"])
    encode(["a"])
    encode(["ccc"])  # bb has to go
    assert encode(["a", "ccc", "bb"])[:, 0, 0].tolist() == [1, 3, 2]
    assert family.asked == ["a", "bb", "ccc", "bb"]


def test_step_larger_than_the_room_is_still_encoded_whole() -> None:
    encode, _family = conditioning(trained=False, kept_bytes=1)
    assert encode(["a", "bb", "ccc"])[:, 0, 0].tolist() == [1, 2, 3]


def test_trained_encoder_is_asked_at_every_step() -> None:
    encode, family = conditioning(trained=True)
    encode(["a"])
    encode(["a"])
    assert family.asked == ["a", "a"]
