"""The moving average of the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from surefoot.engine.ema import MovingAverage


def test_average_follows_its_recurrence_and_leaves_the_weights_alone() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    average = MovingAverage([parameter], 0.9)
    expected = np.zeros(3)
    for update in range(200):
        with torch.no_grad():
            parameter.copy_(torch.tensor([1.0, update, -update]))
        average.update(update)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * np.array([1.0, update, -update])
        assert parameter.tolist() == [1.0, update, -update]
    np.testing.assert_allclose(average.averages[0], expected, rtol=1e-5)
    assert average.averages[0][0] == pytest.approx(1)


def test_average_starts_at_the_weights_as_a_copy() -> None:
    parameter = nn.Parameter(torch.ones(2))
    average = MovingAverage([parameter], 0.9)
    with torch.no_grad():
        parameter.zero_()
    assert average.averages[0].tolist() == [1, 1]


def test_model_holds_the_averages_within_and_its_weights_afterwards_even_after_an_error() -> None:
    parameter = nn.Parameter(torch.ones(2))
    before = parameter.data_ptr()
    average = MovingAverage([parameter], 0.9)
    with torch.no_grad():
        parameter.fill_(5)
    held: list[list[float]] = []

    def interrupted() -> None:
        with average.in_place():
            held.append(parameter.tolist())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert held == [[1, 1]]
    assert parameter.tolist() == [5, 5]
    assert average.averages[0].tolist() == [1, 1]
    assert parameter.data_ptr() == before  # the optimizer holds this very tensor


def test_average_stands_where_it_is_asked_to_while_it_follows() -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    average = MovingAverage([parameter], 0.9, torch.device("meta"))
    average.update(0)
    (mean,) = average.averages
    assert (mean.device.type, mean.dtype, mean.shape) == ("meta", torch.float32, (3,))
    assert parameter.device.type == "cpu"
