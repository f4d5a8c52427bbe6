"""The latent cache: what is stored comes back, and nothing damaged ever does."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import surefoot.data.cache as cache_module
from surefoot.data.buckets import Size
from surefoot.data.cache import LatentCache
from surefoot.data.variations import PLAIN, Variation

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURE = "ab" * 32


class Damage:
    """Collects what the cache reports."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def __call__(self, path: Path) -> None:
        self.paths.append(path)


@pytest.fixture
def damage() -> Damage:
    return Damage()


@pytest.fixture
def cache(tmp_path: Path, damage: Damage) -> LatentCache:
    return LatentCache(tmp_path / "latents", "vae-1", damage)


def latents(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "mean": torch.randn(4, 8, 6, generator=generator),
        "std": torch.rand(4, 8, 6, generator=generator).to(torch.bfloat16),
    }


def test_what_is_stored_comes_back_to_the_bit(cache: LatentCache, damage: Damage) -> None:
    stored = latents()
    key = cache.key(PICTURE, Size(64, 48), False, PLAIN)
    cache.store(key, stored)
    loaded = cache.load(key)
    assert loaded is not None
    assert loaded.keys() == stored.keys()
    for name, tensor in stored.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert damage.paths == []


def test_slices_and_scalars_can_be_stored(cache: LatentCache, damage: Damage) -> None:
    whole = torch.arange(24.0).reshape(2, 3, 4).requires_grad_()
    stored = {"mean": whole[:, 1, ::2], "std": torch.tensor(0.5), "none": torch.zeros(0, 3)}
    cache.store("cd" * 32, stored)
    loaded = cache.load("cd" * 32)
    assert loaded is not None
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor)
    assert damage.paths == []


def test_an_item_never_stored_is_a_miss_and_makes_no_files(
    cache: LatentCache, damage: Damage
) -> None:
    assert cache.load(cache.key(PICTURE, Size(64, 48), False, PLAIN)) is None
    assert not cache.folder.exists()
    assert damage.paths == []


def test_everything_that_decides_the_numbers_is_in_the_key(
    cache: LatentCache, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [
        cache.key(PICTURE, Size(64, 48), False, PLAIN),
        cache.key(PICTURE, Size(64, 48), True, PLAIN),
        cache.key(PICTURE, Size(48, 64), False, PLAIN),
        cache.key(PICTURE, Size(64, 64), False, PLAIN),
        cache.key("cd" * 32, Size(64, 48), False, PLAIN),
        cache.key(PICTURE, Size(64, 48), False, Variation(across=0.4)),
        cache.key(PICTURE, Size(64, 48), False, Variation(down=0.4)),
        cache.key(PICTURE, Size(64, 48), False, Variation(brightness=0.4)),
        cache.key(PICTURE, Size(64, 48), False, Variation(contrast=0.4)),
        cache.key(PICTURE, Size(64, 48), False, Variation(saturation=0.4)),
        LatentCache(cache.folder, "vae-2", damage).key(PICTURE, Size(64, 48), False, PLAIN),
    ]
    monkeypatch.setattr(cache_module, "CACHE_FORMAT", cache_module.CACHE_FORMAT + 1)
    keys.append(cache.key(PICTURE, Size(64, 48), False, PLAIN))
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_depend_on_where_the_cache_lies(tmp_path: Path, damage: Damage) -> None:
    here, there = (LatentCache(tmp_path / name, "vae-1", damage) for name in ("a", "b"))
    assert here.key(PICTURE, Size(64, 48), False, PLAIN) == there.key(
        PICTURE, Size(64, 48), False, PLAIN
    )


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def nothing(data: bytes) -> bytes:
    return data[:0]


def text(data: bytes) -> bytes:
    return b"x" * len(data)


@pytest.mark.parametrize("damaging", [cut, flip_last_byte, nothing, text])
def test_a_damaged_item_is_reported_is_a_miss_and_is_rewritten(
    cache: LatentCache, damage: Damage, damaging: Callable[[bytes], bytes]
) -> None:
    key = cache.key(PICTURE, Size(64, 48), False, PLAIN)
    cache.store(key, latents())
    path = cache.path(key)
    path.write_bytes(damaging(path.read_bytes()))
    assert cache.load(key) is None
    assert damage.paths == [path]
    cache.store(key, latents())
    loaded = cache.load(key)
    assert loaded is not None
    assert torch.equal(loaded["mean"], latents()["mean"])
    assert damage.paths == [path]


def test_an_item_under_anothers_name_is_damaged(cache: LatentCache, damage: Damage) -> None:
    plain, flipped = (cache.key(PICTURE, Size(64, 48), flip, PLAIN) for flip in (False, True))
    cache.store(plain, latents())
    cache.store(flipped, latents(1))
    cache.path(flipped).write_bytes(cache.path(plain).read_bytes())
    assert cache.load(flipped) is None
    assert damage.paths == [cache.path(flipped)]


def test_a_failing_disk_is_raised_as_it_is_and_leaves_the_old_item(
    cache: LatentCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cache.key(PICTURE, Size(64, 48), False, PLAIN)
    cache.store(key, latents())

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patched:
        patched.setattr(type(cache.folder), "replace", full)
        with pytest.raises(OSError, match="No space left"):
            cache.store(key, latents(1))
    loaded = cache.load(key)
    assert loaded is not None
    assert torch.equal(loaded["mean"], latents()["mean"])
    assert [path.name for path in cache.path(key).parent.iterdir()] == [f"{key}.safetensors"]


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path, damage: Damage) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        LatentCache(tmp_path / "file", "vae-1", damage).store("ab" * 32, latents())


def raise_damage(path: Path) -> None:
    raise AssertionError(f"{path} was seen half written")


def write_and_read(folder: str, rounds: int) -> None:
    torch.set_num_threads(1)
    cache = LatentCache(Path(folder), "vae-1", raise_damage)
    key = cache.key(PICTURE, Size(64, 48), False, PLAIN)
    expected = latents()
    for _ in range(rounds):
        cache.store(key, expected)
        loaded = cache.load(key)
        assert loaded is not None
        assert torch.equal(loaded["mean"], expected["mean"])


def test_two_processes_may_write_and_read_the_same_item(cache: LatentCache, damage: Damage) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=write_and_read, args=(str(cache.folder), 20)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=90)
    assert [worker.exitcode for worker in workers] == [0, 0]
    key = cache.key(PICTURE, Size(64, 48), False, PLAIN)
    assert cache.load(key) is not None
    assert damage.paths == []
    assert len(list(cache.path(key).parent.iterdir())) == 1
