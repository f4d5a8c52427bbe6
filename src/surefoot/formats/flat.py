"""Module paths with `_` in place of the dots, as kohya's files have them. No torch.

The dots cannot be told from the underscores within a name, so the names that hold underscores are
listed.
"""

from __future__ import annotations

import re

_UNET = (
    *("down_blocks", "mid_block", "up_blocks", "transformer_blocks", "conv_in", "conv_out"),
    *("conv_norm_out", "time_embedding", "add_embedding", "linear_1", "linear_2", "conv_shortcut"),
    *("time_emb_proj", "proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out", "add_k_proj"),
    "add_v_proj",
)
_ORIGINAL_UNET = (
    *("input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "in_layers"),
    *("emb_layers", "out_layers", "skip_connection"),
)
_CLIP = (
    *("text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    *("text_projection", "token_embedding", "position_embedding"),
)
_LISTED = sorted({*_UNET, *_ORIGINAL_UNET, *_CLIP}, key=len, reverse=True)
_NAME = re.compile(rf"(?:{'|'.join(_LISTED)}|[^_]+)(?=_|$)")


def flatten(path: str) -> str:
    """`down_blocks.0.resnets.1.conv1` becomes `down_blocks_0_resnets_1_conv1`."""
    return path.replace(".", "_")


def unflatten(flat: str) -> str:
    """The reverse of `flatten`, for the modules of UNets and of CLIP."""
    return ".".join(_NAME.findall(flat))
