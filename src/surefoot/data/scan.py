"""Find the pictures and captions below a folder, and everything that is wrong with them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from surefoot.data.pictures import PictureError, PictureFault, open_upright
from surefoot.language import N_

if TYPE_CHECKING:
    from pathlib import Path

ProblemKind = Literal[
    PictureFault,
    "folder_missing",
    "folder_not_a_folder",
    "folder_unreadable",
    "folder_repeated",
    "folder_without_images",
    "caption_missing",
    "caption_unreadable",
    "caption_not_utf8",
    "caption_empty",
    "caption_repeated",
    "caption_without_image",
]

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
CAPTION_SUFFIX = ".txt"
_CAPTION_SUFFIXES = frozenset((CAPTION_SUFFIX, ".caption"))


@dataclass(frozen=True)
class Example:
    """A picture that can be read, with its captions, at least one; width and height upright."""

    path: Path
    captions: tuple[str, ...]
    width: int
    height: int


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file or folder: a code, where, and a short technical fact or ""."""

    kind: ProblemKind
    path: Path
    detail: str


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    A picture that cannot be read, or whose caption is missing or cannot be, is no example. Where
    two captions claim one picture, the problem "caption_repeated" is at the one left aside and
    its detail names the one taken.
    """

    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Listing:
    """Files by name only, nothing opened; captions by (folder, stem)."""

    images: list[Path]
    captions: dict[tuple[Path, str], Path]
    problems: list[Problem]


def scan_folder(
    folder: Path, *, need_captions: bool, several: bool = False, threads: int = 4
) -> Scan:
    """Read every picture below `folder` once, whole, and its caption.

    The caption of `cat.png` is `cat.txt` or `cat.caption` beside it, in UTF-8. Names that
    begin with a dot are skipped; links to folders are followed, each folder once.

    Args:
        folder: where to look, at any depth.
        need_captions: whether a missing or empty caption is a problem; if not, it is "".
        several: whether each line of a caption file is a caption of its own.
        threads: pictures decoded at once.

    Returns:
        Examples and problems, each ordered by path relative to `folder` with forward slashes.
    """
    unusable = _folder_problems(folder)
    if unusable:
        return Scan((), tuple(unusable))
    listing = _list_files(folder)
    problems = [*listing.problems, *_captions_without_image(listing)]
    if not listing.images:
        problems.append(Problem("folder_without_images", folder, ""))
    examples: list[Example] = []
    examine = partial(
        _examine, captions=listing.captions, need_captions=need_captions, several=several
    )
    images = sorted(listing.images, key=lambda path: _position(path, folder))
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="scan") as pool:
        for found in pool.map(examine, images):
            examples.extend(found.examples)
            problems.extend(found.problems)
    problems.sort(key=lambda problem: (_position(problem.path, folder), problem.kind))
    return Scan(tuple(examples), tuple(problems))


def _position(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _folder_problems(folder: Path) -> list[Problem]:
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return [Problem("folder_missing", folder, "")]
    except OSError as error:
        return [Problem("folder_unreadable", folder, _reason(error))]
    return [] if folder.is_dir() else [Problem("folder_not_a_folder", folder, "")]


def _list_files(folder: Path) -> _Listing:
    listing = _Listing([], {}, [])
    seen: set[tuple[int, int]] = set()
    # Linked folders wait at the left end until all real ones are done, so that a folder which is
    # reached both ways keeps its real name, and a link to a parent cannot go round in circles.
    waiting = deque([folder])
    while waiting:
        current = waiting.pop()
        try:
            status = current.stat()
            entries = {path for path in current.iterdir() if not path.name.startswith(".")}
            folders = sorted(path for path in entries if path.is_dir())
            files = sorted(entries.difference(folders))
        except OSError as error:
            listing.problems.append(Problem("folder_unreadable", current, _reason(error)))
            continue
        if (status.st_dev, status.st_ino) in seen:
            listing.problems.append(Problem("folder_repeated", current, str(current.resolve())))
            continue
        seen.add((status.st_dev, status.st_ino))
        waiting.extend(path for path in folders if not path.is_symlink())
        waiting.extendleft(path for path in folders if path.is_symlink())
        for path in files:
            _list_file(path, listing)
    return listing


def _list_file(path: Path, listing: _Listing) -> None:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        listing.images.append(path)
    elif suffix in _CAPTION_SUFFIXES:
        first = listing.captions.setdefault((path.parent, path.stem), path)
        if first != path:  # cat.txt and cat.TXT
            listing.problems.append(Problem("caption_repeated", path, first.name))


def _captions_without_image(listing: _Listing) -> list[Problem]:
    pictured = {(image.parent, image.stem) for image in listing.images}
    return [
        Problem("caption_without_image", path, "")
        for key, path in listing.captions.items()
        if key not in pictured
    ]


def _examine(
    image: Path, *, captions: dict[tuple[Path, str], Path], need_captions: bool, several: bool
) -> Scan:
    """Read one picture and its caption: one example, or every problem of the two."""
    problems: list[Problem] = []
    width = height = 0
    try:
        if image.exists() and not image.is_file():  # a pipe would block for ever
            raise PictureError("image_not_readable", image, N_("not a regular file"))
        width, height = open_upright(image).size
    except PictureError as error:
        problems.append(Problem(error.kind, image, error.detail))
    caption = ""
    caption_file = captions.get((image.parent, image.stem))
    if caption_file is not None:
        caption, faults = _read_caption(caption_file, need_captions=need_captions)
        problems.extend(faults)
    elif need_captions:
        problems.append(Problem("caption_missing", image, image.stem + CAPTION_SUFFIX))
    if problems:
        return Scan((), tuple(problems))
    lines = [line.strip() for line in caption.splitlines() if line.strip()] if several else []
    return Scan((Example(image, tuple(lines) or (caption,), width, height),), ())


def _read_caption(path: Path, *, need_captions: bool) -> tuple[str, list[Problem]]:
    try:
        text = path.read_bytes().decode("utf-8-sig").strip()
    except OSError as error:
        return "", [Problem("caption_unreadable", path, _reason(error))]
    except UnicodeDecodeError as error:
        return "", [Problem("caption_not_utf8", path, f"byte {error.start}")]
    if "\0" in text:  # UTF-16 without a byte order mark is valid UTF-8 full of NULs
        return "", [Problem("caption_not_utf8", path, N_("NUL character"))]
    if need_captions and not text:
        return "", [Problem("caption_empty", path, "")]
    return text, []
