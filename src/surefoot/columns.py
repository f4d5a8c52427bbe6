"""Tables in plain text."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines, each column as wide as its widest cell."""
    if not table:
        return []
    widths = [max(cell_len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def padded(cell: str, width: int) -> str:
    """Filled up to a width in terminal columns, of which a Chinese character takes two."""
    return cell + " " * (width - cell_len(cell))
