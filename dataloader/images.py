"""Image decoding: by content, never by extension, never half an image, and never turned: pixels as they are stored.

Poses, calibration and labels belong to the stored pixels, so the EXIF orientation is not applied (COLMAP's convention).
Pillow decodes: it refuses what is truncated and leaves the orientation alone, in JPEG and PNG alike.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

_JPEG_START, _PNG_START = b"\xff\xd8", b"\x89PNG"
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
# Pillow turns TIFF files, and them only, by their orientation while it decodes; these turn them back.
_TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# Modes of one 16-bit channel; Pillow itself keeps the high byte of other 16-bit images.
_GREY_16 = ("I;16", "I;16L", "I;16B")
# 32 bits per channel: nothing says which value is white.
_UNBOUNDED = ("I", "F")


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image: stored size in pixels, and the EXIF orientation (1 when there is none)."""

    width: int
    height: int
    orientation: int

    @property
    def is_turned_sideways(self) -> bool:
        """Whether a viewer that obeys the orientation shows width and height exchanged."""
        return 5 <= self.orientation <= 8


def decode_image(path: Path) -> np.ndarray:
    """Decodes a file to uint8 RGB [H, W, 3], as stored.

    Grey, palette, CMYK and images with alpha become RGB (alpha is dropped); 16 bits per channel become 8 by their range:
    the high byte, so that 65535 is 255.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, a truncated one, or one with 32 bits per channel.
    """
    with _opened(path) as image:
        if image.format != "TIFF":
            return _as_rgb(image)
        turn = _TURNED_BACK.get(_orientation(image))
        image.load()
        return _as_rgb(image if turn is None else image.transpose(turn))


def read_header(path: Path) -> ImageHeader:
    """Size and orientation of an image without decoding it; raises as `decode_image` does."""
    with _opened(path) as image:
        width, height = image.size
        header = ImageHeader(width, height, _orientation(image))
        # Pillow's size of a TIFF file is the turned one.
        return (
            replace(header, width=height, height=width) if image.format == "TIFF" and header.is_turned_sideways else header
        )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 of an opened image; 1 when it has none, or one that does not exist."""
    orientation = image.getexif().get(_EXIF_ORIENTATION)
    return orientation if orientation in range(1, 9) else _UPRIGHT


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image opened from a file; whatever Pillow finds wrong with it becomes one ValueError that names the file."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"image not found: {path}") from None
    if data.startswith(_JPEG_START):
        # An interrupted copy may have its full length, the rest zeros: a JPEG decoder makes grey of them without a word.
        data = data.rstrip(b"\0")
    try:
        if data.startswith(_PNG_START):
            # The decoder itself looks at no checksum.
            Image.open(io.BytesIO(data)).verify()
        with Image.open(io.BytesIO(data)) as image:
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"cannot decode image {path}: of no known format, or damaged") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot decode image {path}: {error}") from None


def _as_rgb(image: Image.Image) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an opened image."""
    # Pillow before 11 opens a grey 16-bit PNG as 32-bit integers.
    if image.mode in _GREY_16 or (image.mode == "I" and image.format == "PNG"):
        grey_HW = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey_HW[..., None], 3, axis=2)
    if image.mode in _UNBOUNDED:
        raise ValueError(f"{image.format} with 32 bits per channel (convert it to 8 or 16 bits)")
    return np.array(image.convert("RGB"))


def resized_shape(height_px: int, width_px: int, shorter_side_px: int) -> tuple[int, int]:
    """Height and width after scaling the shorter side to `shorter_side_px`."""
    scale = shorter_side_px / min(height_px, width_px)
    return round(height_px * scale), round(width_px * scale)


def resize_image(image_HW3: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Resizes with an area filter downwards (no aliasing) and bilinear upwards."""
    H, W = image_HW3.shape[:2]
    if (height_px, width_px) == (H, W):
        return image_HW3
    shrinks = height_px <= H and width_px <= W
    return cv2.resize(image_HW3, (width_px, height_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
