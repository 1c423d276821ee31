"""Where things stand in the demo landscape: river, roads, parcels, buildings, trees and cars, as plain geometry.

Local metric frame: x east, y north, origin at the south-west corner. Nothing here depends on the raster resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

RIVER_HALF_WIDTH = 8.0
ROAD_HALF_WIDTH = {"main": 3.2, "lane": 2.2, "track": 1.4}
NUM_PARCEL_KINDS = 9


@dataclass(frozen=True)
class Building:
    """A box with a roof: `half_a` along the ridge, `half_b` across; flat when eave and ridge are equally high."""

    x: float
    y: float
    angle: float
    half_a: float
    half_b: float
    eave: float
    ridge: float
    roof: int
    tint: float
    solar: bool = False
    tower: bool = False


@dataclass(frozen=True)
class Parcel:
    """One field: its corners [4, 2], what grows on it and in which direction and distance the rows run."""

    corners: np.ndarray
    kind: int
    row_angle: float
    row_period: float
    tint: np.ndarray
    side: int


@dataclass(frozen=True)
class Layout:
    """Everything that stands in the scene; trees are columns x, y, radius, height, tint; cars x, y, angle, colour."""

    extent: float
    river_N2: np.ndarray
    pond_xyab: tuple[float, float, float, float]
    roads: dict[str, tuple[np.ndarray, ...]]
    parcels: tuple[Parcel, ...]
    buildings: tuple[Building, ...]
    trees_N5: np.ndarray
    cars_N4: np.ndarray
    parking_xyab: tuple[float, float, float, float]

    def changed(self, growth: float, moved_cars: float, rng: np.random.Generator) -> Layout:
        """The same place later: trees grown by a share of their size (each its own), a share of the cars elsewhere."""
        trees_N5 = self.trees_N5.copy()
        own_N = 1.0 + growth * rng.uniform(0.4, 1.6, len(trees_N5))
        trees_N5[:, 2] *= np.sqrt(own_N)
        trees_N5[:, 3] *= own_N
        cars_N4 = self.cars_N4.copy()
        elsewhere_N4 = place_cars(rng, self.roads, self.parking_xyab, len(cars_N4))
        moves_N = rng.random(len(cars_N4)) < moved_cars
        cars_N4[moves_N] = elsewhere_N4[moves_N]
        return replace(self, trees_N5=trees_N5, cars_N4=cars_N4)


def make_layout(extent: float, rng: np.random.Generator) -> Layout:
    """Draw the landscape's plan on a square of `extent` metres."""
    river_N2 = _spline([(0.70, -0.05), (0.63, 0.2), (0.71, 0.42), (0.64, 0.62), (0.70, 0.8), (0.61, 1.05)], extent)
    roads = {
        "main": (_spline([(-0.05, 0.42), (0.2, 0.47), (0.42, 0.52), (0.62, 0.50), (0.8, 0.46), (1.05, 0.53)], extent),),
        "lane": (
            _spline([(0.36, -0.05), (0.39, 0.2), (0.33, 0.36), (0.36, 0.505)], extent),
            _spline([(0.45, 0.525), (0.46, 0.66), (0.40, 0.82), (0.43, 1.05)], extent),
            _spline([(0.83, 0.455), (0.85, 0.28), (0.79, 0.13), (0.82, -0.05)], extent),
        ),
        "track": (
            _spline([(0.388, 0.2), (0.26, 0.23), (0.13, 0.17), (-0.05, 0.22)], extent),
            _spline([(0.42, 0.765), (0.3, 0.72), (0.2, 0.76), (0.12, 0.9)], extent),
            _spline([(0.88, 0.475), (0.90, 0.64), (0.84, 0.8), (0.90, 1.05)], extent),
            _spline([(0.385, 0.14), (0.5, 0.13), (0.565, 0.22)], extent),
        ),
    }
    pond = (0.55 * extent, 0.31 * extent, 0.048 * extent, 0.032 * extent)
    parking = (0.52 * extent, 0.565 * extent, 15.0, 9.0)
    avoid_N3 = _obstacles(river_N2, roads, pond, parking)
    parcels = (*_parcels(extent, 0.32, 0, rng), *_parcels(extent, -0.42, 1, rng))
    buildings = _buildings(extent, roads, avoid_N3, rng)
    trees_N5 = _trees(extent, river_N2, parcels, buildings, avoid_N3, rng)
    return Layout(
        extent=extent,
        river_N2=river_N2,
        pond_xyab=pond,
        roads=roads,
        parcels=parcels,
        buildings=buildings,
        trees_N5=trees_N5,
        cars_N4=place_cars(rng, roads, parking, 34),
        parking_xyab=parking,
    )


def _spline(points: list[tuple[float, float]], extent: float) -> np.ndarray:
    """Smooth curve through points given in shares of the extent, sampled every half metre: [N, 2]."""
    points_P2 = np.array(points) * extent
    chord_P = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_P2, axis=0), axis=1))])
    return CubicSpline(chord_P, points_P2)(np.arange(0.0, chord_P[-1], 0.5))


def _obstacles(river_N2, roads, pond, parking) -> np.ndarray:
    """Discs (x, y, radius) that cover river, roads, pond and parking."""
    discs = [np.c_[river_N2[::4], np.full(len(river_N2[::4]), RIVER_HALF_WIDTH)]]
    for kind, curves in roads.items():
        discs += [np.c_[c[::4], np.full(len(c[::4]), ROAD_HALF_WIDTH[kind])] for c in curves]
    discs += [np.array([[x, y, max(a, b)]]) for x, y, a, b in (pond, parking)]
    return np.concatenate(discs)


def _clearance(points_N2: np.ndarray, discs_M3: np.ndarray) -> np.ndarray:
    """Distance from points to the nearest of the discs' edges (an upper bound where radii differ much), metres."""
    clear_N = np.full(len(points_N2), np.inf)
    for radius in np.unique(discs_M3[:, 2]):
        centres = discs_M3[discs_M3[:, 2] == radius, :2]
        clear_N = np.minimum(clear_N, cKDTree(centres).query(points_N2)[0] - radius)
    return clear_N


def _parcels(extent: float, angle: float, side: int, rng: np.random.Generator) -> list[Parcel]:
    """Split a rotated square that covers the scene into fields; `side` 0 is west of the river, 1 east."""
    rotation_22 = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    half = 0.75 * extent
    todo, done = [(-half, half, -half, half)], []
    while todo:
        u0, u1, v0, v1 = todo.pop()
        du, dv = u1 - u0, v1 - v0
        if du * dv < rng.uniform(2200.0, 5200.0):
            done.append((u0, u1, v0, v1))
            continue
        cut = rng.uniform(0.36, 0.64)
        if du > dv * rng.uniform(0.8, 1.25):
            todo += [(u0, u0 + cut * du, v0, v1), (u0 + cut * du, u1, v0, v1)]
        else:
            todo += [(u0, u1, v0, v0 + cut * dv), (u0, u1, v0 + cut * dv, v1)]
    kinds = np.concatenate([rng.permutation(NUM_PARCEL_KINDS) for _ in range(len(done) // NUM_PARCEL_KINDS + 1)])
    parcels = []
    for (u0, u1, v0, v1), kind in zip(done, kinds):
        corners = np.array([(u0, v0), (u1, v0), (u1, v1), (u0, v1)]) @ rotation_22.T + extent / 2
        along = angle + (np.pi / 2 if (v1 - v0) > (u1 - u0) else 0.0) + rng.normal(0.0, 0.05)
        tint = rng.normal(0.0, 1.0, 3) * 0.022 + rng.normal(0.0, 0.05)
        parcels.append(Parcel(corners, int(kind), along, float(rng.uniform(1.8, 5.5)), tint, side))
    return parcels


def _buildings(extent, roads, avoid_N3, rng) -> tuple[Building, ...]:
    """A village along the main road and the lanes, two farms and a church."""
    placed: list[Building] = []

    def fits(b: Building) -> bool:
        reach = np.hypot(b.half_a, b.half_b)
        if not (reach < b.x < extent - reach and reach < b.y < extent - reach):
            return False
        if _clearance(np.array([[b.x, b.y]]), avoid_N3)[0] < b.half_b + 2.5:
            return False
        return all(np.hypot(b.x - o.x, b.y - o.y) > 0.92 * (reach + np.hypot(o.half_a, o.half_b)) for o in placed)

    church = (0.405 * extent, 0.565 * extent)
    placed.append(Building(*church, 0.1, 11.0, 5.5, 7.5, 13.0, 1, 0.0))
    placed.append(Building(church[0] - 13.2, church[1] - 1.4, 0.1, 2.9, 2.9, 15.0, 24.0, 1, -0.05, tower=True))
    placed.append(Building(0.555 * extent, 0.44 * extent, 0.05, 17.0, 9.5, 6.5, 6.5, 3, 0.1))
    for x, y, angle in ((0.87, 0.36, 0.9), (0.90, 0.345, -0.65), (0.345, 0.86, 0.4), (0.37, 0.835, -1.2)):
        placed.append(Building(x * extent, y * extent, angle, 11.0, 6.0, 4.5, 8.0, int(rng.integers(0, 3)), 0.0))
    spans = (
        ("main", 0, 0.25, 0.60, 22),
        ("lane", 0, 0.62, 0.97, 12),
        ("lane", 1, 0.02, 0.45, 12),
        ("lane", 2, 0.05, 0.4, 6),
        ("main", 0, 0.72, 0.9, 7),
    )
    for kind, index, start, stop, count in spans:
        curve = roads[kind][index]
        for share in np.linspace(start, stop, count):
            here = int(share * len(curve))
            tangent = curve[min(here + 2, len(curve) - 1)] - curve[max(here - 2, 0)]
            tangent /= np.linalg.norm(tangent)
            for side in (-1.0, 1.0):
                half_a, half_b = rng.uniform(5.0, 8.5), rng.uniform(3.8, 5.2)
                offset = side * (ROAD_HALF_WIDTH[kind] + half_b + rng.uniform(3.0, 10.0))
                x, y = curve[here] + offset * np.array([-tangent[1], tangent[0]])
                angle = np.arctan2(tangent[1], tangent[0]) + rng.choice([0.0, np.pi / 2], p=[0.7, 0.3]) + rng.normal(0, 0.06)
                eave = rng.uniform(3.2, 6.2)
                house = Building(
                    x,
                    y,
                    angle,
                    half_a,
                    half_b,
                    eave,
                    eave + half_b * rng.uniform(0.55, 0.9),
                    int(rng.choice([0, 0, 0, 1, 2, 2, 4])),
                    rng.normal(0, 0.05),
                    bool(rng.random() < 0.25),
                )
                if rng.random() < 0.85 and fits(house):
                    placed.append(house)
    return tuple(placed)


def _trees(extent, river_N2, parcels, buildings, avoid_N3, rng) -> np.ndarray:
    """Forest on the hill, a copse, trees along the river, hedges, an orchard and single trees: [N, 5]."""
    groups = []

    def add(points_N2, radius, height, tint=0.0):
        n = len(points_N2)
        size_N = rng.uniform(0.75, 1.25, n)
        groups.append(np.c_[points_N2, radius * size_N, height * size_N, tint + rng.normal(0, 1, n)])

    step = 5.2
    grid_N2 = np.stack(np.meshgrid(np.arange(0, extent, step), np.arange(0, extent, step)), -1).reshape(-1, 2)
    grid_N2 = grid_N2 + rng.uniform(-1.9, 1.9, grid_N2.shape)
    shares_N2 = grid_N2 / extent
    wobble_N = 0.02 * np.sin(19 * shares_N2[:, 0] + 3) + 0.02 * np.cos(23 * shares_N2[:, 1])
    forest_N = np.hypot((shares_N2[:, 0] - 0.14) / 1.1, shares_N2[:, 1] - 0.68) < 0.125 + wobble_N
    copse_N = np.hypot(shares_N2[:, 0] - 0.565, (shares_N2[:, 1] - 0.80) * 1.4) < 0.062 + wobble_N
    wood_N = np.hypot((shares_N2[:, 0] - 0.95), (shares_N2[:, 1] - 0.12) * 0.8) < 0.11 + wobble_N
    add(grid_N2[forest_N], 3.3, 9.5)
    add(grid_N2[copse_N], 3.0, 8.0, 0.8)
    add(grid_N2[wood_N], 3.4, 10.0, -1.2)
    normal_N2 = np.gradient(river_N2, axis=0)[:, ::-1] * np.array([1.0, -1.0]) / 0.5
    for side in (-1.0, 1.0):
        here = rng.random(len(river_N2)) < 0.055 + 0.05 * np.sin(np.arange(len(river_N2)) / 23.0 + side)
        add((river_N2 + side * normal_N2 * (RIVER_HALF_WIDTH + rng.uniform(3, 7, (len(river_N2), 1))))[here], 2.7, 5.5, 0.4)
    for parcel in parcels:
        if rng.random() < 0.33:
            i = int(rng.integers(4))
            a, b = parcel.corners[i], parcel.corners[(i + 1) % 4]
            t = np.arange(0.05, 0.95, 3.0 / np.linalg.norm(b - a))[:, None]
            line = a + t * (b - a) + rng.normal(0, 0.35, (len(t), 2))
            east = np.interp(line[:, 1], river_N2[:, 1], river_N2[:, 0]) < line[:, 0]
            add(line[(east == parcel.side) & (rng.random(len(line)) < 0.85)], 1.9, 2.8, 0.2)
    rows_N2 = np.stack(np.meshgrid(np.arange(0, 45, 7.5), np.arange(0, 38, 7.5)), -1).reshape(-1, 2)
    turn_22 = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    add(rows_N2 @ turn_22.T + np.array([0.73, 0.585]) * extent, 2.1, 3.4, -0.5)
    for building in buildings:
        n = int(rng.integers(0, 4))
        at = rng.uniform(0, 2 * np.pi, n)
        reach = np.hypot(building.half_a, building.half_b) + rng.uniform(2.5, 7, n)
        add(np.array([building.x, building.y]) + np.c_[np.cos(at), np.sin(at)] * reach[:, None], 2.2, 4.2)
    add(rng.uniform(0, extent, (55, 2)), 3.0, 6.0)
    trees_N5 = np.concatenate(groups)
    inside_N = ((trees_N5[:, :2] > 1.0) & (trees_N5[:, :2] < extent - 1.0)).all(1)
    houses_M3 = np.array([(b.x, b.y, np.hypot(b.half_a, b.half_b)) for b in buildings])
    free_N = _clearance(trees_N5[:, :2], avoid_N3) > 0.8 * trees_N5[:, 2]
    free_N &= _clearance(trees_N5[:, :2], houses_M3) > 0.5 * trees_N5[:, 2]
    return trees_N5[inside_N & free_N]


def place_cars(rng: np.random.Generator, roads, parking_xyab, count: int) -> np.ndarray:
    """Cars on the right-hand side of main road and lanes, and in the parking's two rows: [count, 4]."""
    cars = []
    curves = [(c, ROAD_HALF_WIDTH[kind]) for kind in ("main", "lane") for c in roads[kind]]
    for i in range(count):
        colour = float(rng.integers(6))
        if i % 2:
            x, y, a, b = parking_xyab
            slot, row = int(rng.integers(int(2 * a / 2.8))), rng.choice([-1.0, 1.0])
            cars.append((x - a + 1.4 + 2.8 * slot, y + row * (b - 3.0), np.pi / 2, colour))
            continue
        curve, half_width = curves[int(rng.integers(len(curves)))]
        here = int(rng.integers(4, len(curve) - 4))
        way = rng.choice([-1.0, 1.0])
        tangent = way * (curve[here + 2] - curve[here - 2])
        tangent /= np.linalg.norm(tangent)
        right = np.array([tangent[1], -tangent[0]])
        cars.append((*(curve[here] + 0.5 * half_width * right), np.arctan2(tangent[1], tangent[0]), colour))
    return np.array(cars)
