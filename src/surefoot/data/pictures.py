"""Read a picture file into upright 8-bit RGB pixels of a wanted size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from PIL import ExifTags, Image, ImageCms, ImageOps

from surefoot.data.variations import PLAIN, Variation

if TYPE_CHECKING:
    from pathlib import Path

    # Loaded where it is used: a check, which is to be quick, needs the sizes alone.
    import numpy as np

PictureFault = Literal[
    "image_empty",
    "image_truncated",
    "image_damaged",
    "image_not_readable",
    "image_mode_unsupported",
    "image_profile_unusable",
]

# Only these decoders may look at a file: Pillow also knows formats that start other programs
# (EPS runs Ghostscript). "JPEG" includes the multi-picture files of cameras (MPO).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")

_EIGHT_BIT_MODES = frozenset(
    ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")
)

# EXIF 2.32, tag 0x0112: what turns the stored pixels upright. 1 and unknown values: nothing.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(ValueError):
    """A picture that cannot be read as it should.

    Attributes:
        kind: what is wrong, as a code.
        path: the file.
        detail: a short technical fact, or "".
    """

    def __init__(self, kind: PictureFault, path: Path, detail: str) -> None:
        """Keep what is wrong, and with which file."""
        super().__init__(f"{path}: {kind}: {detail}")
        self.kind: PictureFault = kind
        self.path = path
        self.detail = detail


def open_upright(path: Path) -> Image.Image:
    """Decode a whole picture file to upright 8-bit RGB; its `size` is (width, height) as seen.

    EXIF orientation is applied, transparency is laid on white, CMYK goes through its embedded
    profile, and 16-bit greyscale is scaled to 8 bits. Of an animation the first picture is taken.

    Raises:
        PictureError: the file is empty, cut short, damaged, not a picture, too large to be
            trusted (Pillow's decompression bomb limit), or in a mode with no certain meaning.
    """
    data = _read_bytes(path)
    # Pillow's decoders raise almost any type on a damaged file (struct.error, KeyError, ...);
    # each of them must end as a named file, so the two handlers below are broad on purpose.
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except MemoryError:
        raise
    except Exception as error:
        raise _fault("image_not_readable", path, data, error) from error
    try:
        image.load()  # before the orientation is asked for: TIFF turns itself while loading
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception as error:
        raise _fault("image_damaged", path, data, error) from error
    picture = _to_rgb(image, path)
    if orientation in _TURNS:
        return picture.transpose(_TURNS[orientation])
    return picture


def read_picture(path: Path, width: int, height: int, variation: Variation = PLAIN) -> np.ndarray:
    """Read a picture, scaled to cover width x height (Lanczos, antialiased) and cropped.

    Args:
        path: the file.
        width: of what is kept, in pixels.
        height: of what is kept.
        variation: where it is cropped, if not at the centre, and its colours.

    Returns:
        Pixels (height, width, 3), uint8, RGB; writable and owned by the caller.

    Raises:
        PictureError: as `open_upright`.
    """
    import numpy as np

    picture = ImageOps.fit(
        open_upright(path),
        (width, height),
        Image.Resampling.LANCZOS,
        centering=(variation.across, variation.down),
    )
    return np.array(variation.coloured(picture))


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError("image_not_readable", path, error.strerror or str(error)) from error
    if not data:
        raise PictureError("image_empty", path, "0 bytes")
    return data


def _fault(kind: PictureFault, path: Path, data: bytes, error: Exception) -> PictureError:
    """Name a decoder's failure, telling a file that ends early from other damage."""
    if isinstance(error, EOFError) or "truncated" in str(error).lower() or _ends_early(data):
        return PictureError("image_truncated", path, f"{len(data)} bytes")
    if isinstance(error, Image.UnidentifiedImageError):
        # Pillow's own words hold the address of a buffer; the first bytes tell what it is.
        return PictureError(kind, path, f"starts with {data[:8].hex(' ')}")
    return PictureError(kind, path, str(error) or type(error).__name__)


def _ends_early(data: bytes) -> bool:
    """Whether a WebP or TIFF file is shorter than it says itself; their decoders do not tell."""
    if data[:4] == b"RIFF":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    order = "little" if data[:2] == b"II" else "big"
    # TIFF 6.0, section 2: the directory, often last in the file, is a count, as many entries of
    # 12 bytes, and the place of the next directory.
    directory = int.from_bytes(data[4:8], order)
    entries = int.from_bytes(data[directory : directory + 2], order)
    return directory + 2 + 12 * entries + 4 > len(data)


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image, path)
    if image.mode == "CMYK":
        return _from_cmyk(image, path)
    if image.mode not in _EIGHT_BIT_MODES:
        # Floating point and Lab: where black and white lie is not in the file.
        raise PictureError("image_mode_unsupported", path, image.mode)
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _from_16_bits(image: Image.Image, path: Path) -> Image.Image:
    """Scale 0..65535 to 0..255, rounded; Pillow's own conversion clips at 255."""
    import numpy as np

    values = np.asarray(image).astype(np.int64)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise PictureError("image_mode_unsupported", path, f"values {lowest} to {highest}")
    grey = ((values + 128) // 257).astype(np.uint8)  # 65535 = 257 * 255
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # PNG tRNS: this one grey value is transparent
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_cmyk(image: Image.Image, path: Path) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        screen = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))  # pyright: ignore
        converted = ImageCms.profileToProfile(image, inks, screen, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise PictureError("image_profile_unusable", path, str(error)) from error
    assert converted is not None  # only in-place conversion returns nothing
    return converted
