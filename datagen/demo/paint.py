"""What lies on the ground: fields, water, roads, painted as reflectance without light."""

from __future__ import annotations

import cv2
import numpy as np

from datagen.demo import palette
from datagen.demo.layout import RIVER_HALF_WIDTH, ROAD_HALF_WIDTH, Layout
from datagen.demo.noise import fractal_noise, smoothstep, value_noise
from datagen.demo.terrain import Canvas, Fields


def _cover(image_HW3: np.ndarray, colour, alpha_HW: np.ndarray) -> None:
    """Lay a colour ([3] or [H, W, 3]) over the image in place, as opaque as alpha says."""
    alpha_HW1 = alpha_HW[..., None].astype(np.float32)
    image_HW3 += alpha_HW1 * (colour - image_HW3)


def paint_ground(layout: Layout, fields: Fields, canvas: Canvas, autumn: float, rng: np.random.Generator) -> np.ndarray:
    """Reflectance of fields, banks, water, roads, parking and gardens.

    The draws from `rng` do not depend on `autumn`: the same soil, stains and tracks show in both seasons.

    Returns:
        float32 [size, size, 3] in 0..1 (about)
    """
    image_HW3 = _paint_parcels(layout, fields, canvas, autumn, rng)
    grain_HW = fractal_noise(rng, canvas.shape, 1.2 / canvas.texel, octaves=2)
    patches_HW = fractal_noise(rng, canvas.shape, 11.0 / canvas.texel, octaves=3)
    _paint_gardens(image_HW3, layout, canvas, autumn, patches_HW)
    bank = palette.blend(palette.BANK_SUMMER, palette.BANK_AUTUMN, autumn)
    _cover(image_HW3, bank, smoothstep(15.0, 9.0, fields.river + 2.5 * patches_HW))
    _cover(image_HW3, bank, smoothstep(1.5, 1.15, fields.pond + 0.08 * patches_HW))
    image_HW3 *= (1.0 + 0.05 * grain_HW + 0.05 * patches_HW)[..., None]
    _paint_roads(image_HW3, layout, fields, canvas, autumn, grain_HW, patches_HW)
    _paint_water(image_HW3, fields, canvas, autumn, patches_HW, rng)
    return image_HW3


def _paint_parcels(layout, fields, canvas, autumn, rng) -> np.ndarray:
    index_HW = _parcel_index(layout, fields, canvas, rng)
    parcels = layout.parcels
    kinds_P = np.array([p.kind for p in parcels])
    colours_P3 = palette.blend(palette.PARCEL_SUMMER, palette.PARCEL_AUTUMN, autumn)[kinds_P]
    colours_P3 = colours_P3 + np.stack([p.tint for p in parcels]).astype(np.float32) * np.array([1.0, 1.0, 0.8], np.float32)
    rows_P = palette.blend(palette.ROWS_SUMMER, palette.ROWS_AUTUMN, autumn)[kinds_P]
    angle_P = np.array([p.row_angle for p in parcels], np.float32)
    period_P = np.array([p.row_period for p in parcels], np.float32)
    image_HW3 = colours_P3.astype(np.float32)[index_HW]

    x_1W, y_H1 = canvas.metres()
    across_HW = x_1W * -np.sin(angle_P)[index_HW] + y_H1 * np.cos(angle_P)[index_HW]
    stain_HW = fractal_noise(rng, canvas.shape, 26.0 / canvas.texel, octaves=4, gain=0.6)
    fade_HW = value_noise(rng, canvas.shape, 40.0 / canvas.texel)
    wave_HW = np.sin(2 * np.pi * across_HW / period_P[index_HW])
    tracks_HW = smoothstep(0.55, 0.25, np.abs(np.abs((across_HW % 15.0) - 7.5) - 0.9))
    light_HW = 1.0 + rows_P[index_HW] * wave_HW * (0.75 + 0.25 * fade_HW) + 0.11 * stain_HW - 0.10 * tracks_HW
    image_HW3 *= light_HW[..., None]
    hue_HW = value_noise(rng, canvas.shape, 55.0 / canvas.texel)
    image_HW3 += hue_HW[..., None] * np.array([0.030, -0.006, -0.020], np.float32)
    return image_HW3


def _parcel_index(layout, fields, canvas, rng) -> np.ndarray:
    """Which parcel each pixel belongs to; borders wander by a few metres."""
    sides = []
    for side in (0, 1):
        index_HW = np.zeros(canvas.shape, np.int16)
        for i, parcel in enumerate(layout.parcels):
            if parcel.side == side:
                cv2.fillConvexPoly(index_HW, np.round(canvas.pixels(parcel.corners) - 0.5).astype(np.int32), i)
        sides.append(index_HW)
    index_HW = np.where(fields.east, sides[1], sides[0]).astype(np.float32)
    shift = [1.8 / canvas.texel * value_noise(rng, canvas.shape, 34.0 / canvas.texel) for _ in range(2)]
    grid = np.arange(canvas.size, dtype=np.float32)
    warped = cv2.remap(
        index_HW, grid[None] + shift[0], grid[:, None] + shift[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return warped.astype(np.int16)


def _paint_gardens(image_HW3, layout, canvas, autumn, patches_HW) -> None:
    """Lawn about the houses, gravel on the farms' yards and the parking."""
    lawn = palette.blend(palette.LAWN_SUMMER, palette.LAWN_AUTUMN, autumn)
    x, y, a, b = layout.parking_xyab
    lots = [
        (h.x, h.y, h.angle, h.half_a + 5.5, h.half_b + 5.5, palette.GRAVEL if h.half_a > 8.9 else lawn)
        for h in layout.buildings
    ]
    for x0, y0, angle, half_a, half_b, colour in (*lots, (x, y, 0.0, a, b, palette.ROAD_SUMMER["main"])):
        window = canvas.window(x0, y0, np.hypot(half_a, half_b))
        if window is None:
            continue
        along, across = rotated(canvas, window, x0, y0, angle)
        inside = np.minimum(half_a - np.abs(along), half_b - np.abs(across))
        _cover(image_HW3[window], colour * (1.0 + 0.06 * patches_HW[window][..., None]), smoothstep(-0.3, 0.3, inside))


def rotated(
    canvas: Canvas, window: tuple[slice, slice], x0: float, y0: float, angle: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along and across a direction about a point, for a window's pixel centres, metres."""
    x_1W, y_H1 = canvas.metres(window)
    dx, dy = x_1W - x0, y_H1 - y0
    return dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)


def _paint_roads(image_HW3, layout, fields, canvas, autumn, grain_HW, patches_HW) -> None:
    edge = max(0.25, canvas.texel)
    for kind in ("track", "lane", "main"):
        distance_HW, half = fields.roads[kind], ROAD_HALF_WIDTH[kind]
        colour = palette.blend(palette.ROAD_SUMMER[kind], palette.ROAD_AUTUMN[kind], autumn)
        worn_HW1 = (1.0 + 0.035 * grain_HW + 0.05 * patches_HW)[..., None]
        if kind == "track":
            alpha_HW = smoothstep(0.5, 0.3, np.abs(distance_HW - 0.75)) * 0.9
        else:
            alpha_HW = smoothstep(half + edge, half - edge, distance_HW)
            _cover(image_HW3, palette.GRAVEL, 0.7 * smoothstep(half + 0.9, half + 0.5, distance_HW))
        _cover(image_HW3, colour * worn_HW1, alpha_HW)
        if kind == "main":
            _cover(image_HW3, palette.CONCRETE + 0.2, 0.6 * smoothstep(0.22, 0.1, distance_HW))


def _paint_water(image_HW3, fields, canvas, autumn, patches_HW, rng) -> None:
    ripples_HW = fractal_noise(rng, canvas.shape, 3.0 / canvas.texel, octaves=2)
    flow_HW = value_noise(rng, canvas.shape, 30.0 / canvas.texel)
    water = palette.blend(palette.WATER_SUMMER, palette.WATER_AUTUMN, autumn)
    depth_HW = np.maximum(1.0 - fields.river / RIVER_HALF_WIDTH, 1.0 - fields.pond)
    shade_HW = 1.22 - 0.4 * np.clip(depth_HW, 0, 1) + 0.05 * ripples_HW + 0.10 * flow_HW + 0.04 * patches_HW
    alpha_HW = np.maximum(
        smoothstep(RIVER_HALF_WIDTH + canvas.texel, RIVER_HALF_WIDTH - canvas.texel, fields.river),
        smoothstep(1.01, 0.99, fields.pond),
    )
    _cover(image_HW3, water * shade_HW[..., None], alpha_HW)
