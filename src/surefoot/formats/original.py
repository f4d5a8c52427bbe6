"""Module names of original Stable Diffusion checkpoints, as diffusers calls them. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_BLOCK = re.compile(
    r"(?P<side>in|out)put_blocks\.(?P<number>\d+)\.(?P<place>\d)\.(?P<inner>.+)\.\w+"
)
_MIDDLE_BLOCK = re.compile(r"middle_block\.(?P<number>[012])\.(?P<inner>.+)\.\w+")
_OUTSIDE_BLOCKS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_DIFFUSERS_BLOCK = re.compile(
    r"(?P<side>down|up)_blocks\.(?P<stage>\d+)"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)\.(?P<inner>.+)"
)
_DIFFUSERS_MIDDLE = re.compile(r"mid_block\.(?P<kind>\w+\.\d)\.(?P<inner>.+)")

ROOTS = frozenset(
    {"input_blocks", "middle_block", "output_blocks"}
    | {module.partition(".")[0] for module in _OUTSIDE_BLOCKS}
)
"""What the names of a UNet's modules begin with in an original checkpoint."""

DIFFUSERS_ROOTS = frozenset(
    {"down_blocks", "mid_block", "up_blocks"}
    | {module.partition(".")[0] for module in _OUTSIDE_BLOCKS.values()}
)
"""What they begin with in diffusers."""


@dataclass(frozen=True)
class UnetLayout:
    """What the numbers in original names depend on.

    Attributes:
        layers: Layers of one block on the way down; on the way up there is one more.
        without_attention: Blocks on the way up that have no attention, counted from 0.
    """

    layers: int
    without_attention: tuple[int, ...]


def loaded_names(part: str, names: Collection[str]) -> dict[str, str]:
    """The tensor names of a file to those that they have once the part is loaded.

    Text encoders lose the level `text_model`, which transformers 5 has no more; the UNet of an
    original checkpoint gets the names of diffusers. All other names stay as they are.

    Args:
        part: Such as `unet`, `text_encoder` or `text_encoder_2`.
        names: All names of the part, without the prefix that a single file gives them.
    """
    if part.startswith("text_encoder"):
        return {name: name.removeprefix("text_model.") for name in names}
    if part == "unet" and any(name.startswith("input_blocks.") for name in names):
        layers = _layers_per_block(names)
        return {name: _unet_name(name, layers) for name in names}
    return {name: name for name in names}


def _layers_per_block(names: Collection[str]) -> int:
    """`input_blocks` are numbered through: conv_in, then the layers of a block and its downsampler.

    A UNet of one block has no downsampler.
    """
    blocks = [match for match in map(_BLOCK.fullmatch, names) if match and match["side"] == "in"]
    downsamplers = [int(match["number"]) for match in blocks if match["inner"] == "op"]
    last = max((int(match["number"]) for match in blocks), default=0)
    return min(downsamplers, default=last + 1) - 1


def diffusers_path(module: str, layers: int) -> str:
    """What diffusers calls a module of an original UNet; other names stay as they are."""
    return _unet_name(f"{module}.weight", layers).removesuffix(".weight")


def original_path(module: str, layout: UnetLayout) -> str:
    """What an original checkpoint calls a module that has this name in diffusers.

    The reverse of `diffusers_path`; other names stay as they are.
    """
    outside = _reversed(_OUTSIDE_BLOCKS)
    if module in outside:
        return outside[module]
    if middle := _DIFFUSERS_MIDDLE.fullmatch(module):
        place = _reversed(_MIDDLE)[middle["kind"]]
        return f"middle_block.{place}.{_original_inner(middle['kind'], middle['inner'])}"
    block = _DIFFUSERS_BLOCK.fullmatch(module)
    if block is None:
        return module
    down, stage, kind = block["side"] == "down", int(block["stage"]), block["kind"]
    sampler = kind in ("downsamplers", "upsamplers")
    layer = layout.layers if sampler else int(block["layer"])
    number = stage * (layout.layers + 1) + layer + (1 if down else 0)
    blocks = f"{'input' if down else 'output'}_blocks.{number}"
    if sampler:
        place = 0 if down else 1 if stage in layout.without_attention else 2
        return f"{blocks}.{place}.{'op' if down else 'conv'}"
    place = 0 if kind == "resnets" else 1
    return f"{blocks}.{place}.{_original_inner(kind, block['inner'])}"


def _unet_name(name: str, layers: int) -> str:
    module, _, leaf = name.rpartition(".")
    if module in _OUTSIDE_BLOCKS:
        return f"{_OUTSIDE_BLOCKS[module]}.{leaf}"
    if middle := _MIDDLE_BLOCK.fullmatch(name):
        return f"mid_block.{_MIDDLE[middle['number']]}.{_inner(middle['inner'])}.{leaf}"
    block = _BLOCK.fullmatch(name)
    if block is None:
        return name
    down, number, inner = block["side"] == "in", int(block["number"]), block["inner"]
    stage, layer = divmod(number - 1 if down else number, layers + 1)
    blocks = f"{'down' if down else 'up'}_blocks.{stage}"
    # A sampler stands alone on the way down, and behind resnet and attention on the way up.
    if inner in ("op", "conv"):
        return f"{blocks}.{'down' if down else 'up'}samplers.0.conv.{leaf}"
    kind = "resnets" if block["place"] == "0" else "attentions"
    return f"{blocks}.{kind}.{layer}.{_inner(inner)}.{leaf}"


def _inner(inner: str) -> str:
    return _RESNET.get(inner, inner)


def _original_inner(kind: str, inner: str) -> str:
    return _reversed(_RESNET).get(inner, inner) if kind.startswith("resnets") else inner


def _reversed(names: dict[str, str]) -> dict[str, str]:
    return {ours: original for original, ours in names.items()}
