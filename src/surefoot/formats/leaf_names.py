"""What other programs call the tensors of one adapted layer, and the shapes they give them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from surefoot.config.adapter_format import AdapterFormat
from surefoot.formats.leaves import Shape, Shapes, width_of

# The longest first. `default` is the name that PEFT gives to an adapter that has none.
_SUFFIXES: dict[str, str] = {
    ".lora_linear_layer.down.weight": "lora_down",
    ".lora_linear_layer.up.weight": "lora_up",
    ".lora_magnitude_vector.default.weight": "peft_magnitude",
    ".lora_magnitude_vector.default": "peft_magnitude",
    ".lora_magnitude_vector.weight": "peft_magnitude",
    ".lora_magnitude_vector": "peft_magnitude",
    ".lora_A.default.weight": "lora_down",
    ".lora_B.default.weight": "lora_up",
    ".lora_A.weight": "lora_down",
    ".lora_B.weight": "lora_up",
    ".lora_down.weight": "lora_down",
    ".lora_up.weight": "lora_up",
    ".lora_mid.weight": "lora_mid",
    ".lora.down.weight": "lora_down",
    ".lora.up.weight": "lora_up",
    "_lora.down.weight": "lora_down",
    "_lora.up.weight": "lora_up",
    ".lora_A": "lora_down",
    ".lora_B": "lora_up",
    ".magnitude": "peft_magnitude",
    ".dora_scale": "dora_scale",
    ".alpha": "alpha",
    ".scalar": "scalar",
} | {
    f".{leaf}{weight}": leaf
    for leaf in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    )
    for weight in (".weight", "")
}
"""Three are no canonical leaves: which axis a `dora_scale` is of is told by its shape; PEFT's
magnitude, one number for each output always, has a shape of its own; and LyCORIS's `scalar`
multiplies the update."""


def split(key: str) -> tuple[str, str] | None:
    """The module's name and the leaf; None for what is no tensor of an adapter."""
    for suffix, leaf in _SUFFIXES.items():
        if key.endswith(suffix):
            return key.removesuffix(suffix), leaf
    return None


def magnitude_shape(leaf: str, shape: Shape, others: Shapes) -> Shape:
    """The canonical shape of a magnitude, or its own where it fits nothing.

    Args:
        leaf: `dora_scale` or `peft_magnitude`.
        shape: In the file.
        others: Shapes of the layer's other leaves, which fit together.
    """
    out = width_of(others)[0]
    numbers = [size for size in shape if size != 1]
    each_output = leaf == "peft_magnitude" or len(shape) == 1
    if each_output and numbers in ([out], []):
        dimensions = max((len(other) for other in others.values()), default=2)
        return (out if numbers else 1, *(1 for _ in range(dimensions - 1)))
    return shape


def written_leaves(
    leaves: Mapping[str, Tensor], naming: AdapterFormat, *, old_names: bool
) -> dict[str, Tensor]:
    """The tensors of one layer by what follows the module's name in a file, such as `.alpha`.

    Args:
        leaves: Canonical.
        naming: The format; it must be able to hold them.
        old_names: diffusers reads the layer by the names before PEFT's only.
    """
    if naming == "diffusers":
        return _written_for_peft(leaves, old_names=old_names)
    # ComfyUI and OneTrainer read PEFT's names too, but ComfyUI no middle factor among them.
    peft = naming in ("comfyui", "comfyui-compat", "onetrainer-original")
    if peft and "lora_mid" not in leaves:
        names = {"lora_down": ".lora_A.weight", "lora_up": ".lora_B.weight"}
    else:
        names = {leaf: f".{leaf}.weight" for leaf in ("lora_down", "lora_mid", "lora_up")}
    names |= {"magnitude": ".dora_scale", "comfyui_magnitude": ".dora_scale"}
    written = {names.get(leaf, f".{leaf}"): tensor for leaf, tensor in leaves.items()}
    return written | {".alpha": _shortest(leaves["alpha"])}


def folded(leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A LoRA with `alpha / rank` in its up factor, in float32 at least, and alpha the rank.

    In the dtypes of 16 bits the product may have no room: fp16 ends at 65504 and at 6e-8.
    """
    up, rank = leaves["lora_up"], leaves["lora_down"].shape[0]
    wide = up.to(torch.promote_types(up.dtype, torch.float32))
    scaled = wide * (float(leaves["alpha"]) / rank)
    return {**leaves, "lora_up": scaled, "alpha": torch.tensor(float(rank), dtype=torch.float64)}


def _written_for_peft(leaves: Mapping[str, Tensor], *, old_names: bool) -> dict[str, Tensor]:
    """`alpha / rank` goes into the up factor and no alpha is stored.

    diffusers forgets a stored alpha in most families and takes the rank for it. Where the product
    has no room in the dtype of the factor it is float32.
    """
    down, up = leaves["lora_down"], leaves["lora_up"]
    names = (".lora_A.weight", ".lora_B.weight")
    if old_names:
        names = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
    scaled = folded(leaves)["lora_up"]
    narrow = scaled.to(up.dtype)
    exact = up.dtype.itemsize > 2 or torch.equal(narrow.to(scaled.dtype), scaled)
    written = {names[0]: down, names[1]: narrow if exact else scaled}
    if "magnitude" in leaves:
        # PEFT keeps that of a convolution in the shape of its output's channels. Text encoders
        # and OneTrainer need the `.weight`, without which they drop it.
        shape = (-1,) if down.ndim == 2 else (1, -1, *(1 for _ in down.shape[2:]))
        written[".lora_magnitude_vector.weight"] = leaves["magnitude"].reshape(shape)
    return written


def _shortest(alpha: Tensor) -> Tensor:
    """As float32, which all programs expect, where that holds it exactly."""
    single = alpha.detach().float()
    return single if float(single) == float(alpha) else alpha.detach().double()
