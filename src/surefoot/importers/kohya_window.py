"""The JSON that kohya_ss saves, as the arguments that it starts sd-scripts with.

Source: kohya_ss 45088f0, kohya_gui/lora_gui.py.
"""

from __future__ import annotations

from surefoot.importers.document import Document, Leaf

_RENAMED = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "LoRA_type": "network_module",
    "sample_every_n_epochs": "sample_every_n_epochs",
    "lora_network_weights": "network_weights",
    "caption_extention": "caption_extension",
}
_ALGORITHMS = {
    "LyCORIS/LoCon": "locon", "LyCORIS/LoHa": "loha", "LyCORIS/LoKr": "lokr",
    "LyCORIS/iA3": "ia3", "LyCORIS/DyLoRA": "dylora", "LyCORIS/BOFT": "boft",
    "LyCORIS/Diag-OFT": "diag-oft", "LyCORIS/GLoRA": "glora", "LyCORIS/Native Fine-Tuning": "full",
}  # fmt: skip
_PLAIN = {"Flux1": "networks.lora_flux", "SD3": "networks.lora_sd3",
          "Kohya LoHa": "networks.loha", "Kohya LoKr": "networks.lokr"}  # fmt: skip


def is_of_window(document: Document) -> bool:
    """Whether kohya_ss wrote it, or a preset of it."""
    return document.format == "json" and (
        "LoRA_type" in document.values
        or {"optimizer", "max_resolution", "lr_warmup"} <= document.values.keys()
    )


def arguments_of_window(document: Document) -> tuple[Document, dict[str, str]]:
    """The arguments, and what the window calls those that it calls otherwise."""
    values: dict[str, Leaf] = {}
    names: dict[str, str] = {}
    for key, value in document.values.items():
        name = _RENAMED.get(key, key)
        values[name] = value
        if name != key:
            names[name] = key
    if "network_module" in values:
        _set_network(values, str(values["network_module"]))
        names["network_args"] = "LoRA_type"
    for key in ("optimizer_args", "lr_scheduler_args"):
        if isinstance(values.get(key), str):
            values[key] = tuple(str(values[key]).split())
    _set_warmup(values, names)
    if "epoch" in values and not values.get("max_train_epochs"):
        values["max_train_epochs"] = values.pop("epoch")
        names["max_train_epochs"] = "epoch"
    # The window leaves out what is empty or 0, so that sd-scripts' own default holds.
    kept = {key: None if value == "" else value for key, value in values.items()}
    return Document("json", kept, document.lines), names


def _set_network(values: dict[str, Leaf], kind: str) -> None:
    algorithm = _ALGORITHMS.get(kind)
    options = [f"algo={algorithm}"] if algorithm else []
    if values.get("dora_wd") is True:
        options.append("dora_wd=True")
    if kind.endswith("LoCon") or algorithm:
        options.append(f"conv_dim={values.get('conv_dim', 1)}")
    values["network_module"] = "lycoris.kohya" if algorithm else _PLAIN.get(kind, "networks.lora")
    values["network_args"] = tuple(options) if algorithm or kind.endswith("LoCon") else ()


def _set_warmup(values: dict[str, Leaf], names: dict[str, str]) -> None:
    """`lr_warmup` is a percentage, and only counts where `lr_warmup_steps` is not given."""
    percent = values.get("lr_warmup")
    if values.get("lr_warmup_steps") or not isinstance(percent, int | float) or not percent:
        return
    values["lr_warmup_steps"] = float(percent) / 100
    names["lr_warmup_steps"] = "lr_warmup"
    del values["lr_warmup"]
