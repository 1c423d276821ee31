"""What a drone's camera does to a clean render: haze, exposure, colour cast, vignetting, blur, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from datagen.demo.settings import CameraEffects

# Effects in pixels are given for images of this height.
_REFERENCE_HEIGHT_PX = 240
_HAZE = np.array([0.76, 0.79, 0.83], dtype=np.float32)


def photograph(render_HW3: np.ndarray, effects: CameraEffects, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Turn a render into a photo.

    Args:
        render_HW3: uint8 RGB.
        effects: sizes at strength 1.
        strength: 0 returns the render unchanged.
        rng: one stream per image.
    Returns:
        uint8 [H, W, 3]
    """
    if strength <= 0.0:
        return render_HW3.copy()
    scale = render_HW3.shape[0] / _REFERENCE_HEIGHT_PX
    light_HW3 = render_HW3.astype(np.float32) / 255.0
    light_HW3 += np.clip(strength * effects.haze * rng.uniform(0.5, 1.5), 0.0, 0.9) * (_HAZE - light_HW3)
    light_HW3 = 0.42 + (1.0 + strength * effects.contrast * rng.uniform(0.3, 1.0)) * (light_HW3 - 0.42)
    gain_3 = 2.0 ** (
        strength * (effects.exposure_std * rng.standard_normal() + effects.white_balance_std * rng.standard_normal(3))
    )
    light_HW3 *= gain_3.astype(np.float32) * _vignette(render_HW3.shape[:2], strength * effects.vignetting)[..., None]
    light_HW3 = _motion_blur(
        light_HW3, strength * effects.motion_px * scale * rng.uniform(0.3, 1.0), rng.uniform(0.0, np.pi)
    )
    blur = strength * effects.blur_px * scale * rng.uniform(0.6, 1.2)
    light_HW3 = np.clip(cv2.GaussianBlur(light_HW3, (0, 0), blur), 0.0, 1.0)
    noise_HW3 = rng.standard_normal(light_HW3.shape, dtype=np.float32)
    light_HW3 += strength * np.sqrt(effects.shot_noise**2 * light_HW3 + effects.read_noise**2) * noise_HW3
    photo_HW3 = np.round(255.0 * np.clip(light_HW3, 0.0, 1.0)).astype(np.uint8)
    return _jpeg(photo_HW3, round(np.clip(100 - strength * (100 - effects.jpeg_quality), 30, 100)))


def _vignette(shape: tuple[int, int], amount: float) -> np.ndarray:
    """Light fall-off [H, W]: 1 in the middle, 1 - amount in the corners."""
    y_H1 = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)[:, None] * shape[0]
    x_1W = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None] * shape[1]
    return 1.0 - amount * (x_1W**2 + y_H1**2) / (shape[0] ** 2 + shape[1] ** 2)


def _motion_blur(image_HW3: np.ndarray, length_px: float, angle: float) -> np.ndarray:
    """Average along a short line of the given length and direction."""
    size = 2 * int(np.ceil(length_px / 2)) + 1
    if size < 3:
        return image_HW3
    reach = np.arange(size) - size // 2
    along = reach[None] * np.cos(angle) + reach[:, None] * np.sin(angle)
    across = -reach[None] * np.sin(angle) + reach[:, None] * np.cos(angle)
    kernel = np.clip(length_px / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(1.0 - np.abs(across), 0, 1)
    return cv2.filter2D(image_HW3, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def _jpeg(image_HW3: np.ndarray, quality: int) -> np.ndarray:
    """The image after JPEG compression and decoding."""
    encoded, data = cv2.imencode(".jpg", image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"JPEG encoding failed at quality {quality}")
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
