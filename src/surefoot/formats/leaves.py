"""The tensors that one adapted layer consists of, told by their names and shapes. No torch.

The names and shapes are those of LyCORIS: with W (out, in / groups, *kernel) and the update
`alpha / rank` times

- LoRA: `lora_up` (out, rank, *ones) times `lora_down` (rank, in / groups, *kernel), with
  `lora_mid` (rank, rank, *kernel) in between for Tucker's form,
- LoHa: (`hada_w1_a` `hada_w1_b`) times (`hada_w2_a` `hada_w2_b`) number by number, with `hada_t1`
  and `hada_t2` for Tucker's form,
- LoKr: the Kronecker product of `lokr_w1` and `lokr_w2`, each perhaps a product of `_a` and `_b`,
  with `lokr_t2` for Tucker's form.

`magnitude` is DoRA's: (out, 1, ...) when a row of W has a length, (1, in / groups, 1, ...) when a
column has. `comfyui_magnitude` takes its place where it holds ComfyUI's fault, see `abilities`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from surefoot.language import _

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
AdapterKind = Literal["lora", "loha", "lokr"]
Axis = Literal["output", "input"]

_LORA = frozenset({"lora_down", "lora_up"})
_LOHA = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
MAGNITUDES = frozenset({"magnitude", "comfyui_magnitude"})
_FACTORS: dict[AdapterKind, frozenset[str]] = {
    "lora": _LORA | {"lora_mid"},
    "loha": _LOHA | {"hada_t1", "hada_t2"},
    "lokr": frozenset(
        f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")
    ),
}
_ALL_FACTORS = _FACTORS["lora"] | _FACTORS["loha"] | _FACTORS["lokr"]
LEAVES = _ALL_FACTORS | MAGNITUDES | {"alpha"}


def kind_of(leaves: Mapping[str, object]) -> AdapterKind | Literal["none"]:
    """Which form the update of a layer has, of those whose factors are there."""
    kinds: list[AdapterKind] = [
        kind for kind, factors in _FACTORS.items() if not factors.isdisjoint(leaves)
    ]
    return kinds[0] if len(kinds) == 1 else "none"


def rank_of(shapes: Shapes) -> int | None:
    """The rank that alpha is divided by; None for LoKr of two whole matrices, which has none."""
    if "lora_down" in shapes:
        return shapes["lora_down"][0]
    for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in shapes:
            return shapes[name][0]
    return None


def first_factor(leaves: Mapping[str, object]) -> str:
    """The factor that takes what multiplies the whole update; each kind has one of these."""
    for name in ("lora_up", "hada_w1_a", "lokr_w1", "lokr_w1_a"):
        if name in leaves:
            return name
    raise ValueError("no layer of an adapter")


def width_of(shapes: Shapes) -> tuple[int, int]:
    """Outputs of the layer, and inputs of one output, kernel included."""
    match kind_of(shapes):
        case "lora":
            down = shapes.get("lora_mid", shapes["lora_down"])
            return shapes["lora_up"][0], shapes["lora_down"][1] * _product(down[2:])
        case "loha" if "hada_t1" in shapes:
            kernel = _product(shapes["hada_t1"][2:])
            return shapes["hada_w1_a"][1], shapes["hada_w1_b"][1] * kernel
        case "loha":
            return shapes["hada_w1_a"][0], shapes["hada_w1_b"][1]
        case "lokr":
            first, second = _lokr_width(shapes, 1), _lokr_width(shapes, 2)
            return first[0] * second[0], first[1] * second[1]
        case "none":
            raise ValueError("no layer of an adapter")


def axis_of(shapes: Shapes) -> Axis | Literal["none"]:
    """What has a length in a DoRA layer."""
    for name in MAGNITUDES & shapes.keys():
        return "output" if shapes[name][0] == width_of(shapes)[0] else "input"
    return "none"


def layer_problems(path: str, shapes: Shapes) -> Iterator[str]:
    """What is wrong with the tensors of one layer: what lacks, and what does not fit."""
    foreign = sorted(shapes.keys() - LEAVES)
    if foreign:
        yield _("{name} is no tensor of an adapter.").format(name=f"{path}.{foreign[0]}")
    kind = kind_of(shapes)
    if kind == "none":
        factors = sorted(_ALL_FACTORS.intersection(shapes))
        if factors:
            yield _("The adapter of {layer} mixes methods: it has {names}.").format(
                layer=path, names=", ".join(factors)
            )
        else:
            yield _("The adapter of {layer} has no factors, only {names}.").format(
                layer=path, names=", ".join(sorted(shapes))
            )
        return
    missing = _missing(kind, shapes)
    if missing:
        yield _("The adapter of {layer} lacks {names}.").format(
            layer=path, names=", ".join(sorted(missing))
        )
    elif not _fits(kind, shapes):
        sizes = ", ".join(f"{name} {list(shapes[name])}" for name in sorted(shapes))
        yield _("The shapes of the adapter of {layer} do not fit together: {sizes}.").format(
            layer=path, sizes=sizes
        )


def _missing(kind: AdapterKind, shapes: Shapes) -> set[str]:
    match kind:
        case "lora":
            return set(_LORA - shapes.keys())
        case "loha":
            tucker = {"hada_t1", "hada_t2"}
            return set((_LOHA if tucker.isdisjoint(shapes) else _LOHA | tucker) - shapes.keys())
        case "lokr":
            missing: set[str] = set()
            for whole in ("lokr_w1", "lokr_w2"):
                pair = {f"{whole}_a", f"{whole}_b"}
                if whole not in shapes:
                    missing |= pair - shapes.keys()
            return missing


def _fits(kind: AdapterKind, shapes: Shapes) -> bool:
    if any(0 in shape for shape in shapes.values()) or _product(shapes.get("alpha", ())) != 1:
        return False
    match kind:
        case "lora":
            fits = _lora_fits(shapes)
        case "loha":
            fits = _loha_fits(shapes)
        case "lokr":
            fits = _lokr_fits(shapes)
    return fits and all(_magnitude_fits(name, shapes) for name in MAGNITUDES & shapes.keys())


def _lora_fits(shapes: Shapes) -> bool:
    down, up = shapes["lora_down"], shapes["lora_up"]
    rank = down[0]
    if len(down) < 2 or len(up) < 2 or up[1] != rank or _product(up[2:]) != 1:
        return False
    middle = shapes.get("lora_mid")
    return middle is None or (middle[:2] == (rank, rank) and _product(down[2:]) == 1)


def _loha_fits(shapes: Shapes) -> bool:
    first, second = ((shapes[f"hada_w{n}_a"], shapes[f"hada_w{n}_b"]) for n in (1, 2))
    if first != second or any(len(factor) != 2 for factor in first):
        return False
    if "hada_t1" in shapes:
        rank, tucker = first[1][0], shapes["hada_t1"]
        return first[0][0] == rank and tucker == shapes["hada_t2"] and tucker[:2] == (rank, rank)
    return first[0][1] == first[1][0]


def _lokr_fits(shapes: Shapes) -> bool:
    for name in ("lokr_w1", "lokr_w2"):
        if name in shapes:
            if len(shapes[name]) < 2:
                return False
            continue
        a, b = shapes[f"{name}_a"], shapes[f"{name}_b"]
        if len(a) != 2 or len(b) < 2:
            return False
        tucker = shapes.get("lokr_t2") if name == "lokr_w2" else None
        if tucker is None and a[1] != b[0]:
            return False
        if tucker is not None and (a[0], b[0]) != tucker[:2]:
            return False
    return True


def _lokr_width(shapes: Shapes, number: int) -> tuple[int, int]:
    name = f"lokr_w{number}"
    if name in shapes:
        return shapes[name][0], _product(shapes[name][1:])
    a, b = shapes[f"{name}_a"], shapes[f"{name}_b"]
    if number == 2 and "lokr_t2" in shapes:
        return a[1], _product(b[1:]) * _product(shapes["lokr_t2"][2:])
    return a[0], _product(b[1:])


def _magnitude_fits(name: str, shapes: Shapes) -> bool:
    shape, (out, inputs) = shapes[name], width_of(shapes)
    if len(shape) < 2 or _product(shape[2:]) != 1 or 1 not in shape[:2]:
        return False
    # The inputs count the kernel too, which a column's length goes over.
    return shape[0] == out if shape[1] == 1 != out else shape[0] == 1 and inputs % shape[1] == 0


def _product(sizes: Shape) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
