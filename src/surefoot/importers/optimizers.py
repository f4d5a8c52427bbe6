"""Which optimizer of surefoot another trainer's is, and its fields. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from surefoot.config.load import UNIONS
from surefoot.importers.account import Account
from surefoot.importers.record import TomlValue
from surefoot.language import N_

NO_COUNTERPART = N_("surefoot has no such optimizer; AdamW stands in its place")


@dataclass(frozen=True)
class Counterpart:
    """An optimizer of surefoot that another trainer's name stands for.

    Attributes:
        kind: Its `kind` in run.toml.
        name: With `pytorch_optimizer`, the class.
        reason: How it differs, if it does.
    """

    kind: str
    name: str = ""
    reason: str = ""


def library_class(name: str) -> Counterpart:
    """A class of pytorch-optimizer."""
    return Counterpart("pytorch_optimizer", name)


def set_optimizer(account: Account, found: Counterpart | None, key: str) -> str:
    """Sets the kind; one that is not known is left out of the judgement.

    Returns:
        The kind.
    """
    if found is None:
        account.judged.discard("optimizer")
        account.set("optimizer.kind", "adamw", key, NO_COUNTERPART)
        account.find("SF725", "note", key, given=account.text(key))
        return "adamw"
    account.set("optimizer.kind", found.kind, key, found.reason)
    if found.name:
        account.set("optimizer.name", found.name)
    return found.kind


def has_field(kind: str, field: str) -> bool:
    """Whether the section of a kind of optimizer has a field."""
    return field in UNIONS["optimizer"][kind].model_fields


def set_field(
    account: Account, kind: str, field: str, value: TomlValue, key: str, reason: str = ""
) -> None:
    """Sets a field of the optimizer's section if it has that."""
    if has_field(kind, field):
        account.set(f"optimizer.{field}", value, key, reason)
