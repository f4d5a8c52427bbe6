"""Adafactor on tensors of which each process holds some rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.optim.sharded_cases import CASES, STEPS, work
from tests.processes import run_together

# The same numbers are added up in another order; float32 has 2^-24.
SUMS: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run_together(work, request.param, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("name", [*CASES, "a few rows at a time"])
def test_it_steps_as_on_whole_tensors(found: list[Any], name: str) -> None:
    for of_rank in found:
        case = of_rank["cases"][name]
        for place, (whole, sharded) in enumerate(zip(case["whole"], case["sharded"], strict=True)):
            if whole.dtype == torch.bfloat16:
                # A last bit of the update may decide how a number is rounded.
                assert (whole != sharded).float().mean() <= 0.02, place
                torch.testing.assert_close(whole, sharded, rtol=2**-7, atol=1e-6)
            else:
                torch.testing.assert_close(whole, sharded, **SUMS)
        if "bf16" not in name:
            for whole, sharded in zip(case["whole state"], case["sharded state"], strict=True):
                torch.testing.assert_close(whole, sharded, **SUMS)


def test_a_gradient_that_is_not_finite_on_one_process_is_refused_by_all(found: list[Any]) -> None:
    for of_rank in found:
        case = of_rank["cases"]["not finite in one row"]
        expected = [int(step == 2) for step in range(1, STEPS + 1)]
        assert [int(count) for count in case["sharded refused"]] == expected
        assert all(tensor.isfinite().all() for tensor in case["sharded"])


def test_every_process_ends_with_the_same_weights(found: list[Any]) -> None:
    for name, case in found[0]["cases"].items():
        for other in found[1:]:
            for mine, theirs in zip(case["sharded"], other["cases"][name]["sharded"], strict=True):
                assert torch.equal(mine, theirs)


def test_two_messages_serve_any_number_of_tensors(found: list[Any]) -> None:
    assert all(of_rank["messages"] == [2, 2] for of_rank in found)


def test_fsdp_trains_as_one_process_and_its_state_goes_through_torch_checkpoints(
    found: list[Any],
) -> None:
    for of_rank in found:
        for plain, sharded in zip(*of_rank["fsdp"], strict=True):
            torch.testing.assert_close(plain, sharded, **SUMS)


def test_tensors_that_are_divided_otherwise_are_refused_in_words(found: list[Any]) -> None:
    for of_rank in found:
        by_columns, nowhere, in_backward = of_rank["refusals"]
        assert "along their first axis" in by_columns
        assert "along their first axis" in nowhere
        assert "within the backward pass" in in_backward
