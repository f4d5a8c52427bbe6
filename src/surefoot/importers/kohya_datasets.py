"""The data set's file of sd-scripts and musubi-tuner, which `dataset_config` names.

What a subset does not say is taken from its data set, then from `general`, then from the arguments.
Source: sd-scripts 48d368f (2026-02-16), library/config_util.py; musubi-tuner 30c658c (2026-06-24),
dataset/config_utils.py, which has no subsets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from surefoot.importers.account import Account
from surefoot.importers.record import TomlValue
from surefoot.importers.training_data import set_for_all, whole_side
from surefoot.language import N_

BELOW = "dataset_config"
_FOLDERS = ("image_dir", "image_directory")
_ARGUMENTS = {"batch_size": "train_batch_size", "num_repeats": "dataset_repeats"}

_CAPTIONS = ("shuffle", "keep_tags", "dropout", "tag_dropout")
CAPTION_TEXTS = {
    "caption_separator": "separator",
    "keep_tokens_separator": "keep_mark",
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
}

OTHER_PICTURES = N_("surefoot takes folders of pictures with captions beside them")
REGULARISING = N_("surefoot has no regularisation pictures")
NOT_WITH_A_FILE = N_("not used beside dataset_config")


@dataclass(frozen=True)
class Subset:
    """A folder, by the beginnings of the keys that count for it, the nearest first."""

    begins: tuple[str, ...]

    def key(self, account: Account, name: str) -> str:
        """The key that counts, in the file or among the arguments; empty if there is none."""
        found = ""
        for key in (*(f"{begin}{name}" for begin in self.begins), _ARGUMENTS.get(name, name)):
            if account.get(key) is not None:
                found = found or key
        return found


def subsets(account: Account) -> list[Subset]:
    """Every folder of the file."""
    general = f"{BELOW}.general."
    found: list[Subset] = []
    for number in range(account.document.items(f"{BELOW}.datasets")):
        dataset = f"{BELOW}.datasets.{number}"
        inside = account.document.items(f"{dataset}.subsets")
        found += [Subset((f"{dataset}.subsets.{inner}.", f"{dataset}.", general))
                  for inner in range(inside)]  # fmt: skip
        if not inside:
            found.append(Subset((f"{dataset}.", general)))
    return found


def dataset_folders(account: Account) -> tuple[list[Subset], list[tuple[str, int]]]:
    """The subsets that surefoot can train on, and their folders and repeats."""
    kept: list[Subset] = []
    folders: list[tuple[str, int]] = []
    for subset in subsets(account):
        key = next((key for name in _FOLDERS if (key := subset.key(account, name))), "")
        if not key:
            _say_other_pictures(account, subset)
        elif account.flag(f"{subset.begins[0]}is_reg"):
            account.drop(key, REGULARISING)
            account.drop(f"{subset.begins[0]}is_reg", REGULARISING)
        else:
            place = f"data.folders.{len(folders)}"
            repeats_key = subset.key(account, "num_repeats")
            repeats = max(1, account.whole(repeats_key, 1)) if repeats_key else 1
            account.use(key, f"{place}.path")
            account.use(repeats_key, f"{place}.repeats")
            folders.append((account.text(key), repeats))
            kept.append(subset)
    return kept, folders


def _say_other_pictures(account: Account, subset: Subset) -> None:
    begin = subset.begins[0]
    for name in ("metadata_file", "image_jsonl_file", "video_directory", "video_jsonl_file"):
        account.drop(f"{begin}{name}", OTHER_PICTURES)


def set_of_datasets(account: Account, kept: list[Subset]) -> None:
    """Sets what run.toml has once: batch, resolution, mirroring, captions."""
    if not kept:
        return
    sizes = [subset.key(account, "batch_size") for subset in kept]
    set_for_all(account, "train.batch_size", sizes,
                lambda key: max(1, account.whole(key, 1)) if key else 1)  # fmt: skip
    if sizes[0] != "train_batch_size":
        account.drop("train_batch_size", NOT_WITH_A_FILE, matters=False)
    sides = [subset.key(account, "resolution") for subset in kept]
    if any(sides):
        set_for_all(account, "data.resolution", sides, lambda key: _side(account, key))
    flips = [subset.key(account, "flip_aug") for subset in kept]
    if any(flips):
        set_for_all(account, "data.flip", flips, lambda key: bool(key) and account.flag(key))
    _set_captions(account, kept)


def _set_captions(account: Account, kept: list[Subset]) -> None:
    readers: dict[str, Callable[[str], TomlValue]] = {
        "shuffle_caption": lambda key: bool(key) and account.flag(key),
        "keep_tokens": lambda key: account.whole(key, 0) if key else 0,
        "caption_dropout_rate": lambda key: account.number(key, 0.0) if key else 0.0,
        "caption_tag_dropout_rate": lambda key: account.number(key, 0.0) if key else 0.0,
    }
    for (name, value), path in zip(readers.items(), _CAPTIONS, strict=True):
        keys = [subset.key(account, name) for subset in kept]
        if any(keys):
            set_for_all(account, f"captions.{path}", keys, value)
    for name, path in CAPTION_TEXTS.items():
        keys = [subset.key(account, name) for subset in kept]
        if any(keys):
            set_for_all(account, f"captions.{path}", keys,
                        lambda key, name=name: caption_text(account, key, name))  # fmt: skip


def caption_text(account: Account, key: str, name: str) -> str:
    """A text of captions as surefoot takes it: sd-scripts puts a space around prefix and suffix."""
    text = account.text(key) if key else ""
    if not text:
        return "," if name == "caption_separator" else ""
    around = {"caption_prefix": f"{text} ", "caption_suffix": f" {text}"}
    return around.get(name, text)


def _side(account: Account, key: str) -> int | str:
    given = account.get(key) if key else None
    first = given[0] if isinstance(given, tuple) and given else given
    side = whole_side(str(first))
    return side if side >= 8 else "auto"
