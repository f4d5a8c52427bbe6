"""The names that other programs give to the tensors of an adapter.

Ours, called canonical here, are flat: `<part>.<module path>.<leaf>`, such as
`unet.mid_block.attentions.0.proj_in.lora_down`, with the leaves

- `lora_down` (rank, in) or (rank, in, height, width), `lora_up` (out, rank) or (out, rank, 1, 1),
- `alpha`, one number: the update is `alpha / rank * lora_up @ lora_down`,
- `magnitude` (out,), with DoRA only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from surefoot.formats.weights import WeightsError

REQUIRED_LEAVES = frozenset({"lora_down", "lora_up", "alpha"})
LEAVES = REQUIRED_LEAVES | {"magnitude"}

CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
"""Layers by which diffusers recognises PEFT's names in the adapter of a text encoder."""


def to_diffusers(adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as `load_lora_weights` of a diffusers pipeline takes them.

    `alpha / rank` is multiplied into the up factor and no alpha is stored, since diffusers forgets
    a stored alpha in most families and takes the rank for it.

    Args:
        adapters: By canonical names.

    Returns:
        New tensors for `lora_up`, the given ones (`magnitude` perhaps in another shape) otherwise.

    Raises:
        WeightsError: Names every tensor that does not belong to a whole adapter.
    """
    modules = _modules(adapters)
    without_attention = _text_encoders_without_attention(modules)
    renamed: dict[str, Tensor] = {}
    for path, leaves in modules.items():
        part = path.partition(".")[0]
        down, up, magnitude = _diffusers_leaves(part, part in without_attention)
        target = _diffusers_path(path)
        lora_down = leaves["lora_down"]
        renamed[f"{target}.{down}"] = lora_down
        scale = float(leaves["alpha"]) / lora_down.shape[0]
        renamed[f"{target}.{up}"] = leaves["lora_up"] * scale
        if "magnitude" in leaves:
            # PEFT keeps the magnitude of a convolution in the shape of its output's channels.
            shape = (-1,) if lora_down.ndim == 2 else (1, -1, 1, 1)
            renamed[f"{target}.{magnitude}"] = leaves["magnitude"].reshape(shape)
    return renamed


def _modules(adapters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module path to leaf to tensor."""
    modules: dict[str, dict[str, Tensor]] = {}
    problems: list[str] = []
    for name, tensor in adapters.items():
        path, _, leaf = name.rpartition(".")
        if leaf not in LEAVES or "." not in path:
            problems.append(f"{name} is no tensor of an adapter.")
        else:
            modules.setdefault(path, {})[leaf] = tensor
    for path, leaves in modules.items():
        missing = sorted(REQUIRED_LEAVES - leaves.keys())
        if missing:
            problems.append(f"The adapter of {path} lacks {', '.join(missing)}.")
    if problems:
        raise WeightsError("\n".join(problems))
    return modules


def _is_text_encoder(part: str) -> bool:
    return part.startswith("text_encoder")


def _text_encoders_without_attention(paths: Iterable[str]) -> set[str]:
    attention: dict[str, bool] = {}
    for path in paths:
        part, leaf = path.partition(".")[0], path.rpartition(".")[2]
        attention[part] = attention.get(part, False) or leaf in CLIP_ATTENTION
    return {part for part, found in attention.items() if _is_text_encoder(part) and not found}


def _diffusers_leaves(part: str, without_attention: bool) -> tuple[str, str, str]:
    """Names of the down factor, the up factor and the magnitude in one part.

    The loader of text encoders has two ways of its own (diffusers 0.42, transformers 5.23):
    it refuses PEFT's names where no attention layer bears them, but not the older names; and it
    does not complete the name of a magnitude by `.weight`, without which the magnitude is dropped.
    """
    magnitude = "lora_magnitude_vector"
    if _is_text_encoder(part):
        magnitude = f"{magnitude}.weight"
    if without_attention:
        return "lora_linear_layer.down.weight", "lora_linear_layer.up.weight", magnitude
    return "lora_A.weight", "lora_B.weight", magnitude


def _diffusers_path(path: str) -> str:
    """Restore the level `text_model` that CLIPTextModel had before transformers 5.

    Old versions need it, new ones take it off, and other programs know no other name. T5 has
    `encoder.block` and is left alone.
    """
    part, _, module = path.partition(".")
    if _is_text_encoder(part) and module.startswith("encoder.layers."):
        return f"{part}.text_model.{module}"
    return path
