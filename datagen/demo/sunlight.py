"""Sun and sky light on a surface raster: cast shadows by ray casting, slopes, and dimmer hollows."""

from __future__ import annotations

import cv2
import numpy as np

from datagen.demo.settings import Season
from datagen.raycast import RayCaster, height_mesh

SKY_TINT = np.array([0.90, 0.98, 1.12], dtype=np.float32)
# Shadow rays start this far above the surface, so that a cell does not shade itself.
_LIFT_M = 0.08


def sun_direction(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    """Unit vector towards the sun, east-north-up; azimuth clockwise from north."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    return np.array([np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])


def cast_shadows(surface_hw: np.ndarray, cell: float, to_sun_3: np.ndarray) -> np.ndarray:
    """Which cells of a north-up surface the sun does not reach.

    Args:
        surface_hw: heights, metres.
        cell: cell size, metres.
        to_sun_3: unit vector towards the sun, east-north-up, above the horizon.
    Returns:
        bool [h, w]
    """
    rows, columns = surface_hw.shape
    x_w, y_h = np.arange(columns) * cell, -np.arange(rows) * cell
    caster = RayCaster(*height_mesh(x_w, y_h, surface_hw))
    start_hw3 = np.stack([*np.broadcast_arrays(x_w[None], y_h[:, None]), surface_hw + _LIFT_M], axis=-1)
    rays_hw3 = np.broadcast_to(to_sun_3, start_hw3.shape)
    return caster.cast(start_hw3.reshape(-1, 3), rays_hw3.reshape(-1, 3)).hit_N.reshape(rows, columns)


def sunlight(surface_hw: np.ndarray, cell: float, season: Season) -> np.ndarray:
    """Light on every surface cell, about 1 on level sunlit ground: float32 [h, w, 3]."""
    to_sun_3 = sun_direction(season.sun_azimuth_deg, season.sun_elevation_deg)
    lit_hw = 1.0 - cv2.GaussianBlur(cast_shadows(surface_hw, cell, to_sun_3).astype(np.float32), (0, 0), 0.7)
    down_hw, east_hw = np.gradient(cv2.GaussianBlur(surface_hw, (0, 0), 0.6), cell)
    facing_hw = (-east_hw * to_sun_3[0] + down_hw * to_sun_3[1] + to_sun_3[2]) / np.sqrt(1.0 + east_hw**2 + down_hw**2)
    direct_hw = np.clip(facing_hw / to_sun_3[2], 0.15, 1.6) * lit_hw
    hollow_hw = np.clip(cv2.GaussianBlur(surface_hw, (0, 0), 2.5 / cell) - surface_hw, 0.0, 4.0)
    sky_hw = 1.0 - 0.09 * hollow_hw
    s = season.shadow_strength
    tint_3 = np.array(season.sun_tint, np.float32)
    sky_3 = 1.0 + s * (SKY_TINT - 1.0)
    return ((1.0 - s) * sky_hw[..., None] * sky_3 + s * direct_hw[..., None] * tint_3).astype(np.float32)
