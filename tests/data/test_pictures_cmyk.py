"""Reading CMYK: with and without a profile, and in Adobe's YCCK form."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageCms

from surefoot.data.pictures import PictureError, open_upright

if TYPE_CHECKING:
    from pathlib import Path

JPEG_FLAT_COLOUR = 2  # a constant JPEG at quality 100 is exact but for YCbCr rounding


def cmyk_jpeg(path: Path, inks: tuple[int, int, int, int], profile: bytes = b"") -> None:
    image = Image.new("CMYK", (16, 16), inks)
    if profile:
        image.save(path, quality=100, icc_profile=profile)
    else:
        image.save(path, quality=100)


def test_cmyk_jpeg_without_profile_is_subtracted_from_white(tmp_path: Path) -> None:
    cmyk_jpeg(tmp_path / "a.jpg", (255, 0, 100, 0))
    read = np.asarray(open_upright(tmp_path / "a.jpg")).astype(int)
    assert np.abs(read - (0, 255, 155)).max() <= JPEG_FLAT_COLOUR


def test_ycck_jpeg_is_understood(tmp_path: Path) -> None:
    inks = np.array((155, 165, 75, 0))
    cmyk_jpeg(tmp_path / "a.jpg", tuple(inks.tolist()))
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    marker = data.index(b"Adobe")
    data[marker + 11] = 2  # the Adobe marker's transform: the same numbers are now Y, Cb, Cr, K
    (tmp_path / "a.jpg").write_bytes(data)
    y, cb, cr, _ = 255 - inks.astype(np.float64)  # JPEGs hold inks inverted
    ink = np.array(  # JFIF 1.02; Adobe's YCC encodes the amount of ink
        (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
         y + 1.772 * (cb - 128))
    )  # fmt: skip
    read = np.asarray(open_upright(tmp_path / "a.jpg")).astype(np.float64)
    assert np.abs(read - (255 - ink)).max() <= JPEG_FLAT_COLOUR


def profile_of_red_cyan() -> bytes:
    """A CMYK profile (ICC.1:2001, lut8) of a press whose cyan ink is red: no guess can hit it."""
    white, black, red = (255, 128, 128), (0, 128, 128), (136, 208, 195)  # Lab as 8 bits
    corners = [
        black if k else (red if c and not m and not y else (white if not (c or m or y) else black))
        for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)
    ]  # fmt: skip
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
        + struct.pack(">9i", *(65536 * one for one in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
        + bytes(range(256)) * 4 + bytes(sum(corners, ())) + bytes(range(256)) * 3
    )  # fmt: skip
    start = 128 + 4 + 12
    header = (
        struct.pack(">I4sI4s4s4s", start + len(table), bytes(4), 0x02400000, b"prtr", b"CMYK",
                    b"Lab ")
        + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
        + struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    )  # fmt: skip
    assert len(header) == 128
    return header + struct.pack(">I4sII", 1, b"A2B0", start, len(table)) + table


def test_cmyk_jpeg_goes_through_its_embedded_profile(tmp_path: Path) -> None:
    cmyk_jpeg(tmp_path / "a.jpg", (255, 0, 0, 0), profile_of_red_cyan())
    red, green, blue = np.asarray(open_upright(tmp_path / "a.jpg"))[8, 8].astype(int)
    assert red > 240
    assert green < 40
    assert blue < 40


def test_cmyk_jpeg_whose_profile_is_for_rgb_is_refused(tmp_path: Path) -> None:
    screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore
    profile = screen.tobytes()
    cmyk_jpeg(tmp_path / "a.jpg", (255, 0, 0, 0), profile)
    with pytest.raises(PictureError) as caught:
        open_upright(tmp_path / "a.jpg")
    assert caught.value.kind == "image_profile_unusable"


def test_cmyk_jpeg_with_a_broken_profile_is_refused(tmp_path: Path) -> None:
    cmyk_jpeg(tmp_path / "a.jpg", (255, 0, 0, 0), b"no profile at all")
    with pytest.raises(PictureError) as caught:
        open_upright(tmp_path / "a.jpg")
    assert caught.value.kind == "image_profile_unusable"
