"""Every bad input through the command line: one clear sentence, exit code 2, all at once."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from surefoot.data.pictures import read_picture
from tests.run_files import findings_in, look, surefoot, write_pictures, write_run
from tests.tiny_sd import build_tiny_pipeline

UNUSABLE = 2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_pipeline(0).save_pretrained(folder)
    return folder


def append(run_file: Path, text: str) -> None:
    run_file.write_text(run_file.read_text(encoding="utf-8") + text, encoding="utf-8")


def replace(run_file: Path, before: str, after: str) -> None:
    text = run_file.read_text(encoding="utf-8")
    assert text.count(before) == 1
    run_file.write_text(text.replace(before, after), encoding="utf-8")


def in_pictures(name: str, content: bytes | str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "pictures" / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def cut_short(folder: Path) -> None:
    path = folder / "pictures/0.png"
    path.write_bytes(path.read_bytes()[:2000])


def without_pictures(folder: Path) -> None:
    for path in (folder / "pictures").iterdir():
        path.unlink()


def model_without_vae(folder: Path, tiny: Path) -> None:
    shutil.copytree(tiny, folder / "model")
    shutil.rmtree(folder / "model/vae")
    replace(folder / "run.toml", 'path = "builtin"', 'path = "model"')


Spoil = Callable[[Path], object]
# What is spoilt, the code, and what the sentence must name; {0} is the folder of run.toml.
SPOILT: dict[str, tuple[Spoil, str, tuple[str, ...]]] = {
    "unknown key": (
        lambda folder: append(folder / "run.toml", "btach_size = 2\n"),
        "SF003",
        ("btach_size",),
    ),
    "misspelt value": (
        lambda folder: replace(folder / "run.toml", 'kind = "dora"', 'kind = "dorra"'),
        "SF004",
        ("tuning.kind", "dorra"),
    ),
    "value of another type": (
        lambda folder: replace(folder / "run.toml", "steps = 120", 'steps = "120"'),
        "SF004",
        ("train.steps", '"120"'),
    ),
    "missing key": (
        lambda folder: replace(folder / "run.toml", "steps = 120", ""),
        "SF006",
        ("train.steps",),
    ),
    "broken toml": (
        lambda folder: append(folder / "run.toml", "ema = off\n"),
        "SF002",
        ("{0}/run.toml", "line 19"),
    ),
    "no run.toml": (lambda folder: (folder / "run.toml").unlink(), "SF001", ("{0}/run.toml",)),
    "missing folder": (
        lambda folder: shutil.rmtree(folder / "pictures"),
        "SF030",
        ("{0}/pictures",),
    ),
    "file as folder": (
        lambda folder: replace(folder / "run.toml", '"pictures"', '"run.toml"'),
        "SF031",
        ("{0}/run.toml",),
    ),
    "folder without images": (without_pictures, "SF033", ("{0}/pictures",)),
    "image of zero bytes": (in_pictures("0.png", b""), "SF034", ("{0}/pictures/0.png",)),
    "truncated image": (cut_short, "SF035", ("{0}/pictures/0.png",)),
    "text named png": (in_pictures("0.png", "not a picture"), "SF036", ("{0}/pictures/0.png",)),
    "missing caption": (
        lambda folder: (folder / "pictures/1.txt").unlink(),
        "SF037",
        ("{0}/pictures/1.png",),
    ),
    "caption in another encoding": (
        in_pictures("0.txt", b"caf\xe9"),
        "SF038",
        ("{0}/pictures/0.txt", "byte 3"),
    ),
    "missing model": (
        lambda folder: replace(folder / "run.toml", '"builtin"', '"models/of/mine"'),
        "SF020",
        ("models/of/mine",),
    ),
    "model not downloaded": (
        lambda folder: replace(folder / "run.toml", '"builtin"', '"no-such-owner/no-such-model"'),
        "SF021",
        ("no-such-owner/no-such-model",),
    ),
    "pickled model": (
        lambda folder: (
            (folder / "model.ckpt").write_bytes(b"PK"),
            replace(folder / "run.toml", '"builtin"', '"model.ckpt"'),
        ),
        "SF024",
        ("{0}/model.ckpt",),
    ),
    "target that matches nothing": (
        lambda folder: replace(
            folder / "run.toml", 'kind = "dora"', 'kind = "dora"\ntargets = ["to_w"]'
        ),
        "SF026",
        ("to_w", "unet"),
    ),
    "resolution that does not fit": (
        lambda folder: append(folder / "run.toml", "[data]\nresolution = 50\n"),
        "SF027",
        ("50",),
    ),
    "folder not writable": (
        lambda folder: replace(
            folder / "run.toml", 'name = "cat"', 'name = "cat"\nfolder = "/proc/nowhere"'
        ),
        "SF041",
        ("/proc/nowhere/cat",),
    ),
    "file in the way": (
        lambda folder: (folder / "runs").write_text("", encoding="utf-8"),
        "SF040",
        ("{0}/runs",),
    ),
}


@pytest.mark.parametrize("verb", ["plan", "check", "train"])
@pytest.mark.parametrize("name", SPOILT)
def test_bad_input_is_one_sentence_and_exit_code_2(name: str, verb: str, tmp_path: Path) -> None:
    spoil, code, named = SPOILT[name]
    run_file = write_run(tmp_path)
    spoil(tmp_path)
    if verb == "plan":
        assert surefoot("plan", run_file).exit_code == UNUSABLE
        return
    result = surefoot(verb, run_file)
    assert result.exit_code == UNUSABLE
    sentences = [line for line in result.output.splitlines() if line.startswith("error[")]
    assert len(sentences) == 1, result.output
    assert sentences[0].startswith(f"error[{code}] ")
    for word in named:
        assert word.format(tmp_path) in sentences[0]
    assert "\nhelp: " in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").is_dir()


@pytest.mark.parametrize("name", SPOILT)
def test_bad_input_as_json_has_the_same_sentence(name: str, tmp_path: Path) -> None:
    spoil, code, named = SPOILT[name]
    run_file = write_run(tmp_path)
    spoil(tmp_path)
    result = surefoot("check", run_file, "--json")
    assert result.exit_code == UNUSABLE
    (finding,) = (item for item in findings_in(result) if item["level"] == "error")
    assert finding["code"] == code
    for word in named:
        assert word.format(tmp_path) in finding["sentence"]
    assert finding["helps"]


def test_all_problems_are_reported_in_one_go(tmp_path: Path, tiny: Path) -> None:
    run_file = write_run(tmp_path, {"folder": "/proc/nowhere"})
    write_pictures(tmp_path / "pictures", 6)
    model_without_vae(tmp_path, tiny)
    cut_short(tmp_path)
    (tmp_path / "pictures/1.txt").unlink()
    (tmp_path / "pictures/2.png").write_bytes(b"")
    (tmp_path / "pictures/3.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "pictures/4.png").write_text("no picture", encoding="utf-8")
    result = surefoot("check", run_file, 'tuning.targets="linear"')
    assert result.exit_code == UNUSABLE
    codes = re.findall(r"^error\[(SF\d+)\]", result.stdout, re.MULTILINE)
    assert codes == ["SF022", "SF034", "SF035", "SF036", "SF037", "SF038", "SF041"]
    assert f"{tmp_path}/model lacks vae" in result.stdout
    assert "errors: 7, warnings: 0, notes: 0\n" in result.stdout


def test_problems_of_the_file_do_not_hide_those_of_what_it_names(
    tmp_path: Path, tiny: Path
) -> None:
    run_file = write_run(tmp_path)
    model_without_vae(tmp_path, tiny)
    cut_short(tmp_path)
    (tmp_path / "pictures/1.txt").unlink()
    replace(run_file, 'name = "cat"', 'name = "cat"\nnmae = 1\nfolder = "/proc/nowhere"')
    replace(run_file, "steps = 120", 'steps = "many"')
    result = surefoot("check", run_file, "--json", "optimizer.lr=high")
    assert result.exit_code == UNUSABLE
    found = [(finding["code"], finding["path"]) for finding in findings_in(result)]
    assert sorted(found) == [
        ("SF003", "nmae"),
        ("SF004", "optimizer.lr"),
        ("SF004", "train.steps"),
        ("SF022", "model.path"),
        ("SF035", "data.folders.0.path"),
        ("SF037", "data.folders.0.path"),
        ("SF041", "folder"),
    ]


def test_section_with_a_problem_is_not_judged_by_what_stands_in_for_it(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, {"validation.folder": "held out"})
    write_pictures(tmp_path / "held out")
    (tmp_path / "held out/0.txt").unlink()
    (tmp_path / "pictures/0.txt").unlink()
    # `missing` would have made both of them right.
    append(run_file, '[captions]\nmisssing = "empty"\n')
    found = findings_in(surefoot("check", run_file, "--json"))
    assert [(finding["code"], finding["path"]) for finding in found] == [
        ("SF003", "captions.misssing")
    ]
    replace(run_file, "misssing", "missing")
    assert surefoot("check", run_file).exit_code == 0


def save_cmyk(picture: Image.Image, path: Path) -> None:
    picture.convert("CMYK").save(path.with_suffix(".jpg"), quality=100)


def save_palette(picture: Image.Image, path: Path) -> None:
    picture.quantize(4).save(path, transparency=3)


def save_16_bit(picture: Image.Image, path: Path) -> None:
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path)


def save_rotated(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(path.with_suffix(".jpg"), exif=exif, quality=100, subsampling=0)


def save_transparent(picture: Image.Image, path: Path) -> None:
    picture.convert("RGBA").save(path)


def save_grey(picture: Image.Image, path: Path) -> None:
    picture.convert("L").save(path)


@pytest.mark.parametrize(
    ("save", "grey", "most"),
    [
        (save_cmyk, False, 6),
        (save_palette, False, 0),
        (save_16_bit, True, 0),
        (save_rotated, False, 4),
        (save_transparent, False, 0),
        (save_grey, True, 0),
    ],
)
def test_unusual_pictures_are_taken_as_they_look(
    save: Callable[[Image.Image, Path], None], grey: bool, most: int, tmp_path: Path
) -> None:
    pixels = np.full((96, 64, 3), (200, 60, 30), dtype=np.uint8)
    pixels[:40] = (20, 90, 220)  # blue above, red below, and taller than wide
    picture = Image.fromarray(pixels)
    run_file = write_run(tmp_path)
    without_pictures(tmp_path)
    save(picture, tmp_path / "pictures/a.png")
    (tmp_path / "pictures/a.txt").write_text("a flag", encoding="utf-8")
    result = surefoot("check", run_file, "train.batch_size=1")
    assert result.exit_code == 0, result.output
    assert "errors: 0, warnings: 0, notes: 0" in result.stdout
    _plan, found, _findings = look(run_file)
    (example,) = found.data[0].examples
    assert (example.width, example.height) == (64, 96)
    shown = picture.convert("L").convert("RGB") if grey else picture
    difference = np.asarray(shown).astype(int) - read_picture(example.path, 64, 96)
    assert np.abs(difference).max() <= most


def test_disk_without_room_is_said_with_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 300_000

    run_file = write_run(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage)
    for verb in ("check", "train"):
        result = surefoot(verb, run_file)
        assert result.exit_code == UNUSABLE
        assert re.search(
            r"error\[SF042\] the run needs \d+ MB of disk and 0 MB are free", result.output
        )
    assert not (tmp_path / "runs").exists()


def test_picture_left_out_for_an_empty_caption_is_named(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    (tmp_path / "pictures/0.txt").write_text(" \n", encoding="utf-8")
    result = surefoot("check", run_file, "--json", "train.batch_size=1")
    assert result.exit_code == 0
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["code"], finding["level"]) == ("SF301", "warning")
    assert "its picture is left out" in finding["sentence"]
