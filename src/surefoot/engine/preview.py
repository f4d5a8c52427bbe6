"""Pictures of the same prompts and seeds, and sheets that set them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from surefoot.config.run import PreviewConfig
from surefoot.families.family import Family

_LINE = 16  # pixels of a line of text
_PIXELS = 2**18  # of all pictures that are drawn at once: one of 512x512, or 64 of 64x64


def draw_previews(
    family: Family, preview: PreviewConfig, resolution: int, folder: Path
) -> list[Path]:
    """Draws one picture for each prompt into `folder`, named 00.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    batch = max(1, min(16, _PIXELS // resolution**2))
    for start in range(0, len(preview.prompts), batch):
        prompts = preview.prompts[start : start + batch]
        pictures = family.sample(
            prompts,
            resolution=resolution,
            steps=preview.steps,
            guidance=preview.guidance,
            seeds=[preview.seed + start + index for index in range(len(prompts))],
        )
        for index, picture in enumerate(pictures, start=start):
            paths.append(folder / f"{index:02d}.png")
            picture.save(paths[-1])
    return paths


def write_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[Path]]], prompts: Sequence[str], columns: int = 8
) -> None:
    """Writes a picture with one line of pictures for each row, named, and prompts above.

    More prompts than `columns` go into further blocks below.
    """
    with Image.open(rows[0][1][0]) as first:
        side = max(96, first.width)
    font = ImageFont.load_default(size=11)
    label = 8 + max(int(font.getlength(name)) for name, _ in rows)
    blocks = -(-len(prompts) // columns)
    width = label + min(columns, len(prompts)) * (side + 4)
    block = 3 * _LINE + len(rows) * (side + 4) + 8
    sheet = Image.new("RGB", (width, blocks * block), "white")
    draw = ImageDraw.Draw(sheet)
    for index, prompt in enumerate(prompts):
        left = label + index % columns * (side + 4)
        top = index // columns * block
        text = "\n".join(_wrapped(prompt, side, font)[:3])
        draw.multiline_text((left, top + 2), text, fill="black", font=font, spacing=2)
        for row, (name, pictures) in enumerate(rows):
            height = top + 3 * _LINE + row * (side + 4)
            with Image.open(pictures[index]) as picture:
                shown = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(shown, (left, height))
            if index % columns == 0:
                draw.text((4, height + side // 2 - 6), name, fill="black", font=font)
    sheet.save(path)


def _wrapped(
    text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    lines = [""]
    for word in (piece for whole in text.split() for piece in _pieces(whole, width, font)):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _pieces(word: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """The word, cut where it would run into the neighbour's column."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append(letter)
        else:
            pieces[-1] += letter
    return pieces
