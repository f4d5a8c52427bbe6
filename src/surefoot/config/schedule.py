"""The learning-rate schedules, one section each, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Section

_EndFactor = Annotated[float, Field(ge=0, le=1)]


class _WarmedUp(Section):
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises, the first of which already moves."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The same as a share of `train.steps`, such as 0.05; give one of the two."""


class ConstantConfig(_WarmedUp):
    """The same learning rate to the end."""

    kind: Literal["constant"] = "constant"
    """`constant`: stays at the learning rate."""


class LinearConfig(_WarmedUp):
    """Down along a line."""

    kind: Literal["linear"] = "linear"
    """`linear`: falls by equal parts."""

    end_factor: _EndFactor = 0.0
    """Share of the learning rate that is left when all steps are done."""


class CosineConfig(_WarmedUp):
    """Down along half a cosine (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = "cosine"
    """`cosine`: slow at both ends."""

    end_factor: _EndFactor = 0.0
    """Share of the learning rate that is left when all steps are done."""


class CosineRestartsConfig(_WarmedUp):
    """Down along half a cosine several times (SGDR, Loshchilov & Hutter 2017)."""

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    """`cosine_restarts`: jumps back to the whole learning rate at each restart."""

    cycles: Annotated[int, Field(ge=1, le=100)] = 2
    """How often it falls; the restarts are one fewer."""

    cycle_multiplier: Annotated[float, Field(ge=1, le=10)] = 1.0
    """Each cycle is this many times as long as the one before."""

    end_factor: _EndFactor = 0.0
    """Share of the learning rate that each cycle falls to."""


class PolynomialConfig(_WarmedUp):
    """Down along a power of what is left of the run."""

    kind: Literal["polynomial"] = "polynomial"
    """`polynomial`: with `power` 1 a line, above it fast at first."""

    power: Annotated[float, Field(gt=0, le=10)] = 2.0
    """The exponent."""

    end_factor: _EndFactor = 0.0
    """Share of the learning rate that is left when all steps are done."""


class InverseSqrtConfig(_WarmedUp):
    """Down with 1/sqrt(step) (Vaswani et al. 2017)."""

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"
    """`inverse_sqrt`: after a warm-up in steps it does not depend on the length of the run."""

    timescale: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """The factor is sqrt(timescale / (timescale + steps since the warm-up)). `auto` is the steps
    of the warm-up, or without one a tenth of the run."""


class RexConfig(_WarmedUp):
    """REX, a reflected exponential (Chen et al. 2021)."""

    kind: Literal["rex"] = "rex"
    """`rex`: stays high for longer than `linear` and falls late."""

    end_factor: _EndFactor = 0.0
    """Share of the learning rate that is left when all steps are done."""


ScheduleConfig = Annotated[
    ConstantConfig
    | LinearConfig
    | CosineConfig
    | CosineRestartsConfig
    | PolynomialConfig
    | InverseSqrtConfig
    | RexConfig,
    Field(discriminator="kind"),
]
