"""Options of an optimizer that stand under their own names, as its class takes them."""

from __future__ import annotations

from surefoot.importers.account import Account
from surefoot.importers.document import Leaf
from surefoot.importers.optimizers import has_field
from surefoot.language import N_

NO_SUCH_OPTION = N_("surefoot's {kind} has no such option")
_SEVERAL = {"betas": ("beta1", "beta2", "beta3"), "eps": ("eps1", "eps2"),
            "eps_pair": ("eps1", "eps2")}  # fmt: skip
_OTHERWISE = {"use_bias_correction": "bias_correction"}


def set_options(account: Account, kind: str, options: dict[str, tuple[Leaf, str]]) -> None:
    """Sets the fields of `optimizer` that the options name; says which it lacks.

    Args:
        account: The keys.
        kind: The kind of optimizer in run.toml.
        options: Name of the class's argument to its value and the key that it stands at.
    """
    for name, (value, key) in options.items():
        if isinstance(value, tuple):
            _set_several(account, kind, name, value, key)
            continue
        field = name if has_field(kind, name) else _OTHERWISE.get(name, name)
        if has_field(kind, field) and isinstance(value, bool | int | float) and field != "kind":
            account.set(f"optimizer.{field}", value, key)
        elif value is not None:
            account.drop(key, NO_SUCH_OPTION, kind=kind)


def _set_several(
    account: Account, kind: str, name: str, values: tuple[Leaf, ...], key: str
) -> None:
    fields = [field for field in _SEVERAL.get(name, ()) if has_field(kind, field)]
    for field, value in zip(fields, values, strict=False):
        if isinstance(value, int | float):
            account.set(f"optimizer.{field}", float(value), key)
    if not fields:
        account.drop(key, NO_SUCH_OPTION, kind=kind)


def options_below(account: Account, prefix: str) -> dict[str, tuple[Leaf, str]]:
    """The options that stand as keys below a prefix such as `train.optimizer_params.`."""
    return {
        key.removeprefix(prefix): (account.get(key), key)
        for key in account.document.values
        if key.startswith(prefix)
    }
