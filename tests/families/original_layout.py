"""A diffusers pipeline as the single file that the original Stable Diffusion code wrote.

The names are those of the CompVis repository, written down here from diffusers' side, apart from
the table in `surefoot.formats.original`.
"""

# diffusers exports lazily and annotates outputs as tuples and loaders as pairs.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

UNET_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
UNET_ENDS = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
)
VAE_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)


def write_single_file(pipeline: StableDiffusionPipeline, path: Path) -> Path:
    """Writes UNet, VAE and text encoder, and what else lay in such files."""
    layers = pipeline.unet.config["layers_per_block"]
    levels = len(pipeline.vae.config["block_out_channels"])
    unet = pipeline.unet.state_dict()
    tensors: dict[str, Tensor] = {
        "betas": torch.zeros(1000),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    for name, tensor in unet.items():
        tensors["model.diffusion_model." + unet_name(name, layers, unet.keys())] = tensor
    for name, tensor in pipeline.vae.state_dict().items():
        original = vae_name(name, levels)
        is_projection = ".attn_1." in original and tensor.dim() == 2
        tensors[f"first_stage_model.{original}"] = (
            tensor[..., None, None] if is_projection else tensor
        )
    for name, tensor in pipeline.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{name}"] = tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def unet_name(name: str, layers: int, names: object) -> str:
    """`layers` is layers_per_block; a block of the way up has one more."""
    for ours, original in UNET_ENDS:
        if name.startswith(f"{ours}."):
            return _resnet(name.replace(ours, original, 1))
    match = re.fullmatch(
        r"(down|up)_blocks\.(\d+)\.(resnets|attentions|\w+samplers)\.(\d+)\.(.+)", name
    )
    assert match, name
    side, kind, rest = match[1], match[3], match[5]
    block, layer = int(match[2]), int(match[4])
    if side == "down" and kind == "downsamplers":
        return f"input_blocks.{(block + 1) * (layers + 1)}.0." + rest.replace("conv.", "op.", 1)
    if side == "up" and kind == "upsamplers":
        assert isinstance(names, type({}.keys()))
        attends = any(other.startswith(f"up_blocks.{block}.attentions.") for other in names)
        return f"output_blocks.{block * (layers + 1) + layers}.{2 if attends else 1}.{rest}"
    number = block * (layers + 1) + layer
    place = 0 if kind == "resnets" else 1
    blocks = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
    return _resnet(f"{blocks}.{place}.{rest}")


def _resnet(name: str) -> str:
    for ours, original in UNET_RESNET:
        name = re.sub(
            rf"^((?:in|out)put_blocks\.\d+\.0|middle_block\.[02])\.{ours}\.",
            rf"\1.{original}.",
            name,
        )
    return name


def vae_name(name: str, levels: int) -> str:
    """The way up was numbered from its end."""
    name = re.sub(r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.down.\1.block.", name)
    name = re.sub(
        r"^encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name
    )
    if match := re.match(r"decoder\.up_blocks\.(\d+)\.", name):
        level = levels - 1 - int(match[1])
        name = f"decoder.up.{level}." + name[match.end() :]
        name = name.replace("resnets.", "block.", 1).replace("upsamplers.0.", "upsample.", 1)
    name = name.replace("mid_block.resnets.0.", "mid.block_1.")
    name = name.replace("mid_block.resnets.1.", "mid.block_2.")
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
        for ours, original in VAE_ATTENTION:
            name = name.replace(f"attn_1.{ours}.", f"attn_1.{original}.")
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
