"""Verdicts on made-up figures: each kind of trouble, and healthy runs that look a bit like it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from surefoot.engine.watch_verdict import History, Look, Outlook, Stride, Verdict, judge, smoothed

STEPS = 200
STEADY = Outlook(rates=[1.0] * STEPS)


def losses(shape: Callable[[int], float], steps: int = STEPS, seed: int = 0) -> dict[int, float]:
    """Losses of single pictures spread by a factor of two or so."""
    noise = random.Random(seed)
    return {
        step: shape(step) * math.exp(noise.gauss(0, 0.6) - 0.18) for step in range(1, steps + 1)
    }


def falling(step: int) -> float:
    return 0.1 + 0.2 * math.exp(-step / 40)


def adapter(up: float, down: float = 1e-2, magnitude: float | None = None) -> dict[str, Stride]:
    found = {"lora_up": Stride(up, 10 * up), "lora_down": Stride(down, 10 * down)}
    return found | ({} if magnitude is None else {"magnitude": Stride(magnitude, magnitude)})


def validations(values: Sequence[float], every: int = 50) -> dict[int, float]:
    return {every * index: value for index, value in enumerate(values)}


def code_of(history: History, outlook: Outlook = STEADY) -> str:
    finding = judge(history, outlook).finding
    return "" if finding is None else finding.code


def verdict(history: History, outlook: Outlook = STEADY) -> Verdict:
    return judge(history, outlook).verdict


@pytest.mark.parametrize("seed", range(20))
def test_a_falling_loss_is_learning(seed: int) -> None:
    history = History(losses=losses(falling, seed=seed), validations=validations([0.3, 0.2, 0.15]))
    assert verdict(history) == "learning"


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("done", [5, 10, 20, 40, 100, 200])
def test_noisy_but_level_losses_are_no_trouble(seed: int, done: int) -> None:
    history = History(losses=losses(lambda _step: 0.3, done, seed))
    history.validations[0] = 0.3
    assert code_of(history) == ""


def test_nothing_is_said_of_a_run_that_has_hardly_begun() -> None:
    assert verdict(History()) == "no verdict yet"
    assert verdict(History(losses={1: 0.3}, validations={0: 0.3})) == "no verdict yet"


def test_a_loss_that_grows_is_diverging_with_and_without_validation() -> None:
    grows = losses(lambda step: 0.3 * math.exp(step / 20), 60)
    assert verdict(History(losses=grows)) == "diverging"
    assert verdict(History(losses=grows, validations={0: 0.3})) == "diverging"


def test_a_loss_that_explodes_at_once_is_diverging_after_five_steps() -> None:
    explodes = {step: 0.3 * 4.0**step for step in range(1, 6)}
    assert code_of(History(losses=explodes, validations={0: 0.3})) == "SF523"


def test_a_loss_that_is_not_finite_is_diverging() -> None:
    broken = {step: math.inf if step > 3 else 0.3 for step in range(1, 11)}
    assert code_of(History(losses=broken, validations={0: 0.3})) == "SF523"


def norms(*stretches: tuple[int, float]) -> dict[int, float]:
    spread = random.Random(1)
    values = [level for count, level in stretches for _ in range(count)]
    return {step: value * math.exp(spread.gauss(0, 0.4)) for step, value in enumerate(values, 1)}


def test_gradients_that_explode_under_a_level_loss_are_diverging() -> None:
    level = losses(lambda _step: 0.3, 60)
    assert code_of(History(losses=level, norms=norms((50, 0.2), (10, 8.0)))) == "SF525"
    assert code_of(History(losses=level, norms=norms((1, 0.2), (9, 40.0)))) == "SF525"
    # They fall again once the weights are broken.
    broken = norms((1, 0.2), (6, 80.0), (33, 0.01))
    assert code_of(History(losses=level, norms=broken)) == "SF525"
    assert code_of(History(losses=level, norms=broken, validations={0: 0.3, 40: 0.2})) == ""
    assert code_of(History(losses=level, norms=norms((50, 0.2), (10, math.inf)))) == "SF525"


def test_gradients_that_jump_now_and_then_are_no_trouble() -> None:
    level = losses(lambda _step: 0.3, 60)
    assert code_of(History(losses=level, norms=norms((57, 0.2), (3, 40.0)))) == ""
    assert code_of(History(losses=level, norms=norms((20, 0.2), (40, 1.5)))) == ""
    assert code_of(History(losses=level, norms=norms((3, 0.2), (2, math.inf), (55, 0.2)))) == ""


def test_gradients_that_fall_to_nothing_are_learning_nothing() -> None:
    level = losses(lambda _step: 0.3, 60)
    assert code_of(History(losses=level, norms=norms((40, 0.2), (20, 1e-5)))) == "SF526"
    assert code_of(History(losses=level, norms=norms((40, 0.2), (20, 0.0)))) == "SF526"
    assert code_of(History(losses=level, norms=norms((60, 0.0)))) == "SF526"
    assert code_of(History(losses=level, norms=norms((40, 0.2), (20, 2e-3)))) == ""


def test_validation_that_rises_while_training_falls_is_overfitting() -> None:
    history = History(
        losses=losses(falling), validations=validations([0.30, 0.20, 0.215, 0.22], every=50)
    )
    found = judge(history, STEADY)
    assert found.verdict == "overfitting"
    assert found.finding is not None
    assert found.finding.values["step"] == 50


def test_even_far_above_the_base_model_it_is_overfitting_while_the_training_loss_falls() -> None:
    history = History(losses=losses(falling), validations=validations([0.30, 0.25, 0.45, 0.6]))
    assert verdict(history) == "overfitting"


def test_one_validation_a_little_above_the_best_is_no_trouble() -> None:
    history = History(losses=losses(falling), validations=validations([0.30, 0.20, 0.209]))
    assert verdict(history) == "learning"


def test_lora_up_that_comes_to_nothing_is_learning_nothing_after_a_tenth() -> None:
    history = History(losses=losses(lambda _step: 0.3, 20))
    history.strides = {10: adapter(2e-5), 20: adapter(2e-5)}
    assert code_of(history) == "SF519"


def test_small_steps_by_which_validation_falls_are_no_trouble() -> None:
    history = History(strides={10: adapter(2e-5), 20: adapter(2e-5)}, validations={0: 0.3})
    assert code_of(history) == "SF519"
    history.validations[20] = 0.29
    assert verdict(history) == "learning"


def test_a_magnitude_that_moves_alone_is_named() -> None:
    history = History(losses=losses(falling, 20))
    history.strides = {10: adapter(2e-4, magnitude=1.2e-2), 20: adapter(2e-4, magnitude=1.2e-2)}
    found = judge(history, STEADY)
    assert found.verdict == "learning nothing"
    assert found.finding is not None
    assert found.finding.code == "SF520"
    assert found.finding.values["other"] == "magnitude"


def test_small_steps_of_a_long_run_are_no_trouble() -> None:
    history = History(strides={10: adapter(2e-5, magnitude=2e-5), 20: adapter(2e-5)})
    assert code_of(history, Outlook(rates=[1.0] * 2000)) == ""


def test_small_steps_of_a_short_run_are_no_trouble_unless_they_are_tiny() -> None:
    short = Outlook(rates=[1.0] * 20)
    assert code_of(History(strides={5: adapter(3e-5), 10: adapter(3e-5)}), short) == ""
    assert code_of(History(strides={5: adapter(1e-7), 10: adapter(1e-7)}), short) == "SF519"


def test_steps_of_the_warm_up_are_not_taken_for_those_of_the_run() -> None:
    ramp = Outlook(rates=[min(1.0, step / 100) for step in range(1, STEPS + 1)])
    history = History(strides={10: adapter(1e-4), 20: adapter(2e-4)})
    assert code_of(history, ramp) == ""
    assert code_of(History(strides={10: adapter(1e-5), 20: adapter(1e-5)})) == "SF519"


def test_an_optimizer_that_finds_its_rate_gets_half_of_the_run() -> None:
    finds = Outlook(rates=[1.0] * STEPS, finds_rate=True)
    history = History(strides={10: adapter(1e-7), 20: adapter(1e-7)})
    assert code_of(history, finds) == ""
    history.strides[100] = adapter(1e-7)
    assert code_of(history, finds) == "SF519"
    history.strides[110] = adapter(2e-4)  # and what counts is the rate that it has found
    assert code_of(history, finds) == ""


def test_an_optimizer_that_finds_its_rate_gets_a_hundred_steps_of_a_short_run() -> None:
    finds = Outlook(rates=[1.0] * 20, finds_rate=True)
    assert code_of(History(strides={5: adapter(1e-7), 20: adapter(1e-7)}), finds) == ""
    flat = History(validations=validations([0.3, 0.3, 0.3], every=30))
    assert code_of(flat, Outlook(rates=[1.0] * 60)) == "SF521"
    assert code_of(flat, Outlook(rates=[1.0] * 60, finds_rate=True)) == ""


def test_whole_weights_that_stand_still_are_learning_nothing() -> None:
    still = {"weight": Stride(1e-9, 1e-8), "bias": Stride(1e-9, 1e-8)}
    assert code_of(History(strides={10: still, 20: still})) == "SF519"
    moving = {"weight": Stride(1e-4, 1e-3)}
    assert code_of(History(strides={10: moving, 20: moving})) == ""


def test_validation_that_is_the_base_models_at_half_is_learning_nothing() -> None:
    flat = History(losses=losses(lambda _step: 0.3), validations=validations([0.3, 0.3, 0.3]))
    assert code_of(flat) == "SF521"
    early = History(losses=losses(lambda _step: 0.3, 50), validations=validations([0.3, 0.3]))
    assert code_of(early) == ""


def test_twenty_steps_without_gain_are_no_trouble_yet() -> None:
    flat = History(validations=validations([0.3, 0.3, 0.3], every=10))
    assert code_of(flat, Outlook(rates=[1.0] * 20)) == ""


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (Look(0.9, 60.0), "SF524"),  # white noise
        (Look(0.0, 0.5), "SF524"),  # one colour
        (Look(0.65, 85.0), "SF524"),  # blobs, as the VAE makes of noise
        (Look(0.3, 50.0), ""),
        (Look(0.48, 70.0), ""),  # a rougher style
    ],
)
def test_previews_that_are_no_pictures_any_more_are_noise(now: Look, expected: str) -> None:
    assert code_of(History(previews={0: Look(0.3, 60.0), 50: now})) == expected


def test_the_likely_cause_is_what_the_check_foretold() -> None:
    history = History(strides={10: adapter(1e-6), 20: adapter(1e-6)})
    outlook = Outlook(rates=[1.0] * STEPS, foretold=frozenset({"SF101", "SF105"}))
    finding = judge(history, outlook).finding
    assert finding is not None
    assert finding.values["cause"] == "SF101"


def test_the_smoothed_loss_is_the_mean_of_the_window() -> None:
    history = History(losses={step: float(step) for step in range(1, 21)})
    assert smoothed(history, 10) == pytest.approx(15.5)
    assert math.isnan(smoothed(History(), 10))
