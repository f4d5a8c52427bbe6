"""What each trainer's files have that no other's have."""

from __future__ import annotations

from collections.abc import Callable

from surefoot.importers.document import Document
from surefoot.importers.record import Trainer

_SD_SCRIPTS = (
    "train_network", "train_db", "fine_tune", "sdxl_train", "flux_train", "sd3_train",
    "lumina_train", "anima_train",
)  # fmt: skip


def is_run_toml(document: Document) -> bool:
    """Whether it is surefoot's own: its sections are there, in its shape."""
    return document.has("train") and document.has("data.folders", "model.path")


def _onetrainer(document: Document) -> bool:
    if document.format != "json":
        return False
    named = document.values.get("training_method") in (
        "FINE_TUNE", "LORA", "EMBEDDING", "FINE_TUNE_VAE"
    )  # fmt: skip
    return named or (
        document.has("optimizer.optimizer", "optimizer_defaults", "unet.weight_dtype")
        and document.has("model_type", "base_model_name", "__version")
    )


def _sd_scripts(document: Document) -> bool:
    if document.format == "command":
        return any(document.script.endswith(f"{name}.py") for name in _SD_SCRIPTS) and (
            document.has("pretrained_model_name_or_path", "network_module", "config_file")
        ) and not _musubi(document)  # fmt: skip
    if document.format not in ("toml", "json"):
        return False
    keys = {key.rpartition(".")[2] for key in document.values}
    window = {"LoRA_type", "network_dim"} <= keys or {"lr_warmup", "max_resolution"} <= keys
    return window or (
        bool(keys & {"pretrained_model_name_or_path", "network_module"})
        and bool(keys & {"optimizer_type", "network_module", "train_data_dir", "output_name"})
        and not keys & {"dit", "instance_data_dir", "model_family", "--model_family"}
    )


def _musubi(document: Document) -> bool:
    keys = {key.rpartition(".")[2] for key in document.values}
    return "dit" in keys and bool(keys & {"network_module", "dataset_config", "optimizer_type"})


def _ai_toolkit(document: Document) -> bool:
    return document.format in ("yaml", "json") and document.has("config.process.0")


def _simpletuner(document: Document) -> bool:
    if document.format == "env":
        return bool({"MODEL_FAMILY", "TRAIN_BATCH_SIZE", "LORA_TYPE"} & document.values.keys())
    if document.format not in ("json", "toml"):
        return False
    keys = {key.removeprefix("--") for key in document.values}
    return "model_family" in keys or {"data_backend_config", "model_type"} <= keys


def _diffusion_pipe(document: Document) -> bool:
    return document.format == "toml" and document.has("model.type") and (
        document.has("micro_batch_size_per_gpu", "adapter.type", "optimizer.type")
    )  # fmt: skip


def _diffusers(document: Document) -> bool:
    if document.format != "command" or "pretrained_model_name_or_path" not in document.values:
        return False
    return document.script.startswith("train_") and document.has(
        "instance_data_dir", "train_data_dir", "dataset_name", "jsonl_for_train"
    ) and not _sd_scripts(document)  # fmt: skip


SIGNS: dict[Trainer, Callable[[Document], bool]] = {
    "musubi": _musubi,
    "simpletuner": _simpletuner,
    "diffusion_pipe": _diffusion_pipe,
    "diffusers": _diffusers,
    "sd_scripts": _sd_scripts,
    "ai_toolkit": _ai_toolkit,
    "onetrainer": _onetrainer,
}
