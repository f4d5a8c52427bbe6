"""Files that are whole or as they were before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from surefoot.formats.files import replacing, sync_tree, write_whole


def test_text_is_written_as_it_is_and_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    for text in ("name = '猫'\r\n", "", "shorter\n"):
        write_whole(path, text)
        assert path.read_bytes() == text.encode()
    assert list(tmp_path.iterdir()) == [path]


def test_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_whole(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"half of the n")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"half of the n"


def test_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    write_whole(path, "old")

    def full_disk(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name a descriptor")
def test_every_file_and_folder_of_a_tree_is_brought_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unet" / "inner").mkdir(parents=True)
    files = [tmp_path / "index.json", tmp_path / "unet" / "inner" / "weights"]
    for file in files:
        file.write_bytes(b"x")
    synced: list[Path] = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
    )
    sync_tree(tmp_path)
    assert sorted(synced) == sorted([tmp_path, *tmp_path.glob("**/*")])
