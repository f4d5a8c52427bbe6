"""How far noise levels are moved for large pictures. No torch."""

from __future__ import annotations

import math

_FEW, _MANY = 256, 4096  # tokens: pictures of 256 and of 1024 pixels a side
_AT_FEW, _AT_MANY = 0.5, 1.15


def shift_by_area(tokens: int, usual: int) -> float:
    """The root of how many times more tokens a picture has than a usual one.

    More pixels show through the same noise: Esser et al. 2024, arXiv 2403.03206, equation 23.

    Args:
        tokens: Of the picture in the network.
        usual: Of one at which the shift is 1.
    """
    return math.sqrt(tokens / usual)


def shift_of_flux(tokens: int, at_few: float = _AT_FEW, at_many: float = _AT_MANY) -> float:
    """As the reference code of FLUX.1 has it: e^mu, with mu a straight line over the tokens.

    Args:
        tokens: Of the picture in the network.
        at_few: mu at 256 tokens.
        at_many: mu at 4096 tokens.
    """
    slope = (at_many - at_few) / (_MANY - _FEW)
    return math.exp(at_few + slope * (tokens - _FEW))
