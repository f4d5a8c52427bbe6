"""The cases of the study, most informative first. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Setting = Literal[
    "weight",
    "false",
    "true",
    "relative weight",
    "relative false",
    "relative true",
    "adamw",
    "prodigy",
]
"""An optimizer setting: Adafactor's `scale_parameter` with and without `relative_step`, or another
optimizer."""

SETTINGS: tuple[Setting, ...] = get_args(Setting)

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Method:
    """A tuning: what of the model is trained."""

    name: str
    tuning: Mapping[str, object]

    @property
    def is_full(self) -> bool:
        """Whether all weights are trained, which takes smaller absolute learning rates."""
        return self.tuning["kind"] == "full"


def _adapter(kind: str, rank: int, alpha: float, said: str) -> Method:
    tuning = {"kind": kind, "rank": rank, "alpha": alpha, "targets": "all"}
    return Method(f"{kind} r{rank} {said}", tuning)


FULL = Method("full", {"kind": "full"})
LORA_4 = _adapter("lora", 4, 4.0, "alpha=r")
LORA_16 = _adapter("lora", 16, 16.0, "alpha=r")
LORA_64 = _adapter("lora", 64, 64.0, "alpha=r")
LORA_16_ALPHA_1 = _adapter("lora", 16, 1.0, "alpha=1")
LORA_16_ALPHA_2R = _adapter("lora", 16, 32.0, "alpha=2r")
DORA_16 = _adapter("dora", 16, 16.0, "alpha=r")

METHODS = (FULL, LORA_4, LORA_16, LORA_64, DORA_16, LORA_16_ALPHA_1, LORA_16_ALPHA_2R)
ONE_OF_EACH = (FULL, LORA_16, DORA_16)
ADAMW_METHODS = (FULL, LORA_4, LORA_16, LORA_64, DORA_16)

RELATIVE: tuple[Setting, ...] = ("relative true", "relative false", "relative weight")
WEIGHT_SETTINGS: tuple[Setting, ...] = ("weight", "relative weight")
_RELATIVE_LR = 1e-2  # what `relative_step` gives in the first 10,000 steps
_PRODIGY_LR = 1.0  # a factor on the rate that it finds by itself


@dataclass(frozen=True)
class Case:
    """One training."""

    method: Method
    setting: Setting
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Names the case in the results file and to a `--select`."""
        return f"{self.setting}, {self.method.name}, lr {self.lr:g}, seed {self.seed}"

    def optimizer(self) -> dict[str, object]:
        """The section `optimizer` of its run.toml."""
        section = optimizer_section(self.setting)
        return section if self.setting in RELATIVE else {**section, "lr": self.lr}


def optimizer_section(setting: Setting) -> dict[str, object]:
    """A section `optimizer` with the learning rate left to `auto`."""
    if setting in ("adamw", "prodigy"):
        return {"kind": setting}
    scale = setting.removeprefix("relative ")
    section: dict[str, object] = {
        "kind": "adafactor",
        "scale_parameter": scale if scale == "weight" else scale == "true",
    }
    return {**section, "relative_step": True} if setting in RELATIVE else section


def rates(setting: Setting, method: Method) -> tuple[float, ...]:
    """The learning rates that are tried, ascending; what `auto` gives is among them."""
    match setting:
        case "weight":
            return (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
        case "false" if method.is_full:
            return (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
        case "false" if method == LORA_16_ALPHA_1:  # its update is 16 times as small
            return (1e-4, 3e-3, 1e-2, 3e-2, 1e-1)
        case "false":
            return (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
        case "true":
            return (1e-2, 3e-2, 1e-1, 3e-1, 1.0)
        case "adamw" if method.is_full:
            return (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
        case "adamw":
            return (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
        case "relative weight" | "relative false" | "relative true":
            return (_RELATIVE_LR,)
        case "prodigy":
            return (_PRODIGY_LR,)


def planned_cases() -> list[Case]:
    """Every case that is known beforehand, in the order in which they are run."""
    first, *others = SEEDS
    return [
        *_grid("weight", METHODS, [first]),
        *_grid("false", METHODS, [first]),
        *_grid("weight", METHODS, others),
        *_grid("true", ONE_OF_EACH, [first]),
        *(case for setting in RELATIVE for case in _grid(setting, ONE_OF_EACH, SEEDS)),
        *_grid("adamw", ADAMW_METHODS, [first]),
        *_grid("prodigy", ONE_OF_EACH, SEEDS),
    ]


def _grid(setting: Setting, methods: Iterable[Method], seeds: Sequence[int]) -> Iterator[Case]:
    for seed in seeds:
        for method in methods:
            for lr in rates(setting, method):
                yield Case(method, setting, lr, seed)


REPEATED: tuple[tuple[Setting, tuple[Method, ...]], ...] = (
    ("false", METHODS),
    ("true", ONE_OF_EACH),
    ("adamw", ADAMW_METHODS),
)
"""Settings of which the other seeds train the best learning rate and its neighbours only."""


def repeated_cases(losses: Mapping[str, float]) -> list[Case]:
    """The other seeds of the best learning rate and its two neighbours.

    Args:
        losses: Name of a case to its held-out loss, infinity if it diverged. A grid that the first
            seed has not finished gives nothing.
    """
    found: list[Case] = []
    for setting, methods in REPEATED:
        for method in methods:
            first = list(_grid(setting, [method], SEEDS[:1]))
            if all(case.name in losses for case in first):
                best = min(range(len(first)), key=lambda place: losses[first[place].name])
                near = first[max(0, best - 1) : best + 2]
                found += [
                    Case(method, setting, case.lr, seed) for seed in SEEDS[1:] for case in near
                ]
    return found
