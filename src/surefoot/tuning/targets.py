"""Which layers an adapter is put on, told from names and shapes alone. No torch."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

ADAPTABLE_DIMENSIONS = (2, 3, 4, 5)
"""Dimensions of the weights of linear layers and of convolutions over 1, 2 and 3 dimensions."""


@dataclass(frozen=True)
class Target:
    """What the adapter of one layer is given.

    Attributes:
        rank: Inner width of the update.
        alpha: The update is multiplied by alpha / rank; rank-stabilised LoRA is in it already.
    """

    rank: int
    alpha: float


def select_targets(
    shapes: Mapping[str, tuple[int, ...]], patterns: Sequence[str]
) -> tuple[str, ...]:
    """Module paths that one of the patterns matches and that can carry an adapter.

    A pattern is matched against the whole dotted path and against every dotted suffix of it, so
    `attn1.to_q` means that layer of every block and `down_blocks.0.*` every layer of one block.
    Wildcards are those of the shell (`*`, `?`, `[ab]`); `*` crosses dots; case counts.

    Only weights of two to five dimensions are targets: norms have one. Embeddings are left out
    by name.

    Args:
        shapes: Module path, without `.weight`, to the shape of its weight.
        patterns: Patterns as described above.

    Returns:
        The paths in the order of `shapes`, each once.

    Examples:
        >>> shapes = {"mid.attn1.to_q": (8, 8), "mid.attn1.to_k": (8, 8), "mid.norm": (8,)}
        >>> select_targets(shapes, ["attn1.to_q", "norm"])
        ('mid.attn1.to_q',)
        >>> select_targets(shapes, ["*.to_?"])
        ('mid.attn1.to_q', 'mid.attn1.to_k')
    """
    matchers = [_matcher(pattern) for pattern in patterns]
    return tuple(
        path for path in _adaptable(shapes) if any(matcher.match(path) for matcher in matchers)
    )


def unmatched_patterns(
    shapes: Mapping[str, tuple[int, ...]], patterns: Sequence[str]
) -> tuple[str, ...]:
    """Patterns that select no target at all, in the order given.

    A pattern that matches nothing but norms or embeddings counts as unmatched.
    """
    adaptable = _adaptable(shapes)
    return tuple(
        pattern for pattern in patterns if not any(map(_matcher(pattern).match, adaptable))
    )


def first_match(path: str, patterns: Iterable[str]) -> str | None:
    """The first of the patterns that matches a module path; None if none does.

    Examples:
        >>> first_match("mid.attn1.to_q", ["to_k", "attn1.*", "*"])
        'attn1.*'
    """
    return next((pattern for pattern in patterns if _matcher(pattern).match(path)), None)


def _adaptable(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [
        path
        for path, shape in shapes.items()
        if len(shape) in ADAPTABLE_DIMENSIONS and not _is_embedding(path)
    ]


def _is_embedding(path: str) -> bool:
    # Not every component: `time_embedding.linear_1` is a linear layer like any other.
    return "embedding" in path.rpartition(".")[2] or "embeddings." in path


@cache
def _matcher(pattern: str) -> re.Pattern[str]:
    """A regular expression that matches the pattern at the start of a path or after a dot."""
    return re.compile(r"(?s:.*\.)?" + fnmatch.translate(pattern))
