"""The alphas that PEFT keeps beside the tensors instead of among them. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from surefoot.language import _

HEADER_KEY = "lora_adapter_metadata"
"""Under it diffusers keeps the settings of every part, `unet.r` and so on, as JSON."""

CONFIG_FILE = "adapter_config.json"
"""In it PEFT keeps them, beside the file of the adapter."""

WEIGHTS_FILE = "adapter_model.safetensors"
"""What PEFT calls the file of the adapter."""


class SettingsError(ValueError):
    """The settings cannot be read."""


@dataclass(frozen=True)
class PeftSettings:
    """What PEFT knows of the adapters of one part.

    Attributes:
        alpha: Of the layers that no pattern matches; the rank if it is not told.
        alphas: Regular expression for the end of a module path, to alpha.
        rank_stabilised: The factor on the update is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv
            2312.03732) instead of alpha / rank.
    """

    alpha: float | None
    alphas: Mapping[str, float]
    rank_stabilised: bool

    def effective_alpha(self, module: str, rank: int) -> float:
        """The alpha of one layer, such that alpha / rank is the factor on its update."""
        given = (
            alpha
            for pattern, alpha in self.alphas.items()
            if re.fullmatch(rf"(.*\.)?({pattern})", module)
        )
        alpha = next(given, rank if self.alpha is None else self.alpha)
        return alpha * math.sqrt(rank) if self.rank_stabilised else alpha


def settings_by_part(
    path: Path, metadata: Mapping[str, str], *, peft: bool
) -> dict[str, PeftSettings]:
    """By the name of the part; under an empty name what holds for all others.

    Args:
        path: The file of the adapter.
        metadata: Of its header.
        peft: Whether PEFT wrote the file, so that the settings beside it are its own. A file that
            another program puts into the same folder may hold its alphas already.

    Raises:
        SettingsError: They are there and not readable.
    """
    beside = path.with_name(CONFIG_FILE)
    where = HEADER_KEY if HEADER_KEY in metadata else str(beside)
    try:
        if HEADER_KEY in metadata:
            values = json.loads(metadata[HEADER_KEY])
        elif peft and beside.is_file():
            values = json.loads(beside.read_text(encoding="utf-8"))
        else:
            return {}
    except (ValueError, RecursionError):
        raise SettingsError(_("{where} is not readable as JSON.").format(where=where)) from None
    try:
        return _by_part(cast(dict[str, object], values))
    except (ValueError, TypeError, AttributeError, OverflowError, re.error):
        raise SettingsError(
            _(
                "{where} holds no settings of PEFT: `lora_alpha` must be a finite number, and "
                "`alpha_pattern` have patterns with such numbers."
            ).format(where=where)
        ) from None


def _by_part(values: dict[str, object]) -> dict[str, PeftSettings]:
    parts: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        part, _dot, key = name.rpartition(".")
        parts.setdefault(part, {})[key] = value
    return {part: _settings(keys) for part, keys in parts.items()}


def _settings(keys: Mapping[str, object]) -> PeftSettings:
    alpha = keys.get("lora_alpha")
    patterns = cast(dict[str, float], keys.get("alpha_pattern") or {})
    for pattern in patterns:
        re.compile(pattern)
    return PeftSettings(
        alpha=None if alpha is None else _finite(alpha),
        alphas={pattern: _finite(value) for pattern, value in patterns.items()},
        rank_stabilised=bool(keys.get("use_rslora", False)),
    )


def _finite(value: object) -> float:
    number = float(cast(float, value))
    if not math.isfinite(number):
        raise ValueError(number)
    return number
