"""The matrix that Adafactor sees a tensor as. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the matrix that a tensor is seen as, (first axis, all the rest).

    Rows are 0 where the second moment is not factored: for a vector, and for a matrix of a single
    row or column, of which the factored second moment is the whole one again. In either case it
    takes as many numbers as rows and columns together.
    """
    numbers = math.prod(shape)
    rows = shape[0] if len(shape) >= 2 else 1
    columns = numbers // max(1, rows)
    return (rows, columns) if rows > 1 and columns > 1 else (0, numbers)
