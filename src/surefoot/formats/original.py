"""Module names of original Stable Diffusion checkpoints, as diffusers calls them. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection

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


def loaded_names(part: str, names: Collection[str]) -> dict[str, str]:
    """The tensor names of a file to those that they have once the part is loaded.

    The text encoder loses the level `text_model`, which transformers 5 has no more; the UNet of an
    original checkpoint gets the names of diffusers. All other names stay as they are.

    Args:
        part: `unet` or `text_encoder`.
        names: All names of the part, without the prefix that a single file gives them.
    """
    if part == "text_encoder":
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
