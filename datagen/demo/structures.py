"""What stands on the ground: bridge, buildings, cars and trees, raised in the surface and painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datagen.demo import palette
from datagen.demo.layout import RIVER_HALF_WIDTH, ROAD_HALF_WIDTH, Building, Layout
from datagen.demo.noise import smoothstep
from datagen.demo.paint import rotated
from datagen.demo.settings import BRIDGE, BUILDING, UNCLASSIFIED, VEGETATION
from datagen.demo.terrain import Canvas, Fields

CAR_HALF_LENGTH, CAR_HALF_WIDTH, CAR_HEIGHT = 2.3, 0.95, 1.5


@dataclass
class Scene:
    """The rasters being built, changed in place: heights above datum, reflectance and LAS codes on one canvas."""

    canvas: Canvas
    ground_HW: np.ndarray
    surface_HW: np.ndarray
    colour_HW3: np.ndarray
    codes_HW: np.ndarray

    def ground_at(self, x: float, y: float) -> float:
        """Ground height under a point, clipped to the raster."""
        column, row = self.canvas.pixels(np.array([[x, y]]))[0]
        last = self.canvas.size - 1
        return float(self.ground_HW[int(np.clip(row, 0, last)), int(np.clip(column, 0, last))])


def raise_bridge(scene: Scene, fields: Fields) -> None:
    """Carry the main road over the river on a slightly arched deck with light parapets."""
    half, curve = ROAD_HALF_WIDTH["main"] + 0.9, fields.road_curve
    inside = ((curve > 0.5) & (curve < scene.canvas.size * scene.canvas.texel - 0.5)).all(axis=1)
    curve = curve[inside]
    columns, rows = np.clip(scene.canvas.pixels(curve).astype(int), 0, scene.canvas.size - 1).T
    over = np.flatnonzero(fields.river[rows, columns] < RIVER_HALF_WIDTH + 5.0)
    if len(over) < 2:
        return
    span = curve[over[0] : over[-1] + 1]
    ends = scene.ground_at(*span[0]), scene.ground_at(*span[-1])
    axis = (span[-1] - span[0]) / np.linalg.norm(span[-1] - span[0])
    length = float(np.linalg.norm(span[-1] - span[0]))
    along_HW, _ = rotated(scene.canvas, (slice(0, scene.canvas.size),) * 2, *span[0], np.arctan2(axis[1], axis[0]))
    share_HW = along_HW / length
    deck_HW = (fields.roads["main"] < half) & (share_HW >= 0.0) & (share_HW <= 1.0)
    share = share_HW[deck_HW]
    rise = 1.4
    scene.surface_HW[deck_HW] = ends[0] + share * (ends[1] - ends[0]) + 0.4 + rise * 4 * share * (1 - share)
    edge = smoothstep(half - 0.9, half - 0.6, fields.roads["main"][deck_HW])[:, None]
    asphalt = 0.5 * (palette.CONCRETE + palette.ROAD_SUMMER["main"])
    scene.colour_HW3[deck_HW] = asphalt + edge * (palette.CONCRETE + 0.12 - asphalt)
    scene.codes_HW[deck_HW] = BRIDGE


def raise_buildings(scene: Scene, layout: Layout) -> None:
    """Put up every building: ridge, flat or tower roof, tiles, a facade where the surface drops, solar panels."""
    for building in layout.buildings:
        window = scene.canvas.window(building.x, building.y, np.hypot(building.half_a, building.half_b) + 1.0)
        if window is not None:
            _raise_building(scene, building, window)


def _raise_building(scene: Scene, b: Building, window: tuple[slice, slice]) -> None:
    a, across = rotated(scene.canvas, window, b.x, b.y, b.angle)
    inside = np.minimum(b.half_a - np.abs(a), b.half_b - np.abs(across))
    roof = inside > 0.0
    base = scene.ground_at(b.x, b.y)
    share = np.maximum(np.abs(a) / b.half_a, np.abs(across) / b.half_b) if b.tower else np.abs(across) / b.half_b
    height = base + b.eave + (b.ridge - b.eave) * np.broadcast_to(1.0 - share, roof.shape)
    scene.surface_HW[window][roof] = height[roof]
    scene.codes_HW[window][roof] = BUILDING

    colour = np.broadcast_to(palette.ROOFS[b.roof] * (1.0 + b.tint), (*roof.shape, 3)).copy()
    tiles = 1.0 + (
        0.05 * np.sin(2 * np.pi * across / 0.9) if b.ridge > b.eave else 0.04 * np.sign(np.sin(2 * np.pi * a / 5.0))
    )
    colour *= (tiles * np.where(np.abs(across) < 0.3, 1.12, 1.0) * np.where(inside < 0.45, 0.86, 1.0))[..., None]
    if b.solar:
        panel = (np.abs(a) < 0.55 * b.half_a) & (np.abs(across - 0.5 * b.half_b) < 0.28 * b.half_b)
        colour[panel] = palette.SOLAR
    chimney = (np.abs(a - 0.45 * b.half_a) < 0.5) & (np.abs(across - 0.3 * b.half_b) < 0.5) & (b.half_a < 9.0)
    colour[chimney] = (0.30, 0.25, 0.23)
    scene.surface_HW[window][chimney & roof] += 1.2
    target = scene.colour_HW3[window]
    facade = (inside > -0.5) & (inside < 0.28)
    target[roof] = colour[roof]
    target[facade] = palette.WALL


def raise_cars(scene: Scene, layout: Layout) -> None:
    """Park and drive the cars; they are 'unclassified'."""
    for x, y, angle, colour in layout.cars_N4:
        window = scene.canvas.window(x, y, 3.0)
        if window is None:
            continue
        along, across = rotated(scene.canvas, window, x, y, angle)
        body = (np.abs(along) < CAR_HALF_LENGTH) & (np.abs(across) < CAR_HALF_WIDTH)
        cabin = body & (np.abs(along + 0.3) < 1.3)
        glass = body & (np.abs(np.abs(along + 0.3) - 1.3) < 0.3)
        surface = scene.surface_HW[window]
        surface[body] += np.where(cabin[body], CAR_HEIGHT, 0.6 * CAR_HEIGHT).astype(np.float32)
        scene.colour_HW3[window][body] = palette.CARS[int(colour)]
        scene.colour_HW3[window][glass] = (0.12, 0.14, 0.17)
        scene.codes_HW[window][body] = UNCLASSIFIED


def grow_trees(scene: Scene, layout: Layout, autumn: float) -> None:
    """Grow the crowns, lobed domes lighter at the top; where crowns meet the higher one shows."""
    colours_N3 = palette.tree_colours(layout.trees_N5[:, 4], autumn)
    for (x, y, radius, height, tint), colour in zip(layout.trees_N5, colours_N3):
        window = scene.canvas.window(x, y, 1.3 * radius)
        if window is None:
            continue
        x_1W, y_H1 = scene.canvas.metres(window)
        dx, dy = x_1W - x, y_H1 - y
        bearing = np.arctan2(dy, dx)
        lobes = 1.0 + 0.13 * np.sin(3 * bearing + 7 * tint) + 0.09 * np.sin(7 * bearing + 11 * tint)
        away = np.hypot(dx, dy) / (radius * lobes)
        dome = np.sqrt(np.clip(1.0 - away**2, 0.0, 1.0))
        top = scene.ground_at(x, y) + height * (0.40 + 0.60 * dome)
        crown = (away < 1.0) & (top > scene.surface_HW[window])
        scene.surface_HW[window][crown] = top[crown]
        light = 0.62 + 0.50 * dome + 0.08 * np.sin(5.1 * dx + tint) * np.sin(4.3 * dy - tint)
        scene.colour_HW3[window][crown] = (colour * light[..., None])[crown]
        scene.codes_HW[window][crown] = VEGETATION
