"""A model of the usual shapes of a family, for a run whose model is not on this machine.

The steps of an optimizer depend on a layer's width and the size of its numbers. Where the file is
not at hand, a few layers of the family's widths stand for all, with the RMS that a linear layer of
that width has after initialisation, from which trained weights stray by a small factor only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from surefoot.formats.headers import TensorHeader
from surefoot.optim.scaling import usual_rms
from surefoot.survey import ModelSurvey, PartSurvey

# Widths of the layers of the denoiser, and of what its attention looks at. Source: the configs
# of the published models.
_WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {
    "sd15": ((320, 640, 1280), 768),
    "sdxl": ((640, 1280), 2048),
}
_TRANSFORMER = ((3072,), 3072)
_TEXT_WIDTH = 768


@dataclass(frozen=True)
class UsualPart(PartSurvey):
    """A part without a file: the RMS of each tensor is that of an untrained layer."""

    def rms(self, name: str) -> float:
        """Root mean square of one tensor."""
        shape = self.headers[name].shape
        if len(shape) < 2:
            return 1.0 if "norm" in name and name.endswith("weight") else 0.0
        return usual_rms(math.prod(shape[1:]))


def usual_model(family: str) -> ModelSurvey:
    """A model of a family's usual shapes, by its name."""
    widths, context = _WIDTHS.get(family, _TRANSFORMER)
    unet: dict[str, TensorHeader] = {}
    for number, width in enumerate(widths):
        block = f"down_blocks.{number}.attentions.0.transformer_blocks.0"
        _attention(unet, f"{block}.attn1", width, width)
        _attention(unet, f"{block}.attn2", width, context)
        _add(unet, f"{block}.ff.net.0.proj", 8 * width, width)
        _add(unet, f"{block}.ff.net.2", width, 4 * width)
        _norm(unet, f"{block}.norm1", width)
    text: dict[str, TensorHeader] = {}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        _add(text, f"text_model.encoder.layers.0.self_attn.{name}", _TEXT_WIDTH, _TEXT_WIDTH)
    _add(text, "text_model.encoder.layers.0.mlp.fc1", 4 * _TEXT_WIDTH, _TEXT_WIDTH)
    _add(text, "text_model.encoder.layers.0.mlp.fc2", _TEXT_WIDTH, 4 * _TEXT_WIDTH)
    parts: dict[str, PartSurvey] = {
        "unet": UsualPart(Path("unknown"), unet),
        "text_encoder": UsualPart(Path("unknown"), text),
    }
    # No levels: trainers crop to a multiple of their own, which is theirs to know.
    return ModelSurvey("folder", Path("unknown"), parts, "epsilon", 512, 8, 1)


def _attention(headers: dict[str, TensorHeader], name: str, width: int, context: int) -> None:
    _add(headers, f"{name}.to_q", width, width)
    _add(headers, f"{name}.to_k", width, context)
    _add(headers, f"{name}.to_v", width, context)
    _add(headers, f"{name}.to_out.0", width, width)


def _add(headers: dict[str, TensorHeader], name: str, out: int, into: int) -> None:
    headers[f"{name}.weight"] = TensorHeader("F32", (out, into), 0, 4 * out * into)
    headers[f"{name}.bias"] = TensorHeader("F32", (out,), 0, 4 * out)


def _norm(headers: dict[str, TensorHeader], name: str, width: int) -> None:
    headers[f"{name}.weight"] = TensorHeader("F32", (width,), 0, 4 * width)
    headers[f"{name}.bias"] = TensorHeader("F32", (width,), 0, 4 * width)
