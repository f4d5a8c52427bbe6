from __future__ import annotations

import pytest

from surefoot.config.adapter_format import AdapterFormat
from surefoot.config.tuning import DoraConfig, FullConfig, LohaConfig, LoraConfig, TuningConfig
from surefoot.formats.abilities import planned_formats, still_for_comfyui


@pytest.mark.parametrize(
    ("tuning", "formats", "expected"),
    [
        (DoraConfig(), "auto", "comfyui-compat"),
        (DoraConfig(), ("diffusers", "kohya"), "comfyui-compat"),
        (DoraConfig(), ("diffusers", "comfyui-compat"), "none"),
        (DoraConfig(norm_axis="input"), "auto", "none"),
        (LoraConfig(), "auto", "none"),
        (LoraConfig(), ("diffusers",), "comfyui"),
        (LohaConfig(), ("comfyui",), "none"),
        (FullConfig(), "auto", "none"),
    ],
)
def test_a_result_that_comfyui_does_not_draw_rightly_is_known(
    tuning: TuningConfig, formats: tuple[AdapterFormat, ...], expected: str
) -> None:
    assert still_for_comfyui(planned_formats(formats, tuning), tuning) == expected
