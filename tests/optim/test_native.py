"""The compiled loops: what they must not take for plain numbers, and processes."""

from __future__ import annotations

import multiprocessing
import sys

import pytest
import torch
from torch import nn

from surefoot.optim.adafactor import Adafactor

pytest.importorskip("numba")


def stepped() -> float:
    weights = [nn.Parameter(torch.ones(8, 8)) for _ in range(4)]
    for weight in weights:
        weight.grad = torch.ones(8, 8)
    Adafactor(weights, 0.1, scale_parameter=False).step()
    return float(weights[0].detach()[0, 0])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_can_step() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = stepped()
        context = multiprocessing.get_context("fork")
        child = context.Process(target=stepped)
        child.start()
        child.join(timeout=60)
        assert child.exitcode == 0
        assert stepped() == expected
    finally:
        torch.set_num_threads(threads)


def test_a_lazily_negated_gradient_descends_like_any_other(arithmetic: str) -> None:
    weight = nn.Parameter(torch.zeros(4, 5))
    weight.grad = torch._neg_view(torch.ones(4, 5))  # pyright: ignore[reportPrivateImportUsage]
    Adafactor([weight], 0.1, scale_parameter=False).step()
    assert (weight > 0).all()
