"""A scene made of geodata: surface, colour and land cover in one metric world frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from datagen import rasters
from datagen.rasters import Grid
from datagen.raycast import RayCaster, height_mesh
from datagen.texture import Texture
from tasks import LAS_CODE_TO_CLASS

log = logging.getLogger(__name__)

# World origins are rounded to this, metres: short coordinates, and data that are already local keep theirs.
ORIGIN_ROUNDING = 100.0
_SKY_CODE = 0
SURFACE_CODES = tuple(sorted(set(LAS_CODE_TO_CLASS) - {_SKY_CODE}))
UNCLASSIFIED = 1
# Beyond these the mesh or the pyramid takes more memory than a workstation has.
_MAX_SURFACE_CELLS = 40_000_000
_MAX_ORTHO_PIXELS = 2_000_000_000


@dataclass(frozen=True)
class LandCover:
    """LAS codes uint8 [rows, cols] on a grid in world coordinates."""

    grid: Grid
    codes_rc: np.ndarray

    def at(self, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """Code of the cell that holds each point, uint8 [N]; the border cells extend outwards."""
        c = np.clip(self.grid.columns(x_N), 0, self.grid.cols - 1).astype(np.int64)
        r = np.clip(self.grid.rows_of(y_N), 0, self.grid.rows - 1).astype(np.int64)
        return self.codes_rc[r, c]


class GeoScene:
    """Surface, orthophoto and land cover in the world frame: x east, y north, z up, metres, crs minus origin_xyz.

    Attributes:
        crs: projected metric CRS. origin_xyz: what was subtracted from its coordinates.
        grid: cells of the surface model, world coordinates. heights_rc: float32 at the cell centres, NaN in holes.
        ortho_grid, texture: the orthophoto on the surface model's extent. landcover: None when not given.
    """

    def __init__(
        self,
        crs: CRS,
        origin_xyz: tuple[float, float, float],
        grid: Grid,
        heights_rc: np.ndarray,
        ortho_grid: Grid,
        texture: Texture,
        landcover: LandCover | None,
    ):
        self.crs, self.origin_xyz = crs, origin_xyz
        self.grid, self.heights_rc = grid, heights_rc
        self.ortho_grid, self.texture, self.landcover = ortho_grid, texture, landcover
        x_c = grid.left + (np.arange(grid.cols) + 0.5) * grid.step_x
        y_r = grid.top - (np.arange(grid.rows) + 0.5) * grid.step_y
        self.raycaster = RayCaster(*height_mesh(x_c, y_r, heights_rc))

    @classmethod
    def open(
        cls,
        surface: Path | str,
        ortho: Path | str,
        landcover: Path | str | None = None,
        *,
        origin_xyz: tuple[float, float, float] | None = None,
        landcover_codes: dict[int, int] | None = None,
    ) -> GeoScene:
        """Reads the rasters and brings them onto the surface model's metric frame.

        Args:
            surface, ortho, landcover: GeoTIFFs in any CRS. A surface model that is not in a projected CRS in metres is
                warped to the UTM zone of its centre; the others follow it.
            origin_xyz: world origin in that CRS; default: the data's centre rounded to 100 m.
            landcover_codes: replaces codes of the land cover, such as {5: 3} for high vegetation.
        Raises:
            FileNotFoundError: a file is missing.
            ValueError: no CRS, no overlap, too large, no valid height, or unknown land-cover codes.
        """
        with rasters.open_raster(Path(surface), "surface model") as raster:
            crs = rasters.metric_crs(raster)
            crs_grid = rasters.native_grid(raster, crs)
            _check_size(surface, "surface model", crs_grid, _MAX_SURFACE_CELLS)
            heights_rc = rasters.read_heights(raster, crs, crs_grid)
        if not np.isfinite(heights_rc).any():
            raise ValueError(f"surface model {surface}: every cell is nodata")
        if origin_xyz is None:
            origin_xyz = _default_origin(crs_grid, heights_rc)
        shift = (-origin_xyz[0], -origin_xyz[1])
        ortho_grid, texture = _read_texture(Path(ortho), crs, crs_grid, heights_rc, surface)
        cover = None
        if landcover is not None:
            cover = _read_landcover(Path(landcover), crs, crs_grid, landcover_codes or {}, surface)
            cover = LandCover(cover.grid.shifted(*shift), cover.codes_rc)
        return cls(
            crs,
            tuple(float(v) for v in origin_xyz),
            crs_grid.shifted(*shift),
            heights_rc - np.float32(origin_xyz[2]),
            ortho_grid.shifted(*shift),
            texture,
            cover,
        )

    def height_at(self, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """Surface height [N] at world x, y, by casting down; NaN outside the surface."""
        x_N, y_N = np.atleast_1d(x_N), np.atleast_1d(y_N)
        above = float(np.nanmax(self.heights_rc)) + 10.0
        origin = np.stack((x_N, y_N, np.full(len(x_N), above)), 1)
        t_N = self.raycaster.cast(origin, np.tile([[0.0, 0.0, -1.0]], (len(x_N), 1))).t_N
        return np.where(np.isfinite(t_N), above - t_N, np.nan)

    def to_world(self, world_from_cam_44: np.ndarray) -> np.ndarray:
        """Pose in the CRS to pose in the world frame: the origin is subtracted."""
        moved = np.array(world_from_cam_44, np.float64)
        moved[:3, 3] -= self.origin_xyz
        return moved

    def lonlat_to_world(self, lon_N: np.ndarray, lat_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """WGS 84 longitude, latitude in degrees to world x, y."""
        x_N, y_N = rasters.to_crs(lon_N, lat_N, self.crs)
        return x_N - self.origin_xyz[0], y_N - self.origin_xyz[1]


def _default_origin(grid: Grid, heights_rc: np.ndarray) -> tuple[float, float, float]:
    left, bottom, right, top = grid.bounds
    centre = ((left + right) / 2, (bottom + top) / 2, float(np.nanmedian(heights_rc)))
    return tuple(float(np.round(v / ORIGIN_ROUNDING) * ORIGIN_ROUNDING) + 0.0 for v in centre)


def _check_overlap(raster, what: str, crs: CRS, grid: Grid, surface: Path | str) -> None:
    share = rasters.overlap_fraction(raster, crs, grid)
    if share <= 0:
        raise ValueError(
            f"{what} {raster.name} does not overlap the surface model {surface}: "
            f"bounds {_rounded(raster.bounds)} in {raster.crs.to_string()[:60]} "
            f"against {_rounded(grid.bounds)} in {crs.to_string()[:60]}"
        )
    if share < 0.9:
        log.warning("%s %s covers only %.0f %% of the surface model", what, raster.name, 100 * share)


def _check_size(path: Path | str, what: str, grid: Grid, limit: int) -> None:
    if grid.rows * grid.cols > limit:
        raise ValueError(
            f"{what} {path}: {grid.cols} x {grid.rows} cells are more than {limit:,}; "
            "crop or coarsen it (gdalwarp -te, -tr)"
        )


def _rounded(bounds) -> tuple[float, ...]:
    return tuple(round(v, 2) for v in bounds)


def _read_texture(
    path: Path, crs: CRS, surface_grid: Grid, heights_rc: np.ndarray, surface: Path | str
) -> tuple[Grid, Texture]:
    with rasters.open_raster(path, "orthophoto") as raster:
        _check_overlap(raster, "orthophoto", crs, surface_grid, surface)
        grid = _extent_on_lattice(rasters.native_grid(raster, crs), surface_grid)
        _check_size(path, "orthophoto", grid, _MAX_ORTHO_PIXELS)
        colour_HW3, valid_HW = rasters.read_colour(raster, crs, grid)
    if not valid_HW.any():
        raise ValueError(f"orthophoto {path}: no valid pixel inside the surface model's extent")
    return grid, Texture(colour_HW3, valid_HW)


def _read_landcover(
    path: Path, crs: CRS, surface_grid: Grid, replace: dict[int, int], surface: Path | str
) -> LandCover:
    with rasters.open_raster(path, "land cover") as raster:
        _check_overlap(raster, "land cover", crs, surface_grid, surface)
        grid = _extent_on_lattice(rasters.native_grid(raster, crs), surface_grid)
        codes_rc = rasters.read_codes(raster, crs, grid)
    for code, replacement in replace.items():
        codes_rc[codes_rc == code] = replacement
    unknown = sorted(set(np.unique(codes_rc).tolist()) - set(SURFACE_CODES))
    if unknown:
        raise ValueError(
            f"land cover {path}: LAS codes {unknown} have no class; known are {list(SURFACE_CODES)} "
            "(replace others with --landcover_codes, such as 5=3)"
        )
    return LandCover(grid, codes_rc.astype(np.uint8))


def _extent_on_lattice(own: Grid, target: Grid) -> Grid:
    """The target's extent in cells of own, aligned with own's cells so that nothing is resampled needlessly."""
    left, bottom, right, top = target.bounds
    first_c, first_r = np.floor(own.columns(left) + 1e-6), np.floor(own.rows_of(top) + 1e-6)
    last_c, last_r = np.ceil(own.columns(right) - 1e-6), np.ceil(own.rows_of(bottom) - 1e-6)
    return Grid(
        own.left + first_c * own.step_x,
        own.top - first_r * own.step_y,
        own.step_x,
        own.step_y,
        int(last_r - first_r),
        int(last_c - first_c),
    )
