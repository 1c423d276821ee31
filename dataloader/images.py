"""Image decoding: by content, never by extension, and never half an image."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode_image(path: Path) -> np.ndarray:
    """Decodes a file to uint8 RGB [H, W, 3]; grey and RGBA become RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image, or a truncated one.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"image not found: {path}") from None
    if data.startswith(_PNG_SIGNATURE):
        return _decode_png(data, path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"cannot decode image {path}: {error}") from None


def _decode_png(data: bytes, path: Path) -> np.ndarray:
    # OpenCV returns the top of a truncated PNG without an error, so look for its end marker first.
    if b"IEND" not in data[-16:]:
        raise ValueError(f"cannot decode image {path}: the PNG file is truncated")
    image_bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image_bgr is None:
        raise ValueError(f"cannot decode image {path}: damaged PNG data")
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB, dst=image_bgr)


def resized_shape(height_px: int, width_px: int, shorter_side_px: int) -> tuple[int, int]:
    """Height and width after scaling the shorter side to `shorter_side_px`."""
    scale = shorter_side_px / min(height_px, width_px)
    return max(1, round(height_px * scale)), max(1, round(width_px * scale))


def resize_image(image_HW3: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Resizes with an area filter downwards (no aliasing) and bilinear upwards."""
    H, W = image_HW3.shape[:2]
    if (H, W) == (height_px, width_px):
        return image_HW3
    shrinks = height_px <= H and width_px <= W
    return cv2.resize(image_HW3, (width_px, height_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
