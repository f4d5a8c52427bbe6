"""Learning rates of single parts, which most trainers have for the text encoder."""

from __future__ import annotations

from surefoot.importers.account import Account
from surefoot.importers.document import Leaf
from surefoot.language import N_

FIRST_ENCODERS = N_("surefoot has one learning rate for all text encoders, the first")
STANDS_STILL = N_("at a rate of 0 the part is not trained")
OWN_RATES = N_("every part has a learning rate of its own")
_HIGHEST = 10.0  # of optimizer.part_lr


def set_part_rate(account: Account, part: str, rate: float, key: str, reason: str = "") -> None:
    """Sets `optimizer.part_lr` of a part that is trained at another rate than the rest.

    It comes after the optimizer: `relative_step` knows no rates of parts. A part at a rate of 0 is
    taken out of `tuning.parts`.
    """
    parts = account.settings["tuning.parts"]
    trained = parts.value if isinstance(parts.value, tuple) else ()
    main, relative = (account.settings.get(f"optimizer.{name}") for name in ("lr", "relative_step"))
    if part not in trained or (relative is not None and relative.value):
        return
    if rate == 0 and len(trained) > 1:
        left = tuple(name for name in trained if name != part)
        account.set("tuning.parts", left, key, STANDS_STILL)  # pyright: ignore[reportArgumentType]
    elif main is not None and rate != main.value and 0 < rate <= _HIGHEST:
        account.set(f"optimizer.part_lr.{part}", rate, key, reason)
    else:
        account.use(key, "optimizer.lr")


def first_rate(value: Leaf) -> float | None:
    """The first of one or several rates; `None` if there is none or it is no number."""
    first = value[0] if isinstance(value, tuple) and value else value
    if isinstance(first, tuple | bool) or first is None:
        return None
    try:
        return float(first)
    except ValueError:
        return None
