"""The emoji pictures and their words, from two npm packages.

`emoji-datasource-google` holds Noto Emoji (Apache-2.0), `emoji-datasource-twitter` holds Twemoji
(CC BY 4.0); both describe the same characters in the same `emoji.json`.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

VERSION = "16.0.0"
STYLES = ("google", "twitter")
PIXELS = 64


@dataclass(frozen=True)
class Emoji:
    """One emoji: its file name, what it is called and where it is filed."""

    file_name: str
    name: str
    category: str
    subcategory: str

    @property
    def kept(self) -> bool:
        """Whether it is among the things that the model is asked to know well."""
        return self.category in KEPT_CATEGORIES or self.subcategory in KEPT_SUBCATEGORIES

    @property
    def caption(self) -> str:
        """The full caption, for example `grinning face, face smiling`."""
        return f"{self.name}, {self.subcategory}"

    @property
    def captions(self) -> tuple[str, ...]:
        """Every caption that training draws from: short, full, and with the category."""
        return (self.name, self.caption, f"{self.name}, {self.category}")


def fetch(folder: Path) -> None:
    """Downloads both packages with the npm client and unpacks what is used into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        target = folder / style
        if (target / "emoji.json").exists():
            continue
        package = f"emoji-datasource-{style}"
        subprocess.run(["npm", "pack", "--silent", f"{package}@{VERSION}"], cwd=folder, check=True)
        with tarfile.open(folder / f"{package}-{VERSION}.tgz") as archive:
            wanted = (f"package/img/{style}/64/", "package/emoji.json", "package/LICENSE")
            members = [item for item in archive.getmembers() if item.name.startswith(wanted)]
            archive.extractall(folder, members=members, filter="data")
        (folder / "package").rename(target)


# Things that a picture of 64 pixels can show. People in three genders, letters, arrows, clock
# faces and country flags would take half of the training and show a newcomer little.
CATEGORIES = frozenset(
    {
        "Smileys & Emotion",
        "Animals & Nature",
        "Food & Drink",
        "Activities",
        "Travel & Places",
        "Objects",
    }
)
_CLOCK_FACE = "CLOCK FACE"

# What the model is asked to know well: the rest is only there for a start in shapes and words.
KEPT_CATEGORIES = frozenset({"smileys and emotion", "animals and nature", "food and drink"})
KEPT_SUBCATEGORIES = frozenset(
    {"transport ground", "transport air", "transport water", "sport", "musical instrument"}
)


def read(folder: Path) -> list[Emoji]:
    """The emoji of `CATEGORIES` that both styles have a picture of, sorted by file name."""
    records = json.loads((folder / "google" / "emoji.json").read_text(encoding="utf-8"))
    return sorted(
        (
            Emoji(
                file_name=record["image"],
                name=_plain_name(record),
                category=_plain(record["category"]),
                subcategory=_plain(record["subcategory"]),
            )
            for record in records
            if all(record[f"has_img_{style}"] for style in STYLES)
            and record["category"] in CATEGORIES
            and not (record["name"] or "").startswith(_CLOCK_FACE)
        ),
        key=lambda emoji: emoji.file_name,
    )


def read_picture(folder: Path, style: str, file_name: str) -> np.ndarray:
    """One picture on white, `(64, 64, 3)` uint8."""
    path = folder / style / "img" / style / "64" / file_name
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    if picture.size != (PIXELS, PIXELS):
        picture = picture.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))


def read_pictures(folder: Path, style: str, file_names: list[str]) -> np.ndarray:
    """Several pictures, `(N, 64, 64, 3)` uint8."""
    return np.stack([read_picture(folder, style, file_name) for file_name in file_names])


def all_file_names(folder: Path, style: str) -> list[str]:
    """Every picture of a style, with the skin tones: more to learn for the autoencoder."""
    return sorted(path.name for path in (folder / style / "img" / style / "64").glob("*.png"))


def _plain_name(record: dict[str, str]) -> str:
    name = record["name"] or record["short_name"]
    return _plain(name)


def _plain(text: str) -> str:
    text = text.lower().replace("&", "and")
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9']+", " ", text)).strip()
