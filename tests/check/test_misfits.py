"""What is known to go wrong between optimizer, method, numbers and data: each is told, or why not.

The numbers are those of a catalogue of misfits from the issue trackers of other trainers.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

import surefoot
from surefoot.wording import WORDS

PACKAGE = Path(surefoot.__file__).parent
NO_FEATURE = "there is no such key: "
BUILT_SO = "cannot happen here: "

MISFITS: dict[int, tuple[str, tuple[str, ...] | str]] = {
    1: ("adafactor's own scale on adapters", ("SF101", "SF150")),
    2: ("relative_step and a rate of one's own", ("SF102",)),
    3: ("warmup_init without relative_step", ("SF103",)),
    4: ("relative_step in a short run", ("SF104",)),
    5: ("a library's Adafactor on adapters", ("SF150",)),
    6: ("arguments that a class does not take", ("SF003", "SF114", "SF115", "SF116", "SF117")),
    7: ("Adafactor and clipping of gradients", ("SF105",)),
    8: ("clip_threshold below 1", ("SF151",)),
    9: ("weight decay times a scaled rate", ("SF152",)),
    10: ("the step within backward, with accumulation or clipping", ("SF133", "SF134")),
    11: ("rounding that depends on a memory flag", BUILT_SO + "one rounding for both paths"),
    12: ("stochastic rounding that never shows", BUILT_SO + "tests/optim/test_rounding.py"),
    13: ("a rate where a factor is meant", ("SF118",)),
    14: ("several rates with a found one", ("SF145",)),
    15: ("warm-up or restarts with a found rate", ("SF122", "SF153")),
    16: ("a found rate that never falls", ("SF119",)),
    17: ("a found rate that never rises", ("SF519", "SF521")),
    18: ("clipping before a found rate", ("SF120",)),
    19: ("the real rate is not shown", BUILT_SO + "tests/optim/test_rates.py"),
    20: (
        "the main rate is left out",
        BUILT_SO + "tests/engine/test_part_rates.py: `lr` has a value",
    ),
    21: ("schedule-free with a schedule", ("SF123",)),
    22: ("the wrong weights of schedule-free", BUILT_SO + "tests/engine/test_schedule_free.py"),
    23: ("schedule-free at AdamW's rate", ("SF125",)),
    24: ("DAdaptAdaGrad on adapters", ("SF126",)),
    25: ("8 bits for small tensors", ("SF127",)),
    26: ("an optimizer that needs other weights", ("SF113",)),
    27: ("sharded training", NO_FEATURE + "a run is trained by one process"),
    28: ("LoRA+", NO_FEATURE + "lora_up and lora_down have one rate"),
    29: ("the rate of another method", ("SF154", "SF109", "SF110")),
    30: ("alpha far from rank", ("SF107",)),
    31: ("alpha without rank", BUILT_SO + "tests/tuning/test_layers.py"),
    32: ("rank-stabilised scale", ("SF141",)),
    33: ("steps lost in bfloat16", ("SF129",)),
    34: ("a magnitude in bfloat16", BUILT_SO + "adapters are kept in fp32"),
    35: ("weight decay lost in bfloat16", ("SF155",)),
    36: ("trained weights in fp16", NO_FEATURE + "precision is fp32 or bf16"),
    37: ("a dtype that changes in the run", BUILT_SO + "nothing casts trained tensors"),
    38: ("a VAE in fp16", BUILT_SO + "pictures are encoded in fp32"),
    39: ("NaN replaced by zeros", ("SF502",)),
    40: ("a loss or gradient that is not finite", ("SF502", "SF523")),
    41: ("rows of zeros under DoRA", BUILT_SO + "the norm is guarded, tests/tuning"),
    42: ("DoRA on a quantised model", NO_FEATURE + "models are not quantised"),
    43: ("trained on a quantised model", NO_FEATURE + "models are not quantised"),
    44: ("DoRA's memory", BUILT_SO + "the weight is never made, tests/tuning"),
    45: (
        "a tensor outside of the optimizer",
        BUILT_SO + "the engine compares them, engine/wiring.py",
    ),
    46: ("no gradient at all", ("SF501",)),
    47: ("no targets", ("SF026", "SF158")),
    48: ("a magnitude that stands still", ("SF501", "SF519")),
    49: ("dropout beside DoRA's base path", BUILT_SO + "tests/tuning"),
    50: ("the other norm axis", ("SF181", "SF182")),
    51: ("DoRA switched off by a default", BUILT_SO + "tests/tuning: it differs from LoRA"),
    52: ("keys that other programs do not know", ("SF180", "SF183")),
    53: ("alpha left out of a file", BUILT_SO + "tests/formats"),
    54: ("the wrong prediction, or no signal at the end", ("SF201", "SF203")),
    55: ("Min-SNR without signal", ("SF204",)),
    56: ("SNR weights with flow matching", NO_FEATURE + "no family of flow matching yet"),
    57: ("timestep shift", NO_FEATURE + "no family of flow matching yet"),
    58: ("a shift that is ignored", NO_FEATURE + "no family of flow matching yet"),
    59: ("a warm-up longer than the run", ("SF106", "SF131", "SF132")),
    60: ("an average longer than the run", ("SF108",)),
    61: ("fewer steps than pictures", ("SF307",)),
    62: (
        "frozen captions with a trained encoder",
        BUILT_SO + "captions are then encoded at each step",
    ),
    63: ("pictures that fill no batch", ("SF303", "SF034", "SF036")),
    64: ("a stale cache", BUILT_SO + "tests/data/test_cache.py: the key is the content"),
    65: ("captions missing or too long", ("SF037", "SF301", "SF302", "SF308")),
    66: ("steps not divided among processes", NO_FEATURE + "a run is trained by one process"),
    67: ("going on with another optimizer or rank", ("SF043", "SF511")),
    68: ("going on with today's file", BUILT_SO + "tests/engine/test_changed_settings.py"),
    69: ("rates by group with LoRA+", NO_FEATURE + "lora_up and lora_down have one rate"),
    70: ("a distilled base", ("SF205",)),
    71: ("a large step of an adapter", ("SF159",)),
    72: ("attention only", ("SF157",)),
    73: ("a block's rate of zero", NO_FEATURE + "blocks have no rates of their own"),
}


@functools.cache
def codes_given() -> set[str]:
    """Codes that some module outside of the words can give."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if not path.name.endswith(("words.py", "wording.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"^SF\d{3}$", node.value))
    return found


def test_the_catalogue_is_whole() -> None:
    assert list(MISFITS) == list(range(1, 74))


@pytest.mark.parametrize("number", MISFITS)
def test_every_misfit_is_told_or_has_its_reason(number: int) -> None:
    _title, told = MISFITS[number]
    if isinstance(told, str):
        assert told.startswith((NO_FEATURE, BUILT_SO))
        assert len(told.partition(": ")[2]) > 5
        for file in re.findall(r"tests/[\w/]+(?:\.py)?", told):
            assert (PACKAGE.parents[1] / file).exists(), file
    else:
        assert [code for code in told if code not in WORDS] == []
        assert [code for code in told if code not in codes_given()] == []
