"""What each trainer's files have that no other's have."""

from __future__ import annotations

from collections.abc import Callable

from surefoot.importers.document import Document
from surefoot.importers.record import Trainer

_SD_SCRIPTS = (
    "train_network", "train_db", "fine_tune", "train_textual_inversion", "train_leco",
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


SIGNS: dict[Trainer, Callable[[Document], bool]] = {
    "onetrainer": _onetrainer,
}
