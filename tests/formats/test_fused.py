"""Fused projections: what is split and fused again changes every weight by the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from surefoot.formats.fused import fuse, split_fused
from surefoot.formats.weights import WeightsError
from tests.formats.small_adapters import AdapterKind, layer

WEIGHT = torch.zeros(24, 6)


def made(
    kind: AdapterKind, weight: Tensor = WEIGHT, rank: int = 3, seed: int = 0
) -> dict[str, Tensor]:
    return layer(kind, weight, rank, 2.0, torch.Generator().manual_seed(seed))


def update(leaves: dict[str, Tensor]) -> Tensor:
    """By the formulas, in float64."""
    own = {name: tensor.double() for name, tensor in leaves.items()}
    if "lora_up" in own:
        product, rank = own["lora_up"] @ own["lora_down"], own["lora_down"].shape[0]
    elif "hada_w1_a" in own:
        product = (own["hada_w1_a"] @ own["hada_w1_b"]) * (own["hada_w2_a"] @ own["hada_w2_b"])
        rank = own["hada_w1_b"].shape[0]
    else:
        product = torch.kron(own["lokr_w1"], own["lokr_w2_a"] @ own["lokr_w2_b"])
        rank = own["lokr_w2_b"].shape[0]
    return product * own["alpha"] / rank


@pytest.mark.parametrize("rows", [(8, 8, 8), (4, 20)])
@pytest.mark.parametrize("kind", ["lora", "dora output", "loha"])
def test_split_adapter_changes_the_same_rows(kind: AdapterKind, rows: tuple[int, ...]) -> None:
    leaves = made(kind)
    parts = split_fused("to_qkv", leaves, rows)
    assert [update(part).shape[0] for part in parts] == list(rows)
    assert torch.equal(torch.cat([update(part) for part in parts]), update(leaves))
    if "magnitude" in leaves:
        magnitudes = [part["magnitude"] for part in parts]
        assert torch.equal(torch.cat(magnitudes), leaves["magnitude"])
    if kind != "loha":
        again = fuse("to_qkv", parts)
        assert all(torch.equal(again[name], leaves[name]) for name in leaves)


def test_kronecker_product_is_split_where_its_blocks_end() -> None:
    leaves = made("lokr")  # two blocks of 12 rows
    parts = split_fused("to_kv", leaves, (12, 12))
    assert torch.equal(torch.cat([update(part) for part in parts]), update(leaves))
    with pytest.raises(WeightsError, match="to_qkv is fused"):
        split_fused("to_qkv", leaves, (8, 8, 8))


@pytest.mark.parametrize("ranks", [(3, 3, 3), (1, 2, 4)])
def test_fused_adapter_changes_the_same_rows(ranks: tuple[int, ...]) -> None:
    parts = [made("dora output", torch.zeros(8, 6), rank, seed) for seed, rank in enumerate(ranks)]
    fused = fuse("to_qkv", parts)
    assert fused["lora_down"].shape == (sum(ranks), 6)
    expected = torch.cat([update(part) for part in parts])
    torch.testing.assert_close(update(fused), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(fused["magnitude"], torch.cat([part["magnitude"] for part in parts]))


def test_what_cannot_be_exact_is_refused() -> None:
    with pytest.raises(WeightsError, match="taken apart"):
        split_fused("to_qkv", made("dora input"), (8, 8, 8))
    pairs: tuple[tuple[AdapterKind, AdapterKind], ...] = (
        ("loha", "loha"),
        ("dora input", "dora input"),
        ("lora", "dora output"),
    )
    for kinds in pairs:
        with pytest.raises(WeightsError, match="fused exactly"):
            fuse("to_kv", [made(kind) for kind in kinds])
