"""Scenes larger than memory: a coarse overview of the whole, and for each view a scene of the part that it looks at.

What a view shows depends on the view and the files alone, not on which parts happen to be in memory, so threads, machines
and the order of views change nothing. The cost of a view grows with the ground that it sees.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling

from datagen import frames, nodata, rasters
from datagen.assumptions import Assumptions
from datagen.frames import Frame
from datagen.mosaic import Mosaic, Sources, extent_on_lattice, tile_paths
from datagen.point_cloud import are_clouds
from datagen.rasters import Grid
from datagen.raycast import RayCaster, height_mesh
from datagen.render import Backdrop, Renderer, Sight, View, pixel_directions
from datagen.scene import (
    MAX_ORTHO_PIXELS,
    MAX_SURFACE_CELLS,
    GeoScene,
    LandCover,
    check_precision,
    checked_codes,
    default_origin,
)
from datagen.texture import Texture
from datagen.vertical import Vertical
from geometry.grid import STRIDE

log = logging.getLogger(__name__)

# Longer side of the overview, cells.
_OVERVIEW_CELLS = 1024
# Parts are cut along a lattice of this many metres, so that views side by side share them, and hold this much more around.
_LATTICE_M, _MARGIN_M = 64.0, 32.0
# Parts in memory: neighbours in the order of rendering, and one for each thread.
_KEPT = 8
# Rays across and down a view that find the ground that it sees.
_PROBES = 24, 16


@dataclass(frozen=True)
class _Layer:
    """Files of a layer with their bounds in the scene's CRS, and the grid that they lie on together."""

    what: str
    paths: tuple[Path, ...]
    bounds_N4: np.ndarray
    grid: Grid

    def touching(self, bounds: tuple[float, float, float, float]) -> list[Path]:
        left, bottom, right, top = bounds
        near_N = (self.bounds_N4[:, 0] < right) & (self.bounds_N4[:, 2] > left)
        near_N &= (self.bounds_N4[:, 1] < top) & (self.bounds_N4[:, 3] > bottom)
        return [path for path, near in zip(self.paths, near_N, strict=True) if near]

    def part(self, bounds: tuple[float, float, float, float]) -> Grid:
        """Cells of the layer that bounds touch; at least one."""
        rows, cols = self.grid.cells_within(bounds, 1)
        rows, cols = _at_least_one(rows, self.grid.rows), _at_least_one(cols, self.grid.cols)
        return self.grid.part(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)


def _at_least_one(cells: slice, count: int) -> slice:
    start = min(cells.start, count - 2)
    return slice(start, max(cells.stop, start + 2))


class LargeScene:
    """As `GeoScene`, read where it is looked at. Attributes: see there; heights_rc and grid are those of the overview."""

    def __init__(
        self,
        frame: Frame,
        vertical: Vertical,
        origin_xyz: tuple[float, float, float],
        layers: dict[str, _Layer],
        overview: tuple[Grid, np.ndarray],
        *,
        declared_crs: CRS | None,
        height_unit: str | None,
        landcover_codes: dict[int, int],
    ):
        self.crs, self.origin_xyz = frame.crs, tuple(float(v) for v in origin_xyz)
        self.grid, self.heights_rc = overview[0].shifted(-origin_xyz[0], -origin_xyz[1]), overview[1]
        self._layers, self._declared_crs = layers, declared_crs
        self._height_unit, self._landcover_codes = height_unit, landcover_codes
        x_c = self.grid.left + (np.arange(self.grid.cols) + 0.5) * self.grid.step_x
        y_r = self.grid.top - (np.arange(self.grid.rows) + 0.5) * self.grid.step_y
        self.overview_caster = RayCaster(*height_mesh(x_c, y_r, self.heights_rc))
        self.assumptions = self._assumed(frame, vertical)
        self._parts: OrderedDict[tuple, GeoScene] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        surface: Sources,
        ortho: Sources,
        landcover: Sources | None = None,
        *,
        origin_xyz: tuple[float, float, float] | None = None,
        landcover_codes: dict[int, int] | None = None,
        declared_crs: str | None = None,
        height_unit: str | None = None,
    ) -> LargeScene:
        """Reads headers and an overview; arguments and errors are those of `GeoScene.open`."""
        bare_crs = frames.declared(declared_crs) if declared_crs is not None else None
        if landcover is not None and are_clouds(tile_paths(landcover, "land cover")):
            raise ValueError("a scene larger than memory takes its land cover from rasters, not from point clouds")
        with Mosaic.open(surface, "surface model", bare_crs) as mosaic:
            frame = frames.working_frame(mosaic.crs, mosaic.centre_xy, str(mosaic))
            mosaic = mosaic.in_frame(frame.crs)
            vertical = mosaic.verticals(height_unit)[0]
            layers = {"surface": _layer(surface, mosaic, frame.crs, "surface model")}
            grid, heights_rc = _overview(mosaic, frame.crs, layers["surface"].grid, height_unit)
        for name, sources, what in (("ortho", ortho, "orthophoto"), ("landcover", landcover, "land cover")):
            if sources is not None:
                with Mosaic.open(sources, what, bare_crs) as mosaic:
                    layers[name] = _layer(sources, mosaic.in_frame(frame.crs), frame.crs, what)
        if origin_xyz is None:
            origin_xyz = default_origin(grid, heights_rc)
        check_precision(origin_xyz, grid, heights_rc)
        return cls(
            frame, vertical, origin_xyz, layers, (grid, heights_rc - np.float32(origin_xyz[2])),
            declared_crs=bare_crs, height_unit=height_unit, landcover_codes=landcover_codes or {},
        )  # fmt: skip

    to_world, lonlat_to_world = GeoScene.to_world, GeoScene.lonlat_to_world

    def _assumed(self, frame: Frame, vertical: Vertical) -> Assumptions:
        surface, ortho = self._layers["surface"], self._layers["ortho"]
        left, bottom, right, top = np.transpose([ortho.bounds_N4.min(axis=0), ortho.bounds_N4.max(axis=0)])
        rows, cols = np.nonzero(np.isfinite(self.heights_rc))
        x = self.grid.left + (cols + 0.5) * self.grid.step_x + self.origin_xyz[0]
        y = self.grid.top - (rows + 0.5) * self.grid.step_y + self.origin_xyz[1]
        covered = (x >= left.min()) & (x <= right.max()) & (y >= bottom.min()) & (y <= top.max())
        remarks = ["larger than memory: read in parts; holes and coverage are those of an overview"]
        return Assumptions(
            frame, vertical, (len(surface.paths), len(ortho.paths)), surface.grid, ortho.grid, (),
            float(1 - np.isfinite(self.heights_rc).mean()), float(covered.mean()), remarks,
        )  # fmt: skip

    def height_at(self, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """Surface height [N] at world x, y, from the parts that hold them; NaN outside the surface."""
        x_N, y_N = np.atleast_1d(np.asarray(x_N, np.float64)), np.atleast_1d(np.asarray(y_N, np.float64))
        cell_N2 = np.floor(np.stack((x_N, y_N), 1) / _LATTICE_M)
        z_N = np.full(len(x_N), np.nan)
        for cell in np.unique(cell_N2[np.isfinite(cell_N2).all(axis=1)], axis=0):
            which = (cell_N2 == cell).all(axis=1)
            part = self.part((*(cell * _LATTICE_M), *((cell + 1) * _LATTICE_M)), surface_only=True)
            if part is not None:
                z_N[which] = part.height_at(x_N[which], y_N[which])
        return z_N

    def part(self, bounds: tuple[float, float, float, float], *, surface_only: bool = False) -> GeoScene | None:
        """The scene within world bounds (left, bottom, right, top) and a margin; None where there is no surface.

        Args:
            surface_only: the orthophoto is left out.
        Raises:
            ValueError: it would not fit into memory.
        """
        low = np.floor((np.array(bounds[:2]) - _MARGIN_M) / _LATTICE_M) * _LATTICE_M
        high = np.ceil((np.array(bounds[2:]) + _MARGIN_M) / _LATTICE_M) * _LATTICE_M
        key = (*low.tolist(), *high.tolist(), surface_only)
        with self._lock:
            if key in self._parts:
                self._parts.move_to_end(key)
                return self._parts[key]
        part = self._read(key[:4], surface_only)
        with self._lock:
            self._parts[key] = part
            while len(self._parts) > _KEPT:
                self._parts.popitem(last=False)
        return part

    def _read(self, world: tuple[float, float, float, float], surface_only: bool) -> GeoScene | None:
        ox, oy, oz = self.origin_xyz
        bounds = (world[0] + ox, world[1] + oy, world[2] + ox, world[3] + oy)
        surface, ortho = self._layers["surface"], self._layers["ortho"]
        grid, picture = surface.part(bounds), ortho.part(bounds)
        self._check_size(world, grid, picture)
        paths = surface.touching(bounds)
        if not paths:
            return None
        with Mosaic.open(paths, surface.what, self._declared_crs) as mosaic:
            heights_rc, _ = mosaic.in_frame(self.crs).heights(self.crs, grid, self._height_unit)
        if np.isfinite(heights_rc).sum() < 4:
            return None
        colour_HW3, valid_HW = np.zeros((2, 2, 3), np.uint8), None
        if not surface_only:
            colour_HW3, valid_HW = self._colour(ortho.touching(bounds), picture)
        texture_grid = picture if not surface_only else replace(picture, rows=2, cols=2)
        cover = None if surface_only or "landcover" not in self._layers else self._codes(bounds)
        return GeoScene(
            self.crs, self.origin_xyz, grid.shifted(-ox, -oy), heights_rc - np.float32(oz), texture_grid.shifted(-ox, -oy),
            Texture(colour_HW3, valid_HW), cover,
        )  # fmt: skip

    def _check_size(self, world, grid: Grid, picture: Grid) -> None:
        if grid.rows * grid.cols > MAX_SURFACE_CELLS or picture.rows * picture.cols > MAX_ORTHO_PIXELS:
            raise ValueError(
                f"a view sees {(world[2] - world[0]) * (world[3] - world[1]) / 1e6:,.0f} km2 of ground, more than fits into "
                "memory: look down more steeply, or coarsen the geodata"
            )

    def _colour(self, paths: Sequence[Path], grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        if not paths:
            return np.zeros((grid.rows, grid.cols, 3), np.uint8), np.zeros((grid.rows, grid.cols), bool)
        with Mosaic.open(paths, "orthophoto", self._declared_crs) as mosaic:
            colour_HW3, valid_HW, _ = mosaic.in_frame(self.crs).colour(self.crs, grid, collars=False)
        return colour_HW3, valid_HW

    def _codes(self, bounds: tuple[float, float, float, float]) -> LandCover:
        layer = self._layers["landcover"]
        grid, paths = layer.part(bounds), layer.touching(bounds)
        codes_rc, valid_rc = np.zeros((grid.rows, grid.cols), np.int64), np.zeros((grid.rows, grid.cols), bool)
        if paths:
            with Mosaic.open(paths, layer.what, self._declared_crs) as mosaic:
                codes_rc, valid_rc = mosaic.in_frame(self.crs).codes(self.crs, grid)
        codes_rc = checked_codes(codes_rc, valid_rc, self._landcover_codes, layer.what)
        return LandCover(grid.shifted(-self.origin_xyz[0], -self.origin_xyz[1]), codes_rc)


def _layer(sources: Sources, mosaic: Mosaic, crs: CRS, what: str) -> _Layer:
    bounds_N4 = np.array([tile.bounds_in(crs) for tile in mosaic.tiles])
    return _Layer(what, tuple(tile_paths(sources, what)), bounds_N4, mosaic.grid(crs))


def _overview(mosaic: Mosaic, crs: CRS, grid: Grid, height_unit: str | None) -> tuple[Grid, np.ndarray]:
    """Heights float32 of coarse cells, each that of a cell in its middle; NaN in holes."""
    step = max(1.0, max(grid.rows, grid.cols) / _OVERVIEW_CELLS)
    rows, cols = max(2, int(grid.rows / step)), max(2, int(grid.cols / step))
    coarse = Grid(grid.left, grid.top, grid.cols * grid.step_x / cols, grid.rows * grid.step_y / rows, rows, cols)
    heights_rc = np.full((rows, cols), np.nan, np.float32)
    verticals = mosaic.verticals(height_unit)
    for tile, (where_r, where_c), part in mosaic.parts(crs, coarse):
        vertical = verticals[mosaic.tiles.index(tile)]
        values, valid = rasters.read_on_grid(tile, crs, part, Resampling.nearest, [1])
        scale, offset = tile.dataset.scales[0], tile.dataset.offsets[0]
        with np.errstate(over="ignore", invalid="ignore"):
            heights = ((values[0].astype(np.float64) * scale + offset) * vertical.metres_per_unit).astype(np.float32)
        missing, _ = nodata.missing_heights(values[0], heights, valid, declared=tile.masked)
        target = heights_rc[where_r, where_c]
        target[...] = np.where(np.isnan(target) & ~missing, heights, target)
    if not np.isfinite(heights_rc).any():
        raise ValueError(f"{mosaic}: every cell is nodata")
    return coarse, heights_rc


class LargeRenderer(Renderer):
    """As `Renderer`, over a LargeScene: each view is rendered from the part that it sees."""

    def __init__(self, scene: LargeScene, *, label_stride: int = STRIDE):
        super().__init__(scene, label_stride=label_stride)

    def sight(self, world_from_cam_44: np.ndarray, K_33: np.ndarray, width: int, height: int) -> Sight:
        """See `Renderer.sight`; a view that sees more than fits into memory sees nothing."""
        try:
            part = self._part(world_from_cam_44, K_33, width, height)
        except ValueError:
            return Sight(0.0, 0.0, 0.0)
        return Sight(0.0, 0.0, 0.0) if part is None else part.sight(world_from_cam_44, K_33, width, height)

    def render(
        self, world_from_cam_44: np.ndarray, K_33: np.ndarray, width: int, height: int, backdrop: Backdrop | None = None
    ) -> View:
        """See `Renderer.render`.

        Raises:
            ValueError: it sees no part of the surface, or more than fits into memory.
        """
        part = self._part(world_from_cam_44, K_33, width, height)
        if part is None:
            raise ValueError(f"a camera at {np.round(world_from_cam_44[:3, 3], 2).tolist()} sees none of the surface model")
        return part.render(world_from_cam_44, K_33, width, height, backdrop)

    def _part(self, world_from_cam_44: np.ndarray, K_33: np.ndarray, width: int, height: int) -> Renderer | None:
        """A renderer of the ground between the camera and what it sees, by rays at the overview."""
        across, down = _PROBES
        x = np.tile(np.linspace(0, width, across), down)
        y = np.repeat(np.linspace(0, height, down), across)
        direction_N3 = pixel_directions(world_from_cam_44, K_33, x, y)
        origin_N3 = np.broadcast_to(world_from_cam_44[:3, 3].astype(np.float32), direction_N3.shape)
        hits = self.scene.overview_caster.cast(origin_N3, direction_N3)
        seen_M2 = origin_N3[hits.hit_N, :2] + hits.t_N[hits.hit_N, None] * direction_N3[hits.hit_N, :2]
        ground_N2 = np.concatenate((world_from_cam_44[None, :2, 3], seen_M2))
        # Between two probes, and between two cells of the overview, the view may reach a little farther.
        low_2, high_2 = ground_N2.min(axis=0), ground_N2.max(axis=0)
        slack_2 = (high_2 - low_2) / min(_PROBES) + np.array([self.scene.grid.step_x, self.scene.grid.step_y])
        part = self.scene.part((*(low_2 - slack_2), *(high_2 + slack_2)))
        return None if part is None else Renderer(part, label_stride=self.label_stride)


def is_large(surface: Sources, ortho: Sources, declared_crs: str | None) -> bool:
    """Whether a scene's layers have more cells than are held in memory."""
    bare_crs = frames.declared(declared_crs) if declared_crs is not None else None
    with Mosaic.open(surface, "surface model", bare_crs) as mosaic:
        frame = frames.working_frame(mosaic.crs, mosaic.centre_xy, str(mosaic))
        mosaic = mosaic.in_frame(frame.crs)
        grid = mosaic.grid(frame.crs)
    with Mosaic.open(ortho, "orthophoto", bare_crs) as mosaic:
        picture = extent_on_lattice(mosaic.in_frame(frame.crs).grid(frame.crs), grid.bounds)
    return grid.rows * grid.cols > MAX_SURFACE_CELLS or picture.rows * picture.cols > MAX_ORTHO_PIXELS
