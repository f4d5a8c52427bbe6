"""What is measured of a layer, and what is said of an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from surefoot.adapters.figures import LayerFigures, measure
from surefoot.adapters.verdict import Verdict, judge, verdict_of
from surefoot.tuning.delta import adapted_weight
from tests.adapters.adapter_files import dora, lora

# The factors are float32, the figures are computed in float64.
ROUNDING = 1e-6
GENERATOR = torch.Generator().manual_seed(5)
LINEAR = torch.randn(12, 7, generator=GENERATOR) * 0.3
KERNEL = torch.randn(6, 4, 3, 3, generator=GENERATOR) * 0.3


@pytest.mark.parametrize("weight", [LINEAR, KERNEL], ids=["linear", "kernel"])
def test_lora_is_measured_without_and_with_its_weight(weight: Tensor) -> None:
    leaves = lora(tuple(weight.shape), 3, 0, alpha=6)
    up, down = (leaves[name].double().flatten(1).numpy() for name in ("lora_up", "lora_down"))
    values = np.linalg.svd(2 * up @ down, compute_uv=False)
    alone, known = measure("unet.x", leaves), measure("unet.x", leaves, weight)
    for figures in (alone, known):
        assert figures.update_norm == pytest.approx(np.linalg.norm(values), rel=ROUNDING)
        expected = (values**2).sum() / values[0] ** 2
        assert figures.stable_rank == pytest.approx(expected, rel=ROUNDING)
        assert (figures.rank, figures.alpha, figures.kind) == (3, 6, "lora")
        assert figures.kernel == tuple(weight.shape[2:])
    assert (alone.weight_source, known.weight_source) == ("estimate", "base")
    assert known.weight_norm == pytest.approx(float(np.linalg.norm(weight.numpy())), rel=ROUNDING)
    assert known.ratio == known.update_norm / known.weight_norm


@pytest.mark.parametrize("weight", [LINEAR, KERNEL], ids=["linear", "kernel"])
@pytest.mark.parametrize("axis", ["output", "input"])
def test_dora_is_measured_by_the_change_of_the_weight_if_that_is_known(
    axis: str, weight: Tensor
) -> None:
    leaves = dora(weight, 3, 0, axis=axis)
    known, alone = measure("unet.x", leaves, weight), measure("unet.x", leaves)
    change = float(torch.linalg.vector_norm(adapted_weight(weight, leaves) - weight))
    assert known.update_norm == pytest.approx(change, rel=ROUNDING)
    assert (known.axis, known.magnitude, alone.magnitude) == (axis, "trained", "unknown")
    # The norms of all rows, or of all columns, together are the norm of the whole.
    assert alone.weight_source == "magnitude"
    assert alone.weight_norm == pytest.approx(known.weight_norm, rel=0.1)
    factors = {name: leaf for name, leaf in leaves.items() if name != "magnitude"}
    assert alone.update_norm == measure("unet.x", factors).update_norm == known.direction_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("axis", ["output", "input"])
def test_magnitude_that_never_moved_is_seen_in_every_dtype(axis: str, dtype: torch.dtype) -> None:
    for weight in (LINEAR, KERNEL):
        leaves = dora(weight, 3, 0, axis=axis)
        kept = 0 if axis == "output" else 1
        dims = [dim for dim in range(weight.ndim) if dim != kept]
        start = weight.to(dtype).float().square().sum(dim=dims, keepdim=True).sqrt().to(dtype)
        assert measure("x.y", {**leaves, "magnitude": start}, weight).magnitude == "untrained"
        moved = start.clone()
        moved.flatten()[2] *= 1.5
        assert measure("x.y", {**leaves, "magnitude": moved}, weight).magnitude == "trained"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_move_is_seen_against_weights_of_half_precision(dtype: torch.dtype) -> None:
    wide = torch.randn(16, 2000, generator=torch.Generator().manual_seed(6)) * 0.03
    weight = wide.to(dtype)

    def verdict(magnitude: Tensor) -> str:
        return measure("x.y", {**dora(weight, 3, 0), "magnitude": magnitude}, weight).magnitude

    start = weight.float().square().sum(dim=1, keepdim=True).sqrt()
    eps = torch.finfo(dtype).eps
    assert verdict(start) == "untrained"
    # In the precision of the weights, and only later in a finer one.
    assert verdict(start.to(dtype).float()) == "untrained"
    # The norms of the weights before these were rounded.
    assert verdict(wide.square().sum(dim=1, keepdim=True).sqrt()) in ("untrained", "unknown")
    # Two units in the last place of the weights.
    assert verdict(start * (1 + 2 * eps)) == "trained"
    # The magnitudes themselves are in half precision: one rounding is none, three may be.
    assert verdict((start * (1 + 3 * eps)).to(dtype)) == "unknown"
    assert verdict((start * (1 + 20 * eps)).to(dtype)) == "trained"


def test_loha_and_lokr_are_measured_by_their_updates() -> None:
    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))

    alpha = torch.tensor(4.0, dtype=torch.float64)
    loha = {"hada_w1_a": noise(6, 2), "hada_w1_b": noise(2, 8), "alpha": alpha}
    loha |= {"hada_w2_a": noise(6, 2) + 1, "hada_w2_b": noise(2, 8) + 1}
    whole = 2 * (loha["hada_w1_a"] @ loha["hada_w1_b"]) * (loha["hada_w2_a"] @ loha["hada_w2_b"])
    figures = measure("unet.x", loha)
    assert figures.update_norm == pytest.approx(float(whole.norm()), rel=ROUNDING)
    assert (figures.kind, figures.rank, figures.stable_rank) == ("loha", 2, 0)
    one = torch.tensor(1.0, dtype=torch.float64)
    lokr = {"lokr_w1": noise(2, 3), "lokr_w2": noise(4, 2, 3, 3), "alpha": one}
    figures = measure("unet.x", lokr)
    expected = float(lokr["lokr_w1"].norm() * lokr["lokr_w2"].norm())
    assert figures.update_norm == pytest.approx(expected, rel=ROUNDING)
    assert (figures.kind, figures.rank, figures.kernel) == ("lokr", 0, (3, 3))


HEALTHY = LayerFigures(
    path="unet.a",
    kind="lora",
    axis="none",
    kernel=(),
    rank=4,
    alpha=4.0,
    update_norm=0.5,
    direction_norm=0.5,
    weight_norm=5.0,
    weight_source="base",
    stable_rank=2.0,
    unusable=(),
    magnitude="none",
)


def layer(**changes: Any) -> LayerFigures:
    if "update_norm" in changes:
        changes.setdefault("direction_norm", changes["update_norm"])
    return replace(HEALTHY, **changes)


DORA = {"axis": "output", "magnitude": "trained"}
DEAD, TEXT = {"update_norm": 1e-6}, "text_encoder.a"
CASES: tuple[tuple[Verdict, tuple[LayerFigures, ...], tuple[str, ...]], ...] = (
    ("healthy", (layer(), layer(**DORA)), ()),
    ("healthy", (layer(update_norm=1e-5),), ()),
    ("healthy", (layer(update_norm=5.0),), ()),
    ("not_finite", (layer(), layer(update_norm=math.nan, unusable=("lora_up",))), ("SF601",)),
    ("dead", (layer(**DEAD), layer(update_norm=0.0)), ("SF602",)),
    ("dead", (layer(update_norm=0.0, weight_norm=0.0),), ("SF602",)),
    ("exploded", (layer(), layer(update_norm=5.1)), ("SF603",)),
    ("exploded", (layer(update_norm=0.1, weight_norm=0.0),), ("SF603",)),
    ("healthy", (layer(update_norm=5.1, weight_source="estimate"),), ()),
    ("exploded", (layer(update_norm=21.0, weight_source="estimate"),), ("SF603",)),
    ("healthy", (layer(update_norm=2e-6, weight_source="estimate"),), ()),
    ("partly_dead", (layer(), layer(**DEAD)), ("SF604",)),
    ("partly_dead", (layer(), layer(path=TEXT, **DEAD)), ("SF605",)),
    ("magnitude_untrained", (layer(axis="output", magnitude="untrained"),), ("SF606",)),
    ("healthy", (layer(axis="output", magnitude="untrained"), layer(**DORA)), ()),
    (
        "healthy",
        (layer(axis="output", magnitude="unknown", weight_source="magnitude"),),
        ("SF607",),
    ),
    ("healthy", (layer(axis="output", magnitude="unknown"),), ("SF617",)),
    ("healthy", (layer(axis="output", magnitude="unknown"), layer(**DORA)), ()),
    ("direction_dead", (layer(direction_norm=1e-7, **DORA),), ("SF608",)),
    (
        "direction_dead",
        (layer(**DEAD, axis="output", magnitude="unknown", weight_source="magnitude"),),
        ("SF608", "SF607"),
    ),
    ("dead", (layer(**DEAD, axis="output", magnitude="untrained"),), ("SF602", "SF606")),
    (
        "not_finite",
        (layer(update_norm=math.nan, unusable=("lora_up",)), layer(**DEAD)),
        ("SF601", "SF604"),
    ),
)


@pytest.mark.parametrize(("verdict", "layers", "codes"), CASES)
def test_verdict_follows_the_figures(
    verdict: Verdict, layers: tuple[LayerFigures, ...], codes: tuple[str, ...]
) -> None:
    findings = judge(layers)
    assert tuple(finding.code for finding in findings) == codes
    assert verdict_of(findings) == verdict
    bad = verdict not in ("healthy", "partly_dead")
    assert any(finding.level == "error" for finding in findings) == bad


def test_finding_counts_and_names_the_worst() -> None:
    (finding,) = judge([layer(), layer(path="unet.b", update_norm=9.0), layer(update_norm=6.0)])
    assert finding.values == {
        "count": 2,
        "total": 3,
        "example": "unet.b",
        "ratio": 1.8,
        "limit": 1.0,
    }


@pytest.mark.parametrize("break_it", [torch.nan, torch.inf, -torch.inf])
def test_tensor_with_a_number_that_is_none_is_named(break_it: float) -> None:
    make: Callable[[], Mapping[str, Tensor]] = lambda: dora(LINEAR, 3, 0)  # noqa: E731
    for name in ("lora_up", "lora_down", "magnitude"):
        leaves = dict(make())
        leaves[name].flatten()[1] = break_it
        figures = measure("unet.x", leaves, LINEAR)
        assert figures.unusable == (name,)
        assert math.isnan(figures.update_norm)
