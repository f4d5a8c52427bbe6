"""Which trained tensors of a network belong to which frozen layer, found by the names they bear.

Reads surefoot's own adapters, PEFT's LoRA, DoRA, LoHa and LoKr, and LyCORIS's (package
`lycoris-lora`), without importing the latter two. Others are refused rather than guessed at.

Every one of these updates is `scale` times a product of one or more sides, and a side is a chain of
factors that meet in the rank:

    LoRA   one side     B A, or B M A with LyCORIS's Tucker core
    LoHa   two sides    (B1 A1) * (B2 A2), element by element
    LoKr   two sides    (B1 A1) x (B2 A2), Kronecker; a side may be one full matrix

One factor starts at zero, so that the layer answers as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

_Read = Callable[[str], nn.Parameter | None]
"""A tensor of an adapter by its name, None where the adapter has none."""

_LORA = (("lora_B", "", "lora_A"), ("lora_up", "lora_mid", "lora_down"))
_EMBEDDING = ("lora_embedding_A", "", "lora_embedding_B")
_LOHA = (("hada_w1_a", "hada_t1", "hada_w1_b"), ("hada_w2_a", "hada_t2", "hada_w2_b"))
_LOKR = (
    ("lokr_w1", "lokr_w1_a", "lokr_t1", "lokr_w1_b"),
    ("lokr_w2", "lokr_w2_a", "lokr_t2", "lokr_w2_b"),
)
_MAGNITUDES = ("lora_magnitude_vector", "dora_scale", "magnitude")
_FACTORS = (*_LORA[0], *_LORA[1])
_ROWS_OF_A_TABLE = "trainable_tokens_delta"
"""Of PEFT: copies of an embedding's rows, so that their own size is the right one."""

_MOST_LINES = 5


@dataclass(frozen=True)
class Adapter:
    """One adapter of one frozen layer.

    Attributes:
        path: Of the module that holds the adapter.
        layer: The module that holds the frozen weight.
        weight_name: What the weight is called there.
        transposed: The frozen weight is (in, out), as in transformers' Conv1D.
        scale: The factor on the product of the sides.
        rank: Inner width of the sides.
        sides: Each a chain of factors, as the module's docstring says.
        usual_zero: The factor that starts at zero by the library's own initialisation.
        is_plain_lora: One side of two factors, the second drawn within 1 / sqrt(fan in).
        magnitudes: DoRA's.
        biases: Of the second factor (PEFT's `lora_bias`).
    """

    path: str
    layer: nn.Module
    weight_name: str
    transposed: bool
    scale: float
    rank: int
    sides: tuple[tuple[nn.Parameter, ...], ...]
    usual_zero: nn.Parameter
    is_plain_lora: bool
    magnitudes: tuple[nn.Parameter, ...]
    biases: tuple[nn.Parameter, ...]

    def factors(self) -> tuple[nn.Parameter, ...]:
        """All factors of all sides."""
        return tuple(factor for side in self.sides for factor in side)

    def tensors(self) -> tuple[nn.Parameter, ...]:
        """Everything the adapter consists of."""
        return (*self.factors(), *self.magnitudes, *self.biases)

    def is_trained(self) -> bool:
        """Whether anything of it is."""
        return any(tensor.requires_grad for tensor in self.tensors())


def find_adapters(model: nn.Module) -> list[Adapter]:
    """The adapters of a network of which something is trained.

    Raises:
        ValueError: Says of each adapter that cannot be read what hinders and how to mend it.
    """
    adapters: list[Adapter] = []
    problems: list[str] = []
    read: set[int] = set()
    for path, module in cast(Iterator[tuple[str, nn.Module]], model.named_modules()):
        try:
            found = [adapter for adapter in _adapters(path, module) if adapter.is_trained()]
            known = {id(tensor) for adapter in found for tensor in adapter.tensors()}
            _check_all_known(path, module, known | read)
        except ValueError as error:
            problems.append(str(error))
        else:
            adapters += found
            read |= known
    if problems:
        raise ValueError(listed(problems))
    return adapters


def listed(problems: Sequence[str]) -> str:
    """A line for each, of the first few: whole networks tend to have the same one everywhere."""
    more = len(problems) - _MOST_LINES
    shown = problems[:_MOST_LINES]
    return "\n".join([*shown, f"and {more} more like these"] if more > 0 else shown)


def _adapters(path: str, module: nn.Module) -> Iterator[Adapter]:
    of: Any = module
    layer = _frozen_layer(module)
    if layer is None:
        return
    if isinstance(getattr(of, "scaling", None), dict):
        for name in cast(dict[str, float], of.scaling):
            yield from _peft_adapter(path, module, layer, name)
        return

    def read(name: str) -> nn.Parameter | None:
        return _weight_of(getattr(of, name, None))

    own = _sides(read)
    if own is None:
        return
    sides, zero = own
    yield Adapter(
        path=path,
        layer=layer,
        weight_name="weight",
        transposed=False,
        scale=_nonzero(path, float(of.scale) * float(getattr(of, "multiplier", 1.0))),
        rank=int(getattr(of, "lora_dim", 0) or of.rank),
        sides=sides,
        usual_zero=zero,
        is_plain_lora=len(sides) == 1 and len(sides[0]) == 2,
        magnitudes=tuple(_those(read, _MAGNITUDES)),
        biases=(),
    )


def _peft_adapter(path: str, module: nn.Module, layer: nn.Module, name: str) -> Iterator[Adapter]:
    of: Any = module

    def read(collection: str) -> nn.Parameter | None:
        held: Any = getattr(of, collection, None)
        return _weight_of(held[name]) if held is not None and name in held else None

    own = _sides(read)
    if own is None:
        return
    sides, zero = own
    is_embedding = read(_EMBEDDING[0]) is not None
    adapter = Adapter(
        path=path,
        layer=layer,
        weight_name=getattr(of, "parameter_name", None) or "weight",
        transposed=bool(getattr(of, "fan_in_fan_out", False)),
        scale=float(of.scaling[name]),
        rank=int(of.r[name]),
        sides=sides,
        # PEFT's LoHa and LoKr start with other factors at zero than LyCORIS's own.
        usual_zero=next(_peft_zeros(read), zero),
        is_plain_lora=len(sides) == 1 and not is_embedding,
        magnitudes=tuple(_those(read, _MAGNITUDES)),
        biases=_bias_of(of, name),
    )
    if not adapter.is_trained():
        return
    _nonzero(path, adapter.scale)
    if name in of.merged_adapters:
        raise ValueError(
            f"{path}: adapter {name!r} is merged into its layer and would get no gradient; call "
            "unmerge_adapter() (PEFT) or unfuse_lora() (diffusers) first"
        )
    yield adapter


def _frozen_layer(module: nn.Module) -> nn.Module | None:
    """The layer that a PEFT, a LyCORIS or one of our own adapter modules is about."""
    of: Any = module
    innermost: Any = getattr(of, "get_base_layer", None)
    if isinstance(getattr(of, "base_layer", None), nn.Module) and callable(innermost):
        return cast(nn.Module, innermost())
    held: Any = getattr(of, "org_module", None)
    # LyCORIS keeps it in a list, which hides its parameters from those of the adapter.
    layers = cast(list[Any], held) if isinstance(held, list) else [held]
    if layers and isinstance(layers[0], nn.Module):
        return layers[0]
    base: Any = getattr(of, "base", None)
    is_ours = _weight_of(getattr(of, "lora_up", None)) is not None
    return base if isinstance(base, nn.Module) and is_ours else None


def _sides(read: _Read) -> tuple[tuple[tuple[nn.Parameter, ...], ...], nn.Parameter] | None:
    """The sides that these names make up, and the factor that LyCORIS starts at zero."""
    sides = _lora_sides(read) or _chains(read, _LOHA) or _chains(read, _LOKR)
    if not sides:
        return None
    scalar = read("scalar")
    if scalar is not None:
        # LyCORIS's use_scalar: no factor starts at zero, but a number that multiplies the update.
        return (*sides, (scalar,)), scalar
    last = sides[-1]
    is_kronecker = read("lokr_w1") is not None or read("lokr_w1_a") is not None
    return sides, last[-1] if is_kronecker else last[0]


def _lora_sides(read: _Read) -> tuple[tuple[nn.Parameter, ...], ...]:
    for names in (*_LORA, _EMBEDDING):
        found = _chains(read, (names,))
        if found and len(found[0]) >= 2:
            return found
    return ()


def _chains(
    read: _Read, sides: tuple[tuple[str, ...], ...]
) -> tuple[tuple[nn.Parameter, ...], ...]:
    """The factors that are there, side by side; empty unless each side has one."""
    found = tuple(tuple(_those(read, filter(None, names))) for names in sides)
    return found if all(found) else ()


def _peft_zeros(read: _Read) -> Iterator[nn.Parameter]:
    """The factor that PEFT's own LoHa or LoKr starts at zero."""
    return _those(read, ("hada_w2_b", "lokr_w1", "lokr_w1_a"))


def _those(read: _Read, names: Iterable[str]) -> Iterator[nn.Parameter]:
    return (tensor for tensor in map(read, names) if tensor is not None)


def _bias_of(of: Any, name: str) -> tuple[nn.Parameter, ...]:  # noqa: ANN401
    held: Any = getattr(of, "lora_B", None)
    bias = getattr(held[name], "bias", None) if held is not None and name in held else None
    return (bias,) if isinstance(bias, nn.Parameter) else ()


def _weight_of(held: Any) -> nn.Parameter | None:  # noqa: ANN401
    """A factor, which the libraries hold as a tensor or as a layer with nothing but a weight."""
    tensor = getattr(held, "weight", None) if isinstance(held, nn.Module) else held
    return tensor if isinstance(tensor, nn.Parameter) else None


def _nonzero(path: str, scale: float) -> float:
    if scale == 0:
        raise ValueError(f"{path}: the scale of the adapter is 0, so that it would learn nothing")
    return scale


def _check_all_known(path: str, module: nn.Module, known: set[int]) -> None:
    """Refuse an adapter module that trains what the rule says nothing about."""
    layer = _frozen_layer(module)
    if layer is None:
        if any(_is_trained_factor(module, name) for name in _FACTORS if name):
            raise ValueError(
                f"{path}: the layer that this LoRA changes cannot be found, and its weight sets "
                "the size of a step; make the groups before the adapter lets go of its layer, or "
                "use scale_parameter=False with a learning rate of 1e-4 to 1e-3"
            )
        return
    # A layer in the layer may be another adapter, which is looked at by itself.
    inner: Any = getattr(module, "base_layer", layer)
    theirs = {id(tensor) for tensor in inner.parameters()}
    unknown = [
        name
        for name, tensor in module.named_parameters()
        if tensor.requires_grad
        and id(tensor) not in known | theirs
        and not name.startswith(_ROWS_OF_A_TABLE)
    ]
    if unknown:
        raise ValueError(
            f"{path}: {type(module).__name__} trains {', '.join(unknown)}, for which "
            'scale_parameter="weight" has no rule: it knows LoRA, DoRA, LoHa and LoKr; use '
            "another optimizer, or Adafactor(model.parameters(), scale_parameter=False)"
        )


def _is_trained_factor(module: nn.Module, name: str) -> bool:
    tensor: Tensor | None = _weight_of(getattr(module, name, None))
    return tensor is not None and tensor.requires_grad
