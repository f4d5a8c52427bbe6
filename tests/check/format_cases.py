"""Cases of the rules about the formats of the result."""

from __future__ import annotations

from tests.check.rule_cases import Case

LORA = "tuning.kind=lora"
FULL = "tuning.kind=full"

LOHA = "tuning.kind=loha"
BY_INPUTS = "tuning.norm_axis=input"

FORMAT_CASES = (
    Case(
        "SF180",
        "formats_that_cannot_hold_it",
        "error",
        (LOHA, 'save.formats=["diffusers"]'),
        ((LOHA, 'save.formats=["kohya"]'), (LORA, 'save.formats=["diffusers"]')),
        {"format": "diffusers"},
        "save.formats",
    ),
    Case(
        "SF181",
        "formats_that_cannot_hold_it",
        "error",
        (BY_INPUTS, 'save.formats=["diffusers"]'),
        ((BY_INPUTS, 'save.formats=["kohya"]'), ('save.formats=["diffusers"]',)),
        {"format": "diffusers"},
        "save.formats",
    ),
    Case(
        "SF182",
        "formats_that_cannot_hold_it",
        "error",
        ('save.formats=["diffusers", "comfyui"]',),
        (
            ('save.formats=["comfyui"]', LORA),
            ('save.formats=["comfyui-compat"]',),
            ('save.formats=["comfyui-compat"]', LORA),
            ('save.formats=["comfyui"]', FULL),
        ),
        {"format": "comfyui"},
        "save.formats",
    ),
    Case(
        "SF183",
        "formats_that_are_taken_wrongly",
        "warning",
        ('save.formats=["kohya", "diffusers", "simpletuner"]',),
        (
            (),
            ('save.formats=["diffusers"]',),
            ('save.formats=["kohya"]', LORA),
            ('save.formats=["kohya"]', FULL),
        ),
        {"formats": "kohya + simpletuner"},
        "save.formats",
    ),
)
