"""Canvas, distance fields and the bare ground of the demo landscape."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.demo.layout import RIVER_HALF_WIDTH, Layout
from datagen.demo.noise import fractal_noise, smoothstep

RIVER_FALL = 0.006


@dataclass(frozen=True)
class Canvas:
    """A north-up square raster over the scene: `size` pixels a side, each `texel` metres."""

    size: int
    texel: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.size, self.size

    def pixels(self, points_N2: np.ndarray) -> np.ndarray:
        """Continuous (column, row) of local metric points; pixel index i covers [i, i + 1)."""
        return np.stack([points_N2[:, 0] / self.texel, self.size - points_N2[:, 1] / self.texel], axis=1)

    def metres(self, window: tuple[slice, slice] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Local x as a row [1, W] and y as a column [H, 1] of the pixel centres, of a window (rows, columns) or all."""
        rows, columns = window or (slice(0, self.size), slice(0, self.size))
        x_1W = (np.arange(columns.start, columns.stop, dtype=np.float32)[None] + 0.5) * self.texel
        y_H1 = (self.size - np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - 0.5) * self.texel
        return x_1W, y_H1

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice] | None:
        """Rows and columns that cover a square of +-`reach` metres about a point, clipped; None when outside."""
        column, row = x / self.texel, self.size - y / self.texel
        half = reach / self.texel + 1.0
        rows = slice(max(int(row - half), 0), min(int(row + half) + 1, self.size))
        columns = slice(max(int(column - half), 0), min(int(column + half) + 1, self.size))
        return (rows, columns) if rows.stop > rows.start and columns.stop > columns.start else None

    def distance_to(self, curves: tuple[np.ndarray, ...]) -> np.ndarray:
        """Distance of every pixel to the nearest of the polylines [N, 2], metres, float32 [size, size]."""
        margin = 64
        free = np.full((self.size + 2 * margin,) * 2, 255, np.uint8)
        for curve in curves:
            points = np.round(self.pixels(curve) + margin - 0.5).astype(np.int32)
            cv2.polylines(free, [points], isClosed=False, color=0)
        # Squared distances are whole numbers; the last bit of OpenCV's roots depends on where in memory they happen to lie.
        rough = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        distance = np.sqrt(np.rint(rough.astype(np.float64) ** 2)).astype(np.float32)
        return distance[margin:-margin, margin:-margin] * self.texel


@dataclass(frozen=True)
class Fields:
    """Distance fields of the layout on a canvas, metres; `pond` is below 1 inside the pond, 1 on its shore."""

    river: np.ndarray
    pond: np.ndarray
    roads: dict[str, np.ndarray]
    road_curve: np.ndarray
    water: np.ndarray
    east: np.ndarray


def distance_fields(layout: Layout, canvas: Canvas) -> Fields:
    """Distances to river, pond and roads for every pixel."""
    x_1W, y_H1 = canvas.metres()
    px, py, pa, pb = layout.pond_xyab
    river = canvas.distance_to((layout.river_N2,))
    angle = np.arctan2((y_H1 - py) / pb, (x_1W - px) / pa)
    shore = 1.0 + 0.12 * np.sin(3 * angle + 1) + 0.07 * np.sin(5 * angle)
    pond = (np.hypot((x_1W - px) / pa, (y_H1 - py) / pb) / shore).astype(np.float32)
    roads = {kind: canvas.distance_to(curves) for kind, curves in layout.roads.items()}
    return Fields(
        river=river,
        pond=pond,
        roads=roads,
        road_curve=layout.roads["main"][0],
        water=(river < RIVER_HALF_WIDTH) | (pond < 1.0),
        east=x_1W > np.interp(y_H1, layout.river_N2[:, 1], layout.river_N2[:, 0]),
    )


def ground_heights(layout: Layout, fields: Fields, canvas: Canvas, relief: float, rng: np.random.Generator) -> np.ndarray:
    """Bare-ground heights above the datum, metres, float32 [size, size]; water is level across and falls northwards."""
    x_1W, y_H1 = canvas.metres()
    extent = layout.extent
    hills = relief * fractal_noise(rng, canvas.shape, 0.42 * extent / canvas.texel, octaves=3, gain=0.42)
    hills -= hills.mean()
    hills += (
        2.2 * relief * np.exp(-(((x_1W - 0.13 * extent) ** 2 + (y_H1 - 0.72 * extent) ** 2) / (2 * (0.17 * extent) ** 2)))
    )
    hills += (
        1.5 * relief * np.exp(-(((x_1W - 0.97 * extent) ** 2 + (y_H1 - 0.2 * extent) ** 2) / (2 * (0.16 * extent) ** 2)))
    )
    hills += 0.12 * fractal_noise(rng, canvas.shape, 7.0 / canvas.texel, octaves=2)
    level_H1 = -0.35 * relief - RIVER_FALL * (y_H1 - 0.5 * extent)
    meadow = level_H1 + 1.5 + 0.3 * (hills + 0.35 * relief)
    land = 2.0 * np.logaddexp(meadow / 2.0, hills / 2.0)
    valley = smoothstep(0.0, 75.0, fields.river - RIVER_HALF_WIDTH)
    ground = level_H1 + 1.6 + valley * (land - level_H1 - 1.6)
    ground = level_H1 + smoothstep(0.0, 5.0, fields.river - RIVER_HALF_WIDTH) * (ground - level_H1)
    pond_level = float(np.percentile(ground[fields.pond < 1.3], 35)) - 0.3
    ground = pond_level + smoothstep(1.0, 3.6, fields.pond) * (ground - pond_level)
    return ground.astype(np.float32)
