"""OneTrainer's files of every version, with the key names of the newest.

OneTrainer upgrades a file version by version when it loads it, from `__version` (0 where it is
missing) to 11. What its own presets hold, whose names begin with `#`, counts as newest.
Source: OneTrainer 23df383 (2026-08-19), modules/util/config/TrainConfig.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from surefoot.importers.document import Document, Leaf

NEWEST = 11
PARTS = (
    "unet", "prior", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3",
    "text_encoder_4", "vae", "effnet_encoder", "decoder", "decoder_text_encoder", "decoder_vqgan",
)  # fmt: skip

_RENAMED_IN_2 = {
    **{f"train_{part}": f"{part}.train" for part in PARTS},
    **{f"train_{part}_epochs": f"{part}.stop_training_after" for part in PARTS},
    **{f"{part}_learning_rate": f"{part}.learning_rate" for part in PARTS},
    **{f"{part}_weight_dtype": f"{part}.weight_dtype" for part in PARTS},
    **{f"{part}_model_name": f"{part}.model_name" for part in PARTS},
}
_RENAMED_IN_6 = {"save_after": "save_every", "save_after_unit": "save_every_unit"}
_RENAMED_IN_8 = {
    "lora_layers": "layer_filter",
    "lora_layer_preset": "layer_filter_preset",
    "lora_layers_regex": "layer_filter_regex",
}
_WITH_PRIOR = ("STABLE_CASCADE_1", "WUERSTCHEN_2")


def newest(document: Document, version: int) -> tuple[Document, dict[str, str]]:
    """The file with the newest keys, and for each key that was renamed what the file calls it."""
    names = {_renamed(key, value, version): key for key, value in document.values.items()}
    values = {new: document.values[old] for new, old in names.items()}
    _change_values(values, names, version)
    renamed = {new: old for new, old in names.items() if new != old}
    return Document(document.format, values, document.lines), renamed


def _renamed(key: str, value: Leaf, version: int) -> str:
    if version < 1 and key == "optimizer" and isinstance(value, str):
        return "optimizer.optimizer"
    if version < 1 and key.startswith("optimizer_"):
        return f"optimizer.{key.removeprefix('optimizer_')}"
    if version < 2 and key in _RENAMED_IN_2:
        return _RENAMED_IN_2[key]
    if version < 3 and key == "min_snr_gamma":
        return "loss_weight_strength"
    if version < 6 and key in _RENAMED_IN_6:
        return _RENAMED_IN_6[key]
    if version < 8 and key in _RENAMED_IN_8:
        return _RENAMED_IN_8[key]
    return key


def _change_values(values: dict[str, Leaf], names: dict[str, str], version: int) -> None:
    if version < 3 and names.get("loss_weight_strength") == "min_snr_gamma":
        _min_snr(values, names)
    if version < 9 and values.get("model_type") not in _WITH_PRIOR:
        _copy_prior(values, names)
    if version < 10:
        for part in PARTS:
            if values.get(f"{part}.weight_dtype") == "NONE" and "weight_dtype" in values:
                values[f"{part}.weight_dtype"] = values["weight_dtype"]
    if version < 11 and "gradient_checkpointing" in values:
        on = values["gradient_checkpointing"] not in (False, "OFF")
        for part in PARTS:
            values[f"{part}.gradient_checkpointing"] = on
            names[f"{part}.gradient_checkpointing"] = "gradient_checkpointing"
        del values["gradient_checkpointing"], names["gradient_checkpointing"]


def _min_snr(values: dict[str, Leaf], names: dict[str, str]) -> None:
    if values["loss_weight_strength"]:
        values["loss_weight_fn"] = "MIN_SNR_GAMMA"
        names["loss_weight_fn"] = "min_snr_gamma"


def _copy_prior(values: dict[str, Leaf], names: dict[str, str]) -> None:
    for key in [key for key in values if key.startswith("prior.")]:
        copied = f"transformer.{key.removeprefix('prior.')}"
        values[copied] = values[key]
        names[copied] = names[key]


def is_preset(values: Mapping[str, Leaf], file_name: str) -> bool:
    """Whether the window loads it as one of OneTrainer's own presets, without an upgrade."""
    return file_name.startswith("#") and file_name != "#.json" and "__version" not in values
