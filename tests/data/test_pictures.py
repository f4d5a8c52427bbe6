"""Reading pictures: right pixels, right way up, and a named fault for what cannot be read."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile, ImageOps

from surefoot.data.pictures import PictureError, open_upright, read_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Pixels: TypeAlias = "npt.NDArray[np.uint8]"

JPEG_FLAT_COLOUR = 2  # a constant JPEG at quality 100 is exact but for YCbCr rounding


def noise(width: int, height: int, channels: int = 3) -> Pixels:
    shape = (height, width, channels)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def fault_of(path: Path) -> PictureError:
    with pytest.raises(PictureError) as caught:
        open_upright(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    return caught.value


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def test_rgb_png_of_the_wanted_size_is_read_pixel_for_pixel(tmp_path: Path) -> None:
    pixels = noise(17, 9)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png", 17, 9)
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, pixels)


# numpy's view of the eight orientations (EXIF 2.32, tag 0x0112), from the stored pixels.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_exif_orientation_turns_the_pixels_once(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    pixels = noise(8, 5)
    path = tmp_path / f"a.{suffix}"
    lossless: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(path, exif=exif(orientation), **lossless)
    np.testing.assert_array_equal(np.asarray(open_upright(path)), UPRIGHT[orientation](pixels))


def test_exif_rotated_jpeg_is_turned_and_swaps_width_and_height(tmp_path: Path) -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = (250, 10, 10)  # stored: red left, blue right
    pixels[:, 16:] = (10, 10, 250)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=100, subsampling=0, exif=exif(6))
    upright = np.asarray(open_upright(path)).astype(int)
    assert upright.shape == (32, 16, 3)
    assert np.abs(upright[:16] - (250, 10, 10)).max() <= JPEG_FLAT_COLOUR  # seen: red on top
    assert np.abs(upright[16:] - (10, 10, 250)).max() <= JPEG_FLAT_COLOUR


def test_an_orientation_that_does_not_exist_leaves_the_picture_as_stored(tmp_path: Path) -> None:
    pixels = noise(6, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif(77))
    np.testing.assert_array_equal(np.asarray(open_upright(tmp_path / "a.png")), pixels)


def test_16_bit_greyscale_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    red = np.asarray(open_upright(tmp_path / "a.png"))[0, :, 0].astype(int)
    assert red[0] == 0
    assert red[4] == 255
    assert abs(red[3] - 128) <= 1
    np.testing.assert_array_equal(red, np.rint(values[0].astype(np.float64) / 65535 * 255))


@pytest.mark.parametrize("mode", ["I", "I;16B"])
def test_other_greyscales_with_16_bit_values_are_scaled_alike(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.int32 if mode == "I" else np.dtype(">u2"))
    image = Image.frombytes(mode, (3, 1), values.tobytes())
    image.save(tmp_path / "a.tiff")
    grey = np.asarray(open_upright(tmp_path / "a.tiff"))[0]
    np.testing.assert_array_equal(grey, [[0] * 3, [128] * 3, [255] * 3])


def test_greyscale_beyond_16_bits_and_floating_point_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "a.tiff")
    Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)).save(tmp_path / "b.tiff")
    wide, floating = fault_of(tmp_path / "a.tiff"), fault_of(tmp_path / "b.tiff")
    assert (wide.kind, wide.detail) == ("image_mode_unsupported", "values 0 to 70000")
    assert (floating.kind, floating.detail) == ("image_mode_unsupported", "F")


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG from raw rows (each with its filter byte), for what Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    middle = b"".join(chunk(piece[:4], piece[4:]) for piece in extra)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + end


def test_png_with_16_bits_per_channel_is_scaled(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 256 * 7, 0)
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, rows))
    read = np.asarray(open_upright(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, [[[0, 128, 255], [255, 7, 0]]])


def test_16_bit_greyscale_with_alpha_is_laid_on_white(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">4H", 65535 // 2, 65535, 0, 0)
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 4, rows))
    read = np.asarray(open_upright(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, [[[127] * 3, [255] * 3]])


def test_the_transparent_grey_of_a_16_bit_png_becomes_white(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">2H", 1000, 1001)
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 0, rows, b"tRNS" + struct.pack(">H", 1000)))
    read = np.asarray(open_upright(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, [[[255] * 3, [4] * 3]])


def test_palette_without_transparency_keeps_its_colours(tmp_path: Path) -> None:
    pixels = np.array([[[200, 10, 30], [4, 250, 90]]], dtype=np.uint8)
    Image.fromarray(pixels).quantize(2).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.mode == "P"
    np.testing.assert_array_equal(np.asarray(open_upright(tmp_path / "a.png")), pixels)


def test_palette_with_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 0, 0])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=bytes([255, 0, 51]))
    read = np.asarray(open_upright(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]])


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_alpha_is_laid_on_white(tmp_path: Path, mode: str, channels: int) -> None:
    pixels = noise(16, 16, channels)
    image = Image.fromarray(pixels)
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    colour = pixels[..., :-1].astype(np.float64)
    alpha = pixels[..., -1:].astype(np.float64) / 255
    expected = np.broadcast_to(colour * alpha + 255 * (1 - alpha), (16, 16, 3))
    read = np.asarray(open_upright(tmp_path / "a.png")).astype(np.float64)
    assert np.abs(read - expected).max() <= 1  # 8-bit rounding


def test_transparent_pixels_do_not_bleed_their_hidden_colour_when_scaled(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[::2] = (255, 255, 255, 255)  # the hidden black between must not darken the white
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", 3, 3).min() == 255


def test_a_transparent_colour_of_an_rgb_png_becomes_white(tmp_path: Path) -> None:
    pixels = np.array([[[1, 2, 3], [3, 2, 1]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", transparency=(1, 2, 3))
    read = np.asarray(open_upright(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, [[[255, 255, 255], [3, 2, 1]]])


def test_1_bit_picture_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    read = np.asarray(open_upright(tmp_path / "a.png"))
    np.testing.assert_array_equal(read, [[[255] * 3, [0] * 3]])


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", {}),
        ("jpg", {"progressive": True}),
        ("png", {}),
        ("webp", {}),
        ("webp", {"lossless": True}),
        ("bmp", {}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
    ],
)
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow has to say about a cut TIFF
def test_a_file_that_ends_early_is_named_as_truncated(
    tmp_path: Path, suffix: str, options: dict[str, Any], kept: float
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(40, 50)).save(path, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert fault_of(path).kind == "image_truncated"


def test_an_empty_file_is_named_as_empty(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert fault_of(tmp_path / "a.png").kind == "image_empty"


def test_text_named_png_is_not_readable_and_its_first_bytes_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>not found</html>", encoding="utf-8")
    fault = fault_of(tmp_path / "a.png")
    assert (fault.kind, fault.detail) == (
        "image_not_readable",
        "starts with 3c 68 74 6d 6c 3e 6e 6f",
    )


def test_formats_outside_the_list_are_not_decoded(tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert fault_of(tmp_path / "a.png").kind == "image_not_readable"


def test_a_missing_file_is_not_readable(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "a.png").kind == "image_not_readable"


def test_a_flipped_byte_inside_a_png_is_named_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 50)).save(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT") + 4
    data[place] ^= 0xFF  # the header of the compressed stream
    path.write_bytes(data)
    assert fault_of(path).kind == "image_damaged"


def test_a_decompression_bomb_is_not_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    fault = fault_of(tmp_path / "a.png")
    assert fault.kind == "image_not_readable"
    assert "4096" in fault.detail


def test_a_jpeg_named_png_is_read(tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert open_upright(tmp_path / "a.png").size == (8, 8)


def test_a_camera_file_of_several_pictures_gives_the_first(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 8), "white"), Image.new("RGB", (16, 8), "black")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    read = read_picture(tmp_path / "a.jpg", 16, 8)
    assert read.shape == (8, 16, 3)
    assert read.min() == 255


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (3, 200)])
def test_a_picture_of_one_pixel_fills_any_size_with_its_colour(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", (1, 1), (9, 80, 200)).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png", *size)
    assert read.shape == (size[1], size[0], 3)
    assert (read == (9, 80, 200)).all()


def test_a_wide_picture_is_cropped_left_and_right_alike(tmp_path: Path) -> None:
    pixels = noise(20, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 8, 8), pixels[:, 6:14])


def test_a_tall_picture_is_cropped_top_and_bottom_alike(tmp_path: Path) -> None:
    pixels = noise(8, 20)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 8, 8), pixels[6:14])


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    rows, columns = np.indices((64, 64))
    board = np.where((rows + columns) % 2 == 0, 255, 0).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png", 8, 8).astype(int)
    assert np.abs(read - 127.5).max() < 3  # sampling single pixels would give 0 or 255


@settings(max_examples=60, deadline=None)
@given(
    source=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    wanted=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_every_size_can_be_made_from_every_size_without_borders(
    tmp_path_factory: pytest.TempPathFactory, source: tuple[int, int], wanted: tuple[int, int]
) -> None:
    path = tmp_path_factory.mktemp("size") / "a.png"
    Image.new("RGB", source, (200, 100, 50)).save(path)
    read = read_picture(path, *wanted)
    assert read.shape == (wanted[1], wanted[0], 3)
    assert (read == (200, 100, 50)).all()  # a border or a missing strip would differ


def test_orientation_is_applied_before_the_crop(tmp_path: Path) -> None:
    pixels = noise(24, 10)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif(8))
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(pixels, 1)))
    expected = np.asarray(ImageOps.fit(turned, (10, 12), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 10, 12), expected)


def test_reading_leaves_pillows_global_switches_alone(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 50)).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[:-200])
    fault_of(tmp_path / "a.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
