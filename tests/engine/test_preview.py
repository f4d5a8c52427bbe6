"""Previews and sheets of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from surefoot.config.run import PreviewConfig
from surefoot.engine.preview import draw_previews, write_sheet
from tests.engine.small_runs import (
    prepare,
    session_of,
    settings,
    train,
    write_model,
    write_pictures,
)

TEXT_HEIGHT, GAP = 48, 4  # pixels: three lines of prompt, and the space between pictures


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("preview")
    model = write_model(folder / "model")
    pictures = write_pictures(folder / "pictures", 3)
    written = settings(model, pictures, pictures)
    written["validation"] = {"folder": "off"}
    written["train"] |= {"steps": 4, "batch_size": 1}
    return written


def colours(folder: Path, count: int, side: int, first: int) -> list[Path]:
    """Plain pictures, each of its own colour."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:02d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (side, side), (first, 20 * number + 5, 130)).save(path)
    return paths


def runs_of_colour(line: np.ndarray, colour: tuple[int, ...]) -> list[tuple[int, int]]:
    """Where a colour begins and ends along a line of pixels."""
    same = np.concatenate([[False], np.equal(line, colour).all(axis=1), [False]])
    edges = np.flatnonzero(same[1:] != same[:-1])
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


@pytest.mark.parametrize(("side", "shown"), [(64, 96), (128, 128)])
def test_sheet_has_every_picture_in_its_row_and_column(
    side: int, shown: int, tmp_path: Path
) -> None:
    rows = [
        ("base", colours(tmp_path / "base", 3, side, 40)),
        ("trained for long", colours(tmp_path / "trained", 3, side, 200)),
    ]
    write_sheet(tmp_path / "sheet.png", rows, ["a", "b", "c"])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape[0] == TEXT_HEIGHT + 2 * (shown + GAP) + 8
    lefts = set()
    for row, first in enumerate((40, 200)):
        top = TEXT_HEIGHT + row * (shown + GAP)
        for column in range(3):
            colour = (first, 20 * column + 5, 130)
            ((left, right),) = runs_of_colour(sheet[top + shown // 2], colour)
            ((above, below),) = runs_of_colour(sheet[:, left + shown // 2], colour)
            assert (right - left, above, below) == (shown, top, top + shown)
            lefts.add(left - column * (shown + GAP))
    (label,) = lefts
    assert sheet.shape[1] == label + 3 * (shown + GAP)
    # The names are written to the left of the pictures, and end before them.
    names = np.all(sheet[TEXT_HEIGHT:, :label] < 128, axis=2)
    assert names.any()
    assert not names[:, label - 2 :].any()


def test_more_prompts_than_columns_go_into_further_blocks(tmp_path: Path) -> None:
    paths = colours(tmp_path / "pictures", 5, 96, 90)
    write_sheet(tmp_path / "sheet.png", [("x", paths)], list("abcde"), columns=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    block = TEXT_HEIGHT + (96 + GAP) + 8
    assert sheet.shape[0] == 3 * block
    for index in range(5):
        colour = (90, 20 * index + 5, 130)
        places = np.argwhere(np.all(sheet == np.array(colour), axis=2))
        assert len(places) == 96 * 96
        assert places[0][0] == index // 2 * block + TEXT_HEIGHT
        assert places[0][1] == sheet.shape[1] - (2 - index % 2) * (96 + GAP)


@pytest.mark.parametrize(
    "prompt",
    ["a prompt of many words that needs three lines, and is cut after them " * 2, "w" * 200],
    ids=["words", "one word"],
)
def test_long_prompt_wraps_and_stays_above_its_own_picture(prompt: str, tmp_path: Path) -> None:
    paths = colours(tmp_path / "pictures", 3, 96, 90)
    write_sheet(tmp_path / "sheet.png", [("x", paths)], ["", prompt, ""])
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("L"))
    left = sheet.shape[1] - 2 * (96 + GAP)
    written = np.argwhere(sheet[:TEXT_HEIGHT] < 128)
    assert len(written) > 100
    assert written[:, 1].min() >= left
    assert written[:, 1].max() < left + 96 + GAP
    lines = np.flatnonzero((sheet[:TEXT_HEIGHT, left : left + 96] < 128).any(axis=1))
    gaps = int((np.diff(lines) > 1).sum())
    assert gaps >= 2  # three lines
    assert written[:, 0].max() < TEXT_HEIGHT


def test_previews_are_numbered_and_each_prompt_has_the_next_seed(
    values: dict[str, Any], tmp_path: Path
) -> None:
    with session_of(prepare(tmp_path, values)) as session:
        preview = PreviewConfig(prompts=("a", "b", "b"), steps=1, guidance=1.0, seed=9)
        paths = draw_previews(session.family, preview, 64, tmp_path / "drawn")
        (alone,) = session.family.sample(["b"], resolution=64, steps=1, guidance=1.0, seeds=[10])
    assert [path.name for path in paths] == ["00.png", "01.png", "02.png"]
    contents = [Image.open(path).tobytes() for path in paths]
    assert contents[1] == alone.tobytes()
    assert contents[2] != contents[1]


def test_seventeen_prompts_are_drawn_with_seeds_that_go_on(
    values: dict[str, Any], tmp_path: Path
) -> None:
    with session_of(prepare(tmp_path, values)) as session:
        preview = PreviewConfig(prompts=("a",) * 17, steps=1, guidance=1.0, seed=0)
        paths = draw_previews(session.family, preview, 64, tmp_path / "drawn")
    assert len({Image.open(path).tobytes() for path in paths}) == 17


def test_run_draws_before_during_and_after_and_puts_all_on_one_sheet(
    values: dict[str, Any], tmp_path: Path
) -> None:
    section = {"prompts": ["a", "b"], "every": 2, "steps": 1}
    small = prepare(tmp_path, values, preview=section, optimizer__lr=0.1)
    summary = train(small)
    drawn = sorted(path.relative_to(small.folder / "samples").as_posix()
                   for path in (small.folder / "samples").rglob("*.png"))  # fmt: skip
    assert drawn == [f"step-{step:06d}/{number:02d}.png" for step in (0, 2, 4) for number in (0, 1)]
    assert summary.sheet == small.folder / "sheet.png"
    with Image.open(small.folder / "sheet.png") as sheet:
        assert sheet.height == TEXT_HEIGHT + 3 * (96 + GAP) + 8
    # Other prompts in the same run: the older pictures are not of them.
    more = section | {"prompts": ["a", "b", "c"]}
    assert train(prepare(tmp_path, values, preview=more, optimizer__lr=0.1)).sheet is None


def test_previews_change_nothing_of_the_training(values: dict[str, Any], tmp_path: Path) -> None:
    section = {"prompts": ["a"], "every": 1, "steps": 1}
    with_previews = train(prepare(tmp_path / "with", values, preview=section, train__ema=0.9))
    without = train(prepare(tmp_path / "without", values, train__ema=0.9))
    # The header may show a preview; the tensors are the same bits.
    drawn, plain = load_file(with_previews.export), load_file(without.export)
    assert drawn.keys() == plain.keys()
    assert all(torch.equal(drawn[name], plain[name]) for name in plain)
