"""Rounding to bfloat16 and float16: what is kept on average, and the random numbers behind it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from surefoot.optim import stepping
from surefoot.optim.adafactor import Adafactor
from surefoot.optim.rounding import (
    Rounding,
    random_bits,
    round_stochastically,
    step_keys,
    subtract,
)

ULP = 2.0**-7  # of a bfloat16 from 1 to 2


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moved_by_small_steps(rounding: Rounding, steps: int) -> Tensor:
    """(4096,) weights of 1.5 after steps of 0.1 ulp each, upwards."""
    parameter = nn.Parameter(torch.full((64, 64), 1.5, dtype=torch.bfloat16))
    # A constant gradient gives an update of 1 everywhere.
    optimizer = Adafactor(
        [parameter], 0.1 * ULP, scale_parameter=False, rounding=rounding, maximize=True
    )
    parameter.grad = torch.ones_like(parameter)
    for _ in range(steps):
        optimizer.step()
    return (parameter.detach().double() - 1.5).flatten()


def test_a_thousand_steps_of_a_tenth_of_a_digit_move_the_mean_by_a_hundred() -> None:
    # Up to 2 a digit is 2^-7, from there on 2^-6; 1.5 + 100 digits is 2.28. A step moves a weight
    # by 0.1 of its digit with probability 0.1: variance 0.09 digits^2 up to 2, then 4 * 0.0475.
    moved = moved_by_small_steps("stochastic", 1000) / ULP
    variance = 640 * 0.09 + 360 * 4 * 0.05 * 0.95
    error = math.sqrt(variance / moved.numel())
    assert abs(float(moved.mean()) - 100) < 4 * error
    # Each weight goes its own way.
    assert float(moved.var()) == pytest.approx(variance, rel=0.15)


def test_kahan_follows_a_thousand_steps_of_a_tenth_of_a_digit_exactly() -> None:
    moved = moved_by_small_steps("kahan", 1000) / ULP
    assert bool((moved == moved[0]).all())
    # To the nearest weight, which is 2 of these digits from the next; and the second tensor, whose
    # last digit is 2^-8 of one of these, takes 1,000 sums.
    assert abs(float(moved[0]) - 100) <= 1 + 1000 * 2**-9


def test_to_the_nearest_a_tenth_of_a_digit_moves_nothing() -> None:
    assert not moved_by_small_steps("nearest", 50).any()


VALUES = {
    "positive": 1.2345,
    "negative": -1.2345,
    "below a power of two": 2.0 - 2.0**-12,
    "above a power of two": 2.0 + 2.0**-12,
    "negative, below a power of two": -(2.0 - 2.0**-12),
    "small": 3.21e-30,
    "subnormal": 2.7e-39,
    "negative subnormal": -2.7e-39,
    "large": 1.23e38,
}


@pytest.mark.parametrize("case", VALUES)
def test_rounding_is_to_a_neighbour_and_right_on_average(case: str) -> None:
    value = torch.full((1, 1 << 16), VALUES[case])
    exact = float(value[0, 0])
    keys = step_keys(torch.zeros(1, dtype=torch.int32), 0, 1)
    found = round_stochastically(value.clone(), keys)
    # bfloat16's neighbours, by bits: those of larger size are one integer up.
    bits = value[:, :1].view(torch.int32) & ~0xFFFF
    inner, outer = (float((bits + more).view(torch.float32)) for more in (0, 1 << 16))
    assert set(found.double().unique().tolist()) == {inner, outer}
    share = (exact - inner) / (outer - inner)
    error = math.sqrt(share * (1 - share) / found.numel())
    assert abs(float((found == outer).double().mean()) - share) < 4 * error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kahan_leaves_weights_alone_when_nothing_is_subtracted(dtype: torch.dtype) -> None:
    digit = torch.finfo(dtype).eps
    weights = torch.tensor([[1.0, 1.0 + digit, 1.0 + digit, -1.0 - digit]], dtype=dtype)
    lost = torch.tensor([[digit / 2, digit / 2, -digit / 2, digit / 2]], dtype=dtype)
    before, kept = weights.clone(), lost.clone()
    for zero in (torch.zeros(1, 4), -torch.zeros(1, 4)):
        keys = torch.zeros(1, dtype=torch.int32)
        subtract(list(weights), zero, "kahan", keys=keys, compensations=list(lost))
    assert torch.equal(weights, before)
    assert torch.equal(lost, kept)


def test_zero_and_numbers_of_bfloat16_stay_bit_for_bit() -> None:
    special = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-130, math.inf, -math.inf])
    values = special.repeat(1, 1000)
    keys = step_keys(torch.zeros(1, dtype=torch.int32), 0, 1)
    found = round_stochastically(values.clone(), keys)
    assert torch.equal(found.view(torch.int16), values.bfloat16().view(torch.int16))


def test_not_a_number_stays_one() -> None:
    found = round_stochastically(torch.full((1, 4096), math.nan), torch.zeros(1, dtype=torch.int32))
    assert bool(found.isnan().all())


def chi_square(counts: Tensor, expected: float) -> float:
    return float((counts.double() - expected).square().sum() / expected)


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
def test_every_byte_of_the_random_bits_is_uniform(shift: int) -> None:
    keys = step_keys(torch.arange(16, dtype=torch.int32), 3, 7)
    values = (random_bits(keys, 1 << 14) >> shift) & 0xFF
    counts = torch.bincount(values.flatten(), minlength=256)
    # 255 degrees of freedom: mean 255, standard deviation sqrt(510) = 22.6.
    assert abs(chi_square(counts, values.numel() / 256) - 255) < 4 * math.sqrt(2 * 255)


def uniform(bits: Tensor) -> Tensor:
    """The lower halves, which rounding takes, from -1/2 to 1/2."""
    return ((bits & 0xFFFF).double() + 0.5) / (1 << 16) - 0.5


@pytest.mark.parametrize("of", ["elements", "tensors", "steps", "seeds", "far elements"])
def test_random_numbers_of_neighbours_are_independent(of: str) -> None:
    count, neighbours = 1 << 14, 32
    places = torch.arange(neighbours + 1, dtype=torch.int32)
    one = places[:1]
    if of in ("elements", "far elements"):
        lag = 1 if of == "elements" else 1280
        drawn = uniform(random_bits(step_keys(one, 0, 1), count + lag * neighbours))[0]
        rows = torch.stack([drawn[lag * n : lag * n + count] for n in range(neighbours + 1)])
    else:
        keys = {
            "tensors": lambda: step_keys(places, 0, 1),
            "steps": lambda: torch.cat([step_keys(one, 0, step) for step in range(1, 34)]),
            "seeds": lambda: torch.cat([step_keys(one, seed, 1) for seed in range(33)]),
        }[of]()
        rows = uniform(random_bits(keys, count))
    # A mean of products of two independent numbers of variance 1/12.
    error = 1 / 12 / math.sqrt(count)
    means = [float((first * second).mean()) for first, second in pairwise(rows)]
    assert max(map(abs, means)) < 4.5 * error
    assert sum(mean * mean for mean in means) / len(means) < 2 * error * error


def test_a_part_draws_what_the_whole_does() -> None:
    keys = step_keys(torch.arange(3, dtype=torch.int32), 5, 2)
    whole = random_bits(keys, 100)
    assert torch.equal(random_bits(keys, 40, first=60), whole[:, 60:])
    assert torch.equal(random_bits(keys[1:2], 100), whole[1:2])
    weights = draw(3, 10, 10, seed=0).bfloat16()
    update = draw(3, 10, 10, seed=1) * 1e-3
    together, parts = weights.clone(), weights.clone()
    subtract(list(together), update.clone(), "stochastic", keys=keys)
    for rows in (slice(0, 3), slice(3, 10)):
        subtract(
            [part[rows] for part in parts],
            update[:, rows].clone(),
            "stochastic",
            keys=keys,
            first=rows.start * 10,
        )
    assert torch.equal(together, parts)


def bfloat16_model() -> list[nn.Parameter]:
    shapes = ((6, 8), (6, 8), (5, 3, 3, 3), (7,), ())
    return [nn.Parameter(draw(*s, seed=n).bfloat16()) for n, s in enumerate(shapes)]


def train(optimizer: Adafactor, parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for number, parameter in enumerate(parameters):
            parameter.grad = draw(*parameter.shape, seed=1000 * number + step).bfloat16()
        optimizer.step()


def trained(seed: int) -> list[Tensor]:
    parameters = bfloat16_model()
    train(Adafactor(parameters, 1e-3, seed=seed), parameters, range(6))
    return [parameter.detach() for parameter in parameters]


def test_the_seed_decides() -> None:
    assert all(map(torch.equal, trained(1), trained(1)))
    assert not all(map(torch.equal, trained(1), trained(2)))


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_rounding_goes_on_bit_for_bit_from_a_saved_state(rounding: Rounding) -> None:
    whole = bfloat16_model()
    optimizer = Adafactor(whole, 1e-3, rounding=rounding, seed=3)
    train(optimizer, whole, range(5))
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in whole]
    continued = Adafactor(resumed, rounding=rounding)
    continued.load_state_dict(optimizer.state_dict())
    train(optimizer, whole, range(5, 10))
    train(continued, resumed, range(5, 10))
    assert all(map(torch.equal, whole, resumed))


def test_the_size_of_a_block_decides_no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(0)
    monkeypatch.setattr(stepping, "_BLOCK_ON_CPU", 16)
    for by_blocks, parameter in zip(trained(0), whole, strict=True):
        # The update's own last digit may differ, and with it one rounding in 2^15.
        assert int((by_blocks != parameter).sum()) <= 1


def test_a_tensor_stepped_by_itself_draws_what_it_does_among_others() -> None:
    together, apart = bfloat16_model(), bfloat16_model()
    train(Adafactor(together, 1e-3), together, range(6))
    optimizer = Adafactor(apart, 1e-3)
    for step in range(6):
        for number, parameter in enumerate(apart):
            parameter.grad = draw(*parameter.shape, seed=1000 * number + step).bfloat16()
            optimizer.step_parameter(parameter)
            parameter.grad = None
    for one, other in zip(together, apart, strict=True):
        assert int((one != other).sum()) <= 1
