"""Adafactor against optax's, whose results make_optax_values.py has kept."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.optim.adafactor import Adafactor
from tests.reference.make_optax_values import (
    FILE,
    LR,
    OPTIONS,
    SHAPES,
    gradients_of,
    start_of,
)

# Both round to float32 at each of 50 steps, in other places. Of the RMS of the weights.
TOLERANCE = 2e-6

OURS: dict[str, dict[str, Any]] = {
    "scaled by itself": {"scale_parameter": True},
    "not scaled": {"scale_parameter": False},
    "clipped hard": {"scale_parameter": True, "clip_threshold": 0.3},
    "fast decay": {"scale_parameter": True, "decay_rate": -0.4},
    "large eps1": {"scale_parameter": True, "eps1": 0.5},
    "momentum": {"scale_parameter": False, "beta1": 0.9},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("option", OPTIONS)
def test_it_ends_where_optax_ends(option: str, shape: str, arithmetic: str) -> None:
    ends = json.loads(FILE.read_text(encoding="utf-8"))["ends"]
    start = start_of(SHAPES[shape])
    weights = nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = Adafactor([weights], LR, **OURS[option])
    for gradient in gradients_of(SHAPES[shape]):
        weights.grad = torch.from_numpy(gradient)
        optimizer.step()
    expected = np.array(ends[option][shape]).reshape(start.shape)
    off = np.abs(weights.detach().numpy() - expected).max() / np.sqrt(np.mean(expected**2))
    assert off < TOLERANCE, off
    assert np.abs(expected - start).max() > 1e4 * TOLERANCE
