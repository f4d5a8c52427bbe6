"""What is minimised: the section `objective`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from surefoot.config.section import Off, Section


class ObjectiveConfig(Section):
    """What is minimised."""

    loss: Literal["mse"] = "mse"
    """`mse`: mean squared error."""

    snr_gamma: Annotated[float, Field(gt=0)] | Off = "off"
    """Min-SNR weighting (Hang et al. 2023); 5 is customary."""

    noise_offset: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Adds this much of one shared number per channel to the noise, for very dark and bright
    pictures."""
