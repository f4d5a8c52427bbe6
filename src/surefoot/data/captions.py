"""What is done to a picture's captions before one of them is encoded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from surefoot.data.batches import step_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from surefoot.config.captions import CaptionsConfig

_INNERMOST = re.compile(r"\{([^{}]*)\}")


def drawn_caption(
    captions: Sequence[str], config: CaptionsConfig, *, seed: int, step: int, position: int
) -> str:
    """The caption of one picture at one step, a pure function of its arguments.

    Left out or not, which of several, which wildcards, which tags in which order; then trigger,
    prefix and suffix. A caption that is left out is "", without these: it trains the unconditional
    branch that classifier-free guidance needs (Ho and Salimans 2022, algorithm 1).

    Args:
        captions: Of the picture, at least one.
        config: What is done to them.
        seed: The run's.
        step: The step, from 0.
        position: The picture's place among all pictures of the step, so that it does not matter
            into how many micro-batches or processes a step is cut.
    """
    draws = step_generator(seed, "caption", step, position)
    # Drawn first and always, so that no other setting changes which captions are left out.
    if draws.random() < config.dropout:
        return ""
    text = captions[int(draws.random() * len(captions))]
    if config.wildcards:
        text = _without_wildcards(text, draws)
    return _dressed(_with_tags(text, config, draws), config)


def plain_caption(captions: Sequence[str], config: CaptionsConfig) -> str:
    """What a picture's caption is without any chance: the first, with its tags in their order."""
    text = captions[0]
    if config.wildcards:
        text = _without_wildcards(text, None)
    return _dressed(_with_tags(text, config, None), config)


def tags_of(text: str, config: CaptionsConfig) -> tuple[list[str], list[str]]:
    """The tags that are kept where they are, and all others; neither holds the mark."""
    if config.keep_mark and config.keep_mark in text:
        kept, _mark, free = text.partition(config.keep_mark)
        return _split(kept, config.separator), _split(free, config.separator)
    tags = _split(text, config.separator)
    return tags[: config.keep_tags], tags[config.keep_tags :]


def has_trigger(text: str, trigger: str) -> bool:
    """Whether the words are in a text, whatever their capitals, but not inside of other words."""
    # Not \b, which sees one long word where Latin letters stand among Chinese ones.
    pattern = rf"(?<![a-z0-9_]){re.escape(trigger.strip().lower())}(?![a-z0-9_])"
    return re.search(pattern, text.lower()) is not None


def _without_wildcards(text: str, draws: np.random.Generator | None) -> str:
    """Replaces `{a|b}` by one of its parts, the inner ones first; unpaired braces stay."""
    while found := _INNERMOST.search(text):
        parts = found[1].split("|")
        part = parts[0 if draws is None else int(draws.random() * len(parts))]
        text = text[: found.start()] + part + text[found.end() :]
    return text


def _with_tags(text: str, config: CaptionsConfig, draws: np.random.Generator | None) -> str:
    marked = bool(config.keep_mark) and config.keep_mark in text
    changes = config.shuffle or config.tag_dropout > 0
    if not (marked or changes):
        return text  # not even its spaces are touched
    kept, free = tags_of(text, config)
    if draws is not None:
        # Two numbers for each tag whatever is asked, so that one setting does not move the other.
        places, chances = draws.random(len(free)), draws.random(len(free))
        order = places.argsort(kind="stable") if config.shuffle else range(len(free))
        free = [free[index] for index in order if chances[index] >= config.tag_dropout]
    return _joined([*kept, *free], config.separator)


def _dressed(text: str, config: CaptionsConfig) -> str:
    if config.trigger.strip() and not has_trigger(text, config.trigger):
        text = _joined([config.trigger.strip(), *([text] if text else [])], config.separator)
    return config.prefix + text + config.suffix


def _split(text: str, separator: str) -> list[str]:
    # By the mark itself: whoever writes ", " for a separator means the comma.
    parts = text.split(separator.strip() or separator)
    return [part.strip() for part in parts if part.strip()]


def _joined(tags: list[str], separator: str) -> str:
    mark = separator.strip()
    return (f"{mark} " if mark else separator).join(tags)
