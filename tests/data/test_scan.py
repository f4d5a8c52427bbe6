"""Scanning a folder: what is found, in which order, and that every fault is named at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import ExifTags, Image

from surefoot.data.scan import Problem, Scan, scan_folder

if TYPE_CHECKING:
    from pathlib import Path


def picture(path: Path, caption: str = "", size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def kinds(scan: Scan) -> dict[str, str]:
    return {problem.path.name: problem.kind for problem in scan.problems}


def test_pictures_of_all_formats_are_found_with_caption_and_size(tmp_path: Path) -> None:
    for number, suffix in enumerate(("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff")):
        picture(tmp_path / f"{number}.{suffix}", f"caption {number}", (6 + number, 4))
    scan = scan_folder(tmp_path, need_captions=True)
    assert scan.problems == ()
    assert [example.captions[0] for example in scan.examples] == [f"caption {n}" for n in range(7)]
    assert [(example.width, example.height) for example in scan.examples] == [
        (6 + number, 4) for number in range(7)
    ]


def test_order_is_that_of_relative_paths_at_any_number_of_threads(tmp_path: Path) -> None:
    names = ["b/z.png", "a.png", "b.png", "a/deep/er/c.png", "B.png", "10.png", "9.png"]
    for name in names:
        picture(tmp_path / name, name)
    one = scan_folder(tmp_path, need_captions=True, threads=1)
    many = scan_folder(tmp_path, need_captions=True, threads=5)
    assert one == many
    found = [example.path.relative_to(tmp_path).as_posix() for example in one.examples]
    assert found == sorted(names)
    assert [example.captions[0] for example in one.examples] == found


def test_extensions_may_be_written_in_capitals(tmp_path: Path) -> None:
    picture(tmp_path / "a.PNG")
    (tmp_path / "a.TXT").write_text("a cat", encoding="utf-8")
    scan = scan_folder(tmp_path, need_captions=True)
    assert [example.captions[0] for example in scan.examples] == ["a cat"]
    assert scan.problems == ()


def test_names_with_spaces_dots_and_unicode_are_found(tmp_path: Path) -> None:
    for name in ("two words.png", "猫 à l'été.png", "v1.2.final.png"):
        picture(tmp_path / name, name)
    scan = scan_folder(tmp_path, need_captions=True)
    assert {example.path.name: example.captions[0] for example in scan.examples} == {
        name: name for name in ("two words.png", "猫 à l'été.png", "v1.2.final.png")
    }
    assert scan.problems == ()


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    picture(tmp_path / "seen.png", "seen")
    picture(tmp_path / ".thumbnails" / "a.png")
    (tmp_path / "._seen.png").write_bytes(b"resource fork")
    (tmp_path / ".note.txt").write_text("hidden", encoding="utf-8")
    scan = scan_folder(tmp_path, need_captions=True)
    assert [example.path.name for example in scan.examples] == ["seen.png"]
    assert scan.problems == ()


def test_other_files_are_ignored(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "a")
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "moving.gif").write_bytes(b"x")
    assert scan_folder(tmp_path, need_captions=True).problems == ()


def test_size_is_that_of_the_picture_as_seen(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=tags)
    (example,) = scan_folder(tmp_path, need_captions=False).examples
    assert (example.width, example.height) == (20, 30)


def test_a_picture_of_one_pixel_is_an_example(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "dot", (1, 1))
    (example,) = scan_folder(tmp_path, need_captions=True).examples
    assert (example.width, example.height) == (1, 1)


def test_all_faults_of_a_folder_are_named_at_once(tmp_path: Path) -> None:
    picture(tmp_path / "good.png", "good")
    whole = picture(tmp_path / "cut.jpg", "cut", (60, 60)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    whole = picture(tmp_path / "sub" / "cut.png", "cut", (60, 60)).read_bytes()
    (tmp_path / "sub" / "cut.png").write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / "empty.png", "empty").write_bytes(b"")
    picture(tmp_path / "text.png", "text").write_text("not a picture", encoding="utf-8")
    picture(tmp_path / "alone.png")
    picture(tmp_path / "blank.png", " \n\t ")
    picture(tmp_path / "latin.png").with_suffix(".txt").write_bytes("été".encode("latin-1"))
    (tmp_path / "stray.txt").write_text("whose?", encoding="utf-8")
    scan = scan_folder(tmp_path, need_captions=True)
    assert [example.path.name for example in scan.examples] == ["good.png"]
    assert [
        (problem.path.relative_to(tmp_path).as_posix(), problem.kind) for problem in scan.problems
    ] == [
        ("alone.png", "caption_missing"),
        ("blank.txt", "caption_empty"),
        ("cut.jpg", "image_truncated"),
        ("empty.png", "image_empty"),
        ("latin.txt", "caption_not_utf8"),
        ("stray.txt", "caption_without_image"),
        ("sub/cut.png", "image_truncated"),
        ("text.png", "image_not_readable"),
    ]


def test_a_bad_picture_with_a_bad_caption_is_two_problems(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_bytes(b"")
    scan = scan_folder(tmp_path, need_captions=True)
    assert kinds(scan) == {"a.png": "image_empty", "a.txt": "caption_empty"}


def test_a_caption_of_a_bad_picture_is_not_called_stray(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "a cat").write_bytes(b"")
    assert kinds(scan_folder(tmp_path, need_captions=True)) == {"a.png": "image_empty"}


def test_byte_order_mark_and_surrounding_space_are_stripped(tmp_path: Path) -> None:
    caption = picture(tmp_path / "a.png").with_suffix(".txt")
    caption.write_bytes(b"\xef\xbb\xbf  a cat,\r\non a mat \n\n")
    (example,) = scan_folder(tmp_path, need_captions=True).examples
    assert example.captions[0] == "a cat,\r\non a mat"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_a_utf16_caption_is_named(tmp_path: Path, encoding: str) -> None:
    picture(tmp_path / "a.png").with_suffix(".txt").write_bytes("a cat".encode(encoding))
    assert kinds(scan_folder(tmp_path, need_captions=True)) == {"a.txt": "caption_not_utf8"}


def test_missing_caption_names_the_picture_and_the_file_it_lacks(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.b.png")
    scan = scan_folder(tmp_path, need_captions=True)
    assert scan.problems == (Problem("caption_missing", path, "a.b.txt"),)


def test_captions_that_are_not_needed_are_read_if_there(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "a cat")
    picture(tmp_path / "b.png")
    picture(tmp_path / "c.png", "  ")
    picture(tmp_path / "d.png").with_suffix(".txt").write_bytes(b"\xff")
    scan = scan_folder(tmp_path, need_captions=False)
    assert [(e.path.name, e.captions[0]) for e in scan.examples] == [
        ("a.png", "a cat"),
        ("b.png", ""),
        ("c.png", ""),
    ]
    assert kinds(scan) == {"d.txt": "caption_not_utf8"}


def test_a_folder_that_is_missing_a_file_or_bare_is_named(tmp_path: Path) -> None:
    missing, file, bare = tmp_path / "missing", tmp_path / "file", tmp_path / "bare"
    file.touch()
    bare.mkdir()
    for problem in (
        Problem("folder_missing", missing, ""),
        Problem("folder_missing", file / "below", ""),
        Problem("folder_not_a_folder", file, ""),
        Problem("folder_without_images", bare, ""),
    ):
        assert scan_folder(problem.path, need_captions=True) == Scan((), (problem,))


def test_a_subfolder_that_cannot_be_listed_is_named_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "a.png", "a")
    picture(tmp_path / "closed" / "b.png", "b")
    plain = type(tmp_path).iterdir

    def iterdir(self: Path) -> object:
        if self.name == "closed":  # chmod does not stop root, whom CI may run as
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self)

    monkeypatch.setattr(type(tmp_path), "iterdir", iterdir)
    scan = scan_folder(tmp_path, need_captions=True)
    assert [example.path.name for example in scan.examples] == ["a.png"]
    assert scan.problems == (
        Problem("folder_unreadable", tmp_path / "closed", "Permission denied"),
    )


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_linked_folders_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    picture(tmp_path / "outside" / "o.png", "o")
    root = tmp_path / "root"
    picture(root / "real" / "a.png", "a")
    (root / "again").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "far").symlink_to(tmp_path / "outside")
    scan = scan_folder(root, need_captions=True)
    assert [e.path.relative_to(root).as_posix() for e in scan.examples] == [
        "far/o.png",
        "real/a.png",
    ]
    assert kinds(scan) == {"again": "folder_repeated", "up": "folder_repeated"}


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_link_to_nowhere_and_a_pipe_are_named(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    scan = scan_folder(tmp_path, need_captions=False)
    assert kinds(scan) == {"link.png": "image_not_readable", "pipe.png": "image_not_readable"}


def test_two_captions_that_differ_only_in_capitals_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "small")
    (tmp_path / "a.TXT").write_text("large", encoding="utf-8")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system does not tell a.txt from a.TXT")
    scan = scan_folder(tmp_path, need_captions=True)
    assert kinds(scan) == {"a.txt": "caption_repeated"}


def test_lines_are_one_caption_or_several(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "a cat\n\n  on a mat \n")
    (one,) = scan_folder(tmp_path, need_captions=True).examples
    assert one.captions == ("a cat\n\n  on a mat",)
    (several,) = scan_folder(tmp_path, need_captions=True, several=True).examples
    assert several.captions == ("a cat", "on a mat")


def test_caption_may_be_in_a_caption_file_and_one_of_two_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "a.caption").write_text("a cat", encoding="utf-8")
    scan = scan_folder(tmp_path, need_captions=True)
    assert [example.captions for example in scan.examples] == [("a cat",)]
    assert scan.problems == ()
    (tmp_path / "a.txt").write_text("a dog", encoding="utf-8")
    assert kinds(scan_folder(tmp_path, need_captions=True)) == {"a.txt": "caption_repeated"}
