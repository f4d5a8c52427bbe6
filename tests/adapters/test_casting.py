"""What a cast costs is counted, and what it would break is refused."""

from __future__ import annotations

import pytest
import torch

from surefoot.adapters.casting import Cast
from surefoot.finding import Refused


def test_numbers_that_become_zero_are_counted() -> None:
    cast = Cast(torch.float16)
    assert cast("a", torch.tensor([1e-9, 0.0, 1.0, -1e-8]), torch.float32).tolist() == [0, 0, 1, 0]
    cast("b", torch.ones(4), torch.float32)
    (finding,) = cast.findings()
    assert finding.values == {"count": 2, "percent": 25.0, "dtype": "float16"}


def test_cast_that_loses_nothing_has_nothing_to_tell() -> None:
    cast = Cast(torch.bfloat16)
    cast("a", torch.tensor([1e-9, 3e38, 0.0]), torch.float32)
    assert cast.findings() == []


def test_without_a_dtype_each_tensor_gets_its_own_and_whole_numbers_are_kept() -> None:
    assert Cast(None)("a", torch.ones(1), torch.bfloat16).dtype == torch.bfloat16
    assert Cast(torch.float16)("ids", torch.arange(3), torch.int64).dtype == torch.int64


def test_number_beyond_the_range_is_refused_by_name_but_infinity_itself_is_no_news() -> None:
    with pytest.raises(Refused) as refused:
        Cast(torch.float16)("unet.x", torch.tensor([1.0, -7e4]), torch.float32)
    (finding,) = refused.value.findings
    assert (finding.code, finding.values["name"]) == ("SF086", "unet.x")
    assert (finding.values["largest"], finding.values["most"]) == (7e4, 65504.0)
    assert Cast(torch.float16)("x", torch.tensor([torch.inf]), torch.float32).isinf().all()
