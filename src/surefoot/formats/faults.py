"""What is wrong with a file that should hold an adapter, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from surefoot.formats.headers import HeaderError
from surefoot.formats.module_names import Naming
from surefoot.formats.streamed import TensorFile, dtype_of
from surefoot.formats.weights import WeightsError
from surefoot.language import _

_PICKLES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl"})
_TOLD = 20  # faults in one message; a file of another kind has thousands


def opened(path: Path) -> TensorFile:
    """Opens a safetensors file.

    Raises:
        WeightsError: It is another kind of file, or not whole.
        OSError: It cannot be read.
    """
    if path.suffix.lower() in _PICKLES:
        raise WeightsError(
            _(
                "{file} is a pickle file, which can run any program when it is loaded. If you "
                "trust it, load it with torch.load(..., weights_only=True), which runs none, "
                "and save it as .safetensors."
            ).format(file=path)
        )
    if path.is_dir():
        raise WeightsError(
            _("{file} is a folder; give the path of a .safetensors file in it.").format(file=path)
        )
    if not path.is_file():
        raise WeightsError(
            _("{file} is not there; give the path of a .safetensors file.").format(file=path)
        )
    try:
        return TensorFile(path)
    except HeaderError as error:
        raise WeightsError(
            _("{file}: {reason}; copy or download it again.").format(
                file=path, reason=_(str(error))
            )
        ) from None


def nothing_of_an_adapter(file: TensorFile) -> str:
    """What a file is that holds no tensor of an adapter."""
    if not file.headers:
        return _("{file} holds no tensors.").format(file=file.path)
    if any(key.endswith((".weight", ".bias")) for key in file.headers):
        return _("{file} is a whole model or a part of one, not an adapter.").format(file=file.path)
    return _("{file} holds no adapter: {key} is no name of a tensor of one.").format(
        file=file.path, key=next(iter(file.headers))
    )


def namings_of(keys: Mapping[str, Naming]) -> dict[Naming, str]:
    """Whose names there are, with an example of each.

    OneTrainer calls text encoders as kohya does, whatever it calls the rest.

    Args:
        keys: Names in the file, and whose they are.
    """
    namings: dict[Naming, str] = {}
    for key, naming in keys.items():
        if naming not in namings or namings[naming].startswith("lora_te"):
            namings[naming] = key
    if "onetrainer-legacy" in namings and namings.get("kohya", "").startswith("lora_te"):
        del namings["kohya"]
    return namings


def naming_faults(unknown: list[str], namings: Mapping[Naming, str]) -> Iterator[str]:
    """What is wrong with the names in a file.

    Args:
        unknown: Names that no program gives to a tensor of an adapter.
        namings: Whose names there are, with an example of each.
    """
    for key in unknown:
        yield _("{key} is no known name of a tensor of an adapter.").format(key=key)
    if len(namings) > 1:
        examples = ", ".join(f"{key} ({naming})" for naming, key in namings.items())
        yield _("Names of several formats are mixed: {examples}.").format(examples=examples)


def dtype_faults(name: str, leaf: str, dtype: str) -> Iterator[str]:
    """What keeps the numbers of a tensor from being read: packed, quantised, no numbers at all.

    An alpha may be an integer.

    Args:
        name: In the file.
        leaf: Canonical.
        dtype: As the header calls it.
    """
    try:
        known = dtype_of(dtype).is_floating_point or leaf == "alpha"
    except KeyError:
        known = False
    if not known:
        yield _(
            "{name} is stored as {dtype}, which is not read; store it as F32, F16 or BF16."
        ).format(name=name, dtype=dtype)


def all_at_once(path: Path, faults: list[str]) -> str:
    """The message about a file; of very many faults the first and a number."""
    if len(faults) == 1:
        return f"{path}: {faults[0]}"
    told = faults[:_TOLD]
    if len(faults) > _TOLD:
        told.append(_("and {number} more").format(number=len(faults) - _TOLD))
    return "\n".join([f"{path}:", *(f"  {fault}" for fault in told)])
