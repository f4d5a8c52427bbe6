"""The names that other programs give to the modules and the tensors of an adapter. No torch.

Ours, called canonical here, are flat: `<part>.<module path>.<leaf>`, such as
`unet.mid_block.attentions.0.proj_in.lora_down`. Parts and module paths are those of a diffusers
pipeline, without the level `text_model` of CLIP, which transformers 5 has no more; the leaves are
in `leaves`.

A part of a family whose names are not known here is called by the prefix that it has in the file,
such as `diffusion_model` or `lora_unet`, and keeps its names. It can be read and measured, and
written in the same format again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from surefoot.config.adapter_format import AdapterFormat
from surefoot.formats.flat import flatten, unflatten
from surefoot.formats.leaves import Shapes, width_of
from surefoot.formats.original import (
    DIFFUSERS_ROOTS,
    ROOTS,
    UnetLayout,
    diffusers_path,
    original_path,
)

Naming = Literal[
    "diffusers", "peft", "kohya", "comfyui", "onetrainer-original", "onetrainer-legacy",
    "simpletuner",
]  # fmt: skip
FileFormat = AdapterFormat | Literal["peft", "onetrainer-legacy"]
FamilyGuess = Literal["sd15", "sdxl", "unknown"]

PARTS = (
    *("unet", "transformer", "transformer_2", "prior"),
    *("text_encoder", "text_encoder_2", "text_encoder_3"),
)
_FLAT_PREFIXES: dict[str, tuple[Naming, str]] = {
    "lora_unet": ("kohya", "unet"),
    "lora_te": ("kohya", "text_encoder"),
    "lora_te1": ("kohya", "text_encoder"),
    "lora_te2": ("kohya", "text_encoder_2"),
    "lora_te3": ("kohya", "text_encoder_3"),
    "lora_transformer": ("onetrainer-legacy", "transformer"),
    "lycoris": ("simpletuner", "unet"),
}
_COMFYUI_TEXT_ENCODERS = {
    "clip_l": "text_encoder",
    "clip_h": "text_encoder",
    "clip_g": "text_encoder_2",
    "t5xxl": "text_encoder_3",
}
_COMFYUI_TEXT = re.compile(r"text_encoders\.(?P<name>\w+)\.transformer\.(?P<module>.+)")
_CLIP_ROOTS = frozenset({"text_model", "encoder", "text_projection"})
# What the first programs called the projections of CLIP's attention.
_OLD_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}
_OPEN_CLIP_H_WIDTH = 1024


@dataclass(frozen=True)
class FamilyNames:
    """What the names in a family's files depend on.

    Attributes:
        kohya_text_encoders: Part to the prefix of its names in kohya's files.
        kohya_unet: Whose names kohya's files have for the UNet.
        unet: How the released UNet numbers its blocks.
    """

    kohya_text_encoders: Mapping[str, str]
    kohya_unet: Literal["diffusers", "original"]
    unet: UnetLayout


FAMILY_NAMES: dict[FamilyGuess, FamilyNames] = {
    "sd15": FamilyNames(
        kohya_text_encoders={"text_encoder": "lora_te"},
        kohya_unet="diffusers",
        unet=UnetLayout(layers=2, without_attention=(0,)),
    ),
    "sdxl": FamilyNames(
        kohya_text_encoders={"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
        kohya_unet="original",
        unet=UnetLayout(layers=2, without_attention=(2,)),
    ),
    # Of Flux and SD3: all that have more than the one text encoder of SD 1.x number them.
    "unknown": FamilyNames(
        kohya_text_encoders={"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
        kohya_unet="diffusers",
        unet=UnetLayout(layers=2, without_attention=(0,)),
    ),
}
# What headers call the base model, by how it begins: kohya's `ss_base_model_version` (sd-scripts
# 48d368f, library/sdxl_model_util.py and train_util.py) and the architecture of modelspec.
_TOLD_FAMILIES: tuple[tuple[str, FamilyGuess], ...] = (
    *(("sdxl", "sdxl"), ("stable-diffusion-xl", "sdxl")),
    *(("sd_v1", "sd15"), ("sd_v2", "sd15"), ("sd_1", "sd15"), ("sd_2", "sd15")),
    *(("stable-diffusion-v1", "sd15"), ("stable-diffusion-v2", "sd15")),
)


def canonical(name: str, layers: int) -> tuple[Naming, str] | None:
    """Whose name for a module this is, and its canonical path; None if it is nobody's.

    Args:
        name: As it is in a file, without what follows the module.
        layers: See `UnetLayout`.
    """
    prefix = name.partition(".")[0]
    for known, (naming, part) in _FLAT_PREFIXES.items():
        if prefix.startswith(f"{known}_"):
            return naming, _from_flat(known, part, name.removeprefix(f"{known}_"), layers)
    if text := _COMFYUI_TEXT.fullmatch(name):
        part = _COMFYUI_TEXT_ENCODERS.get(text["name"])
        return "comfyui", f"{part}.{_clip_module(text['module'])}" if part else name
    if name.startswith("diffusion_model."):
        return "comfyui", _from_original(name.removeprefix("diffusion_model."), layers)
    return _dotted(name, layers)


def _from_flat(prefix: str, part: str, flat: str, layers: int) -> str:
    module = unflatten(flat)
    root = module.partition(".")[0]
    if part.startswith("text_encoder"):
        known = root in _CLIP_ROOTS and "." not in flat and ".layers." in f".{module}."
        return f"{part}.{_clip_module(module)}" if known else f"{prefix}.{flat}"
    if root in DIFFUSERS_ROOTS:
        return f"unet.{module}"
    return f"unet.{diffusers_path(module, layers)}" if root in ROOTS else f"{prefix}.{flat}"


def _from_original(module: str, layers: int) -> str:
    if module.partition(".")[0] in ROOTS:
        return f"unet.{diffusers_path(module, layers)}"
    return f"diffusion_model.{module}"


def _dotted(name: str, layers: int) -> tuple[Naming, str] | None:
    part, _dot, module = name.partition(".")
    if name.startswith("base_model.model."):
        module = name.removeprefix("base_model.model.")
        root = module.partition(".")[0]
        part = "unet" if root in DIFFUSERS_ROOTS else "text_encoder"
        part = part if root in DIFFUSERS_ROOTS | _CLIP_ROOTS else "transformer"
        return "peft", f"{part}.{_module(part, module)}"
    if part in PARTS and module.startswith("base_model.model."):
        return "peft", f"{part}.{_module(part, module.removeprefix('base_model.model.'))}"
    if part in PARTS and module:
        return "diffusers", f"{part}.{_module(part, module)}"
    if part in DIFFUSERS_ROOTS:  # before diffusers 0.17 there was one part only
        return "diffusers", f"unet.{_unet_module(name)}"
    if part in ROOTS:
        return "onetrainer-original", f"unet.{diffusers_path(name, layers)}"
    return None


def _module(part: str, module: str) -> str:
    return _clip_module(module) if part.startswith("text_encoder") else _unet_module(module)


def _unet_module(module: str) -> str:
    """Without the `processor` that adapters of attention had before diffusers used PEFT."""
    before, old, after = module.rpartition(".processor.")
    if not old:
        return module
    return f"{before}.{'to_out.0' if after == 'to_out' else after}"


def _clip_module(module: str) -> str:
    module = module.removeprefix("text_model.")
    before, dot, last = module.rpartition(".")
    if before.endswith("self_attn"):
        last = _OLD_CLIP.get(last, last)
    return f"{before}{dot}{last}"


def module_name(
    path: str, naming: AdapterFormat, family: FamilyNames, layout: UnetLayout, clip: str
) -> str | None:
    """What a program calls the module of a canonical path; None if it has no name for it.

    Args:
        path: Canonical.
        naming: Whose name.
        family: The family's row.
        layout: Of the UNet.
        clip: What ComfyUI calls the part `text_encoder`.
    """
    part, _dot, module = path.partition(".")
    if part not in PARTS:
        return _unchanged(part, module, naming)
    text = part.startswith("text_encoder")
    # Old versions of diffusers need CLIP's level `text_model`, new ones take it off, and other
    # programs know no other name. T5 has `encoder.block` and is left alone.
    if text and module.startswith("encoder.layers."):
        module = f"text_model.{module}"
    match naming:
        case "diffusers":
            return f"{part}.{module}"
        case "kohya" if text:
            t5 = module.startswith("encoder.block.")
            prefix = "lora_te3" if t5 else family.kohya_text_encoders.get(part)
            return prefix and f"{prefix}_{flatten(module)}"
        case "kohya" if part == "unet":
            native = family.kohya_unet == "original"
            return f"lora_unet_{flatten(original_path(module, layout) if native else module)}"
        case "simpletuner" if not text:
            return f"lycoris_{flatten(module)}"
        case "comfyui" | "comfyui-compat" if text:
            names = {**_reversed_text_encoders(), "text_encoder": clip}
            return f"text_encoders.{names[part]}.transformer.{module}" if part in names else None
        case "comfyui" | "comfyui-compat" if part == "unet":
            return f"diffusion_model.{original_path(module, layout)}"
        case "onetrainer-original" if part == "unet":
            return original_path(module, layout)
        case _:
            return None


def _unchanged(part: str, module: str, naming: AdapterFormat) -> str | None:
    if part in _FLAT_PREFIXES:
        return f"{part}_{module}" if _FLAT_PREFIXES[part][0] == naming else None
    comfyui = part in ("diffusion_model", "text_encoders")
    return f"{part}.{module}" if comfyui and naming.startswith("comfyui") else None


def _reversed_text_encoders() -> dict[str, str]:
    return {part: name for name, part in reversed(_COMFYUI_TEXT_ENCODERS.items())}


def guess_family(layers: Mapping[str, Shapes], metadata: Mapping[str, str]) -> FamilyGuess:
    """The family that an adapter is of: as its header says, or else by the adapted modules.

    It is `unknown` where no row fits.
    """
    parts = {path.partition(".")[0] for path in layers}
    t5 = any(".encoder.block." in path for path in layers)
    if t5 or not parts <= {"unet", "text_encoder", "text_encoder_2"}:
        return "unknown"
    told = _told_family(metadata)
    # A module that has a name in a UNet of Stable Diffusion is of no other family.
    if told is not None and not (told == "unknown" and "unet" in parts):
        return told
    sdxl = "text_encoder_2" in parts or any(
        path.startswith("unet.add_embedding.")
        or re.search(r"transformer_blocks\.[1-9]", path)
        or (path.endswith(("attn2.to_k", "attn2.to_v")) and width_of(shapes)[1] == 2048)
        for path, shapes in layers.items()
    )
    return "sdxl" if sdxl else "sd15"


def _told_family(metadata: Mapping[str, str]) -> FamilyGuess | None:
    for key in ("ss_base_model_version", "modelspec.architecture"):
        if told := metadata.get(key):
            for begin, family in _TOLD_FAMILIES:
                if told.lower().startswith(begin):
                    return family
            return "unknown"
    return None


def comfyui_clip(layers: Mapping[str, Shapes]) -> str:
    """ComfyUI's name for `text_encoder`: the CLIP of SD 2.x is another than that of SD 1.x."""
    widths = [
        min(width_of(shapes)) for path, shapes in layers.items() if path.startswith("text_encoder.")
    ]
    return "clip_h" if _OPEN_CLIP_H_WIDTH in widths else "clip_l"


def without_attention(paths: Collection[str]) -> set[str]:
    """Text encoders none of whose adapted layers is one of CLIP's attention."""
    attention: dict[str, bool] = {}
    for path in paths:
        part, leaf = path.partition(".")[0], path.rpartition(".")[2]
        if part.startswith("text_encoder"):
            attention[part] = attention.get(part, False) or leaf in _OLD_CLIP.values()
    return {part for part, found in attention.items() if not found}
