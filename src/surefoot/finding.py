"""`Finding`: one thing to say about a run. Codes and numbers only; words are in `wording.py`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
Value = str | int | float


@dataclass(frozen=True)
class Change:
    """A change of run.toml that mends a finding.

    Attributes:
        path: The key.
        value: What to set it to, as a TOML literal; with `rename` its new name, with `remove`
            nothing.
        before: What it is now, as a TOML literal.
        action: What to do with it.
        same: The training is the same with and without it.
    """

    path: str
    value: str
    before: str
    action: Literal["set", "remove", "rename"] = "set"
    same: bool = False


@dataclass(frozen=True)
class StepRow:
    """What one kind of tensor will do: a row of the effective-step sheet.

    `rms` is the tensor's own root mean square at the start, `weight_rms` that of its layer's
    weight as Adafactor's weight rule takes it, `fan_in` the inputs of that layer, `alpha` that of
    its adapter.
    `part` is empty where all parts have one learning rate.
    `first` and `total` are per element: at the first step, and over the run if every step went
    the same way. `layer_change` is how far `total` could change the layer, relative to its weight.
    Not `known`: the optimizer finds its learning rate in the run, and these are with a rate of 1.
    `lost` is the share of all its numbers' steps that rounding to `dtype` takes away.
    `later` are the steps per element at a tenth of the run, at half of it and at its end.
    `full_lr` is the learning rate at which full fine-tuning, by an optimizer that steps by its
    rate as Adam does, would move the layer as much as the largest step; 0 if it moves none.
    """

    kind: str
    tensors: int
    numbers: int
    rms: float
    weight_rms: float
    fan_in: int
    first: float
    total: float
    layer_change: float
    known: bool = True
    lost: float = 0.0
    alpha: float = 1.0
    dtype: str = "fp32"
    later: tuple[float, float, float] = (0.0, 0.0, 0.0)
    full_lr: float = 0.0
    part: str = ""

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.part}.{self.kind}" if self.part else self.kind


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        code: `SF` and three digits. `SF0..` is input that cannot be used; see docs/findings.md.
        level: How bad it is.
        path: The dotted path in run.toml that it is about, or an empty string.
        values: The numbers and names of this very run, for the sentence.
        rows: Rows of the effective-step sheet that show it.
        changes: What to change in run.toml.
        waived: Why it does not matter here, as run.toml says; empty if it does.
    """

    code: str
    level: Level
    path: str
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    rows: tuple[StepRow, ...] = ()
    changes: tuple[Change, ...] = ()
    waived: str = ""

    @property
    def standing(self) -> Level | None:
        """Its level, none once it is waived."""
        return None if self.waived else self.level

    @property
    def unusable(self) -> bool:
        """Whether it is about input that cannot be used at all (exit code 2)."""
        return self.level == "error" and self.code.startswith("SF0")

    def as_json(self) -> dict[str, object]:
        """As plain JSON values, without words."""
        return asdict(self)


class Refused(Exception):
    """A run that cannot go on, with every reason at once."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__(", ".join(f"{item.code} {item.path}" for item in findings))
        self.findings = findings
