"""A scene made of geodata: surface, colour and land cover in one metric world frame."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rasterio.crs import CRS

from datagen import frames, point_cloud, rasters
from datagen.assumptions import Assumptions
from datagen.frames import Frame
from datagen.mosaic import Mosaic, Sources, extent_on_lattice, tile_paths
from datagen.point_cloud import PointCloud, Splats
from datagen.rasters import Grid
from datagen.raycast import RayCaster, height_mesh
from datagen.texture import Texture
from datagen.vertical import Vertical
from tasks import LAS_CODE_TO_CLASS

log = logging.getLogger(__name__)

# World origins are rounded to this, metres: short coordinates, and data that are already local keep theirs.
ORIGIN_ROUNDING = 100.0
_SKY_CODE = 0
SURFACE_CODES = tuple(sorted(set(LAS_CODE_TO_CLASS) - {_SKY_CODE}))
UNCLASSIFIED = 1
# One point of a cloud in a cube of this side, metres; a point stands over the surface model from the second on; a cell takes
# its class from a point within the third, in cells.
POINT_SPACING_M, _STANDS_OVER_M, _CLASS_REACH_CELLS = 0.3, 0.5, 4.0
# Beyond these the mesh or the pyramid takes more memory than a workstation has.
MAX_SURFACE_CELLS = 40_000_000
MAX_ORTHO_PIXELS = 2_000_000_000
# Labels are float32, whose steps grow with the coordinates: beyond the first it is said, beyond the second refused, metres.
PRECISION_M = 0.01
COARSEST_M = 0.1
# Cells that the orthophoto's coverage is measured at.
_COVERAGE_POINTS = 1_000_000


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
        crs: horizontal CRS in metres. origin_xyz: what was subtracted from its coordinates.
        grid: cells of the surface model, world coordinates. heights_rc: float32 at the cell centres, NaN in holes.
        ortho_grid, texture: the orthophoto on the surface model's extent. landcover: None when not given.
        assumptions: what was assumed about the files; None for a scene that was not read from files.
        splats: what a point cloud adds to the surface; None without one.
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
        assumptions: Assumptions | None = None,
        splats: Splats | None = None,
    ):
        self.crs, self.origin_xyz = crs, origin_xyz
        self.grid, self.heights_rc = grid, heights_rc
        self.ortho_grid, self.texture, self.landcover = ortho_grid, texture, landcover
        self.assumptions, self.splats = assumptions, splats
        x_c = grid.left + (np.arange(grid.cols) + 0.5) * grid.step_x
        y_r = grid.top - (np.arange(grid.rows) + 0.5) * grid.step_y
        self.ground_caster = self.raycaster = RayCaster(*height_mesh(x_c, y_r, heights_rc))
        if splats is not None:
            self.splats = _above(splats, self.height_at)
            self.raycaster = RayCaster(*height_mesh(x_c, y_r, heights_rc), self.splats.corners_K43)

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
        points: Sources | None = None,
        point_spacing: float = POINT_SPACING_M,
    ) -> GeoScene:
        """Reads the rasters and brings them onto the surface model's metric frame.

        Args:
            surface, ortho, landcover: GeoTIFFs in any CRS; each a file, a folder of tiles, or several of either. A surface
                model that is not in a projected CRS in true metres is warped to the UTM zone of its centre; the others
                follow it.
            origin_xyz: world origin in that CRS; default: the data's centre rounded to 100 m.
            landcover_codes: replaces codes of the land cover, such as {5: 3} for high vegetation.
            declared_crs: CRS of files that have none (`frames.declared`).
            height_unit: unit of the surface model's heights (a key of `vertical.UNITS`), whatever the file says.
            points: point clouds (LAS, LAZ) that add what stands over the surface model, one point in each cube of
                `point_spacing` metres. The land cover may be such clouds too.
        Raises:
            FileNotFoundError: a file is missing.
            ValueError: no CRS, no overlap, too large, no valid height, unknown or contradictory units, an origin too far
                for float32, or unknown land-cover codes.
        """
        bare_crs = frames.declared(declared_crs) if declared_crs is not None else None
        layer = _read_surface(surface, bare_crs, height_unit)
        if origin_xyz is None:
            origin_xyz = default_origin(layer.grid, layer.heights_rc)
        check_precision(origin_xyz, layer.grid, layer.heights_rc)
        picture = _read_texture(ortho, bare_crs, layer)
        cover = None if landcover is None else _read_landcover(landcover, bare_crs, layer, landcover_codes or {})
        splats = None
        if points is not None:
            splats = _read_splats(points, bare_crs, layer, landcover_codes or {}, origin_xyz, point_spacing)
        shift = (-origin_xyz[0], -origin_xyz[1])
        return cls(
            layer.frame.crs,
            tuple(float(v) for v in origin_xyz),
            layer.grid.shifted(*shift),
            layer.heights_rc - np.float32(origin_xyz[2]),
            picture.grid.shifted(*shift),
            picture.texture,
            None if cover is None else LandCover(cover.grid.shifted(*shift), cover.codes_rc),
            _assumptions(layer, picture),
            splats,
        )

    def height_at(self, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
        """Height [N] of the surface model at world x, y, by casting down; NaN outside the surface."""
        x_N, y_N = np.atleast_1d(x_N), np.atleast_1d(y_N)
        above = float(np.nanmax(self.heights_rc)) + 10.0
        origin = np.stack((x_N, y_N, np.full(len(x_N), above)), 1)
        t_N = self.ground_caster.cast(origin, np.tile([[0.0, 0.0, -1.0]], (len(x_N), 1))).t_N
        return np.where(np.isfinite(t_N), above - t_N, np.nan)

    def to_world(self, world_from_cam_44: np.ndarray) -> np.ndarray:
        """Pose in the CRS to pose in the world frame: the origin is subtracted."""
        moved = np.array(world_from_cam_44, np.float64)
        moved[:3, 3] -= self.origin_xyz
        return moved

    def lonlat_to_world(self, lon_N: np.ndarray, lat_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """WGS 84 longitude, latitude in degrees to world x, y.

        Raises:
            ValueError: the scene is in a local CRS.
        """
        if frames.is_local(self.crs):
            raise ValueError("the geodata are in a local CRS: longitude and latitude have no place there; give x and y")
        x_N, y_N = rasters.to_crs(lon_N, lat_N, self.crs)
        return x_N - self.origin_xyz[0], y_N - self.origin_xyz[1]


class OriginTooFarError(ValueError):
    """World coordinates about this origin are so large that float32 labels lose a decimetre."""


@dataclass(frozen=True)
class _Surface:
    """The surface model in its metric frame; heights_rc float32 metres, NaN in holes; fills: undeclared nodata found."""

    name: str
    frame: Frame
    grid: Grid
    heights_rc: np.ndarray
    vertical: Vertical
    fills: list[float]
    tiles: int

    def share(self, covers: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        """Share of the cells with a height whose centres x, y in the CRS something covers."""
        rows, cols = np.nonzero(np.isfinite(self.heights_rc))
        every = max(1, len(rows) // _COVERAGE_POINTS)
        x = self.grid.left + (cols[::every] + 0.5) * self.grid.step_x
        y = self.grid.top - (rows[::every] + 0.5) * self.grid.step_y
        return float(covers(x, y).mean())


@dataclass(frozen=True)
class _Picture:
    """The orthophoto on the surface model's extent, with remarks on its bands."""

    grid: Grid
    texture: Texture
    remarks: list[str]
    tiles: int


def default_origin(grid: Grid, heights_rc: np.ndarray) -> tuple[float, float, float]:
    """The centre of a surface, rounded to 100 m."""
    left, bottom, right, top = grid.bounds
    centre = ((left + right) / 2, (bottom + top) / 2, float(np.nanmedian(heights_rc)))
    return tuple(float(np.round(v / ORIGIN_ROUNDING) * ORIGIN_ROUNDING) + 0.0 for v in centre)


def check_precision(origin_xyz: tuple[float, float, float], grid: Grid, heights_rc: np.ndarray) -> None:
    """Says, or refuses by OriginTooFarError, that world coordinates are too large for exact float32 labels."""
    left, bottom, right, top = grid.bounds
    extremes = ((left, right), (bottom, top), (np.nanmin(heights_rc), np.nanmax(heights_rc)))
    largest = max(abs(float(v) - o) for pair, o in zip(extremes, origin_xyz, strict=True) for v in pair)
    step_m = float(np.spacing(np.float32(largest)))
    if step_m <= PRECISION_M:
        return
    message = (
        f"origin {list(origin_xyz)}: world coordinates reach {largest:,.0f} m, where float32 labels come in steps of "
        f"{step_m:.3g} m; choose an origin near the data (without --origin it is their centre, "
        f"{list(default_origin(grid, heights_rc))}) and add it again to what the network predicts"
    )
    if not step_m <= COARSEST_M:
        raise OriginTooFarError(message)
    log.warning(message)


def _check_overlap(mosaic: Mosaic, layer: _Surface) -> None:
    left, bottom, right, top = bounds = mosaic.bounds_in(layer.frame.crs)
    grid_left, grid_bottom, grid_right, grid_top = layer.grid.bounds
    if min(right, grid_right) <= max(left, grid_left) or min(top, grid_top) <= max(bottom, grid_bottom):
        raise ValueError(
            f"{mosaic} does not overlap the {layer.name}: "
            f"bounds {_rounded(bounds)} against {_rounded(layer.grid.bounds)} in {frames.label(layer.frame.crs)}"
        )


def _check_size(mosaic: Mosaic, grid: Grid, limit: int) -> None:
    if grid.rows * grid.cols > limit:
        raise ValueError(
            f"{mosaic}: {grid.cols} x {grid.rows} cells are more than {limit:,}; crop or coarsen it (gdalwarp -te, -tr)"
        )


def _rounded(bounds) -> tuple[float, ...]:
    return tuple(round(v, 2) for v in bounds)


def _read_surface(sources: Sources, declared_crs: CRS | None, height_unit: str | None) -> _Surface:
    with Mosaic.open(sources, "surface model", declared_crs) as mosaic:
        frame = frames.working_frame(mosaic.crs, mosaic.centre_xy, str(mosaic))
        mosaic = mosaic.in_frame(frame.crs)
        grid = mosaic.grid(frame.crs)
        _check_size(mosaic, grid, MAX_SURFACE_CELLS)
        if min(grid.rows, grid.cols) < 2:
            raise ValueError(f"{mosaic}: {grid.cols} x {grid.rows} cells make no surface")
        vertical = mosaic.verticals(height_unit)[0]
        heights_rc, fills = mosaic.heights(frame.crs, grid, height_unit)
        if not np.isfinite(heights_rc).any():
            found = ", ".join(f"{value:.9g}" for value in fills)
            hint = f", or outside of what ground can be in metres ({found}; see --height_unit)" if fills else ""
            raise ValueError(f"{mosaic}: every cell is nodata{hint}")
        return _Surface(str(mosaic), frame, grid, heights_rc, vertical, fills, len(mosaic.tiles))


def _read_texture(sources: Sources, declared_crs: CRS | None, layer: _Surface) -> _Picture:
    crs = layer.frame.crs
    with Mosaic.open(sources, "orthophoto", declared_crs) as mosaic:
        mosaic = mosaic.in_frame(crs)
        _check_overlap(mosaic, layer)
        grid = extent_on_lattice(mosaic.grid(crs), layer.grid.bounds)
        _check_size(mosaic, grid, MAX_ORTHO_PIXELS)
        colour_HW3, valid_HW, remarks = mosaic.colour(crs, grid)
        if not valid_HW.any():
            raise ValueError(f"{mosaic}: no valid pixel inside the surface model's extent")
        return _Picture(grid, Texture(colour_HW3, valid_HW), remarks, len(mosaic.tiles))


def _read_landcover(sources: Sources, declared_crs: CRS | None, layer: _Surface, replacements: dict[int, int]) -> LandCover:
    crs = layer.frame.crs
    paths = tile_paths(sources, "land cover")
    if point_cloud.are_clouds(paths):
        return _cloud_landcover(paths, declared_crs, layer, replacements)
    with Mosaic.open(paths, "land cover", declared_crs) as mosaic:
        mosaic = mosaic.in_frame(crs)
        _check_overlap(mosaic, layer)
        grid = extent_on_lattice(mosaic.grid(crs), layer.grid.bounds)
        codes_rc, valid_rc = mosaic.codes(crs, grid)
        name = str(mosaic)
    codes_rc = checked_codes(codes_rc, valid_rc, replacements, name)
    _say_share(layer, LandCover(grid, valid_rc), name)
    return LandCover(grid, codes_rc)


def _say_share(layer: _Surface, valid: LandCover, name: str) -> None:
    share = layer.share(valid.at)
    if share < 0.9:
        log.warning("%s covers only %.0f %% of the surface; the rest is unclassified", name, 100 * share)


def _cloud_landcover(paths, declared_crs: CRS | None, layer: _Surface, replacements: dict[int, int]) -> LandCover:
    """Every cell of the surface takes the class of the point nearest to it in space."""
    grid, name = layer.grid, f"land cover {paths[0]}"
    step = max(grid.step_x, grid.step_y)
    cloud = point_cloud.read_point_cloud(paths, layer.frame.crs, declared_crs, grid.bounds, step / 2)
    x_c = grid.left + (np.arange(grid.cols) + 0.5) * grid.step_x
    y_r = grid.top - (np.arange(grid.rows) + 0.5) * grid.step_y
    x_rc, y_rc = np.meshgrid(x_c, y_r)
    cells_N3 = np.stack((x_rc.ravel(), y_rc.ravel(), layer.heights_rc.ravel().astype(np.float64)), 1)
    codes_N, found_N = point_cloud.classes_at(cloud, cells_N3, _CLASS_REACH_CELLS * step)
    valid_rc = (found_N & (codes_N != _SKY_CODE)).reshape(grid.rows, grid.cols)
    codes_rc = checked_codes(codes_N.reshape(grid.rows, grid.cols), valid_rc, replacements, name)
    _say_share(layer, LandCover(grid, valid_rc), name)
    return LandCover(grid, codes_rc)


def _read_splats(
    sources: Sources, declared_crs: CRS | None, layer: _Surface, replacements: dict[int, int], origin_xyz, spacing_m: float
) -> Splats:
    """Splats of point clouds in world coordinates."""
    paths = tile_paths(sources, "points")
    if not point_cloud.are_clouds(paths):
        raise ValueError(f"points {paths[0]}: not a point cloud ({', '.join(point_cloud.SUFFIXES)})")
    cloud = point_cloud.read_point_cloud(paths, layer.frame.crs, declared_crs, layer.grid.bounds, spacing_m)
    codes_N = cloud.codes_N.astype(np.int64)
    codes_N = checked_codes(codes_N, codes_N != _SKY_CODE, replacements, f"points {paths[0]}")
    local = PointCloud(cloud.xyz_N3 - np.array(origin_xyz, np.float64), codes_N, cloud.rgb_N3)
    return point_cloud.splats_of(local, spacing_m)


def _above(splats: Splats, height_at: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Splats:
    """The splats that stand over the surface model or in its holes; the others are what it already holds."""
    centre_K3 = splats.corners_K43.mean(axis=1)
    ground_K = height_at(centre_K3[:, 0], centre_K3[:, 1])
    keep_K = ~(centre_K3[:, 2] <= ground_K + _STANDS_OVER_M)
    log.info("%d of %d points of the cloud stand over the surface model and are added to it", keep_K.sum(), len(keep_K))
    rgb_K3 = None if splats.rgb_K3 is None else splats.rgb_K3[keep_K]
    return Splats(splats.corners_K43[keep_K], splats.codes_K[keep_K], rgb_K3)


def checked_codes(codes_rc: np.ndarray, valid_rc: np.ndarray, replacements: dict[int, int], name: str) -> np.ndarray:
    """LAS codes uint8 with the replacements made, unclassified where not valid.

    Raises:
        ValueError: codes without a class.
    """
    codes_rc[~valid_rc] = UNCLASSIFIED
    for code, replacement in replacements.items():
        codes_rc[codes_rc == code] = replacement
    unknown = sorted(set(np.unique(codes_rc).tolist()) - set(SURFACE_CODES))
    if unknown:
        raise ValueError(
            f"{name}: LAS codes {unknown} have no class; known are {list(SURFACE_CODES)} "
            "(replace others with --landcover_codes, such as 5=3)"
        )
    return codes_rc.astype(np.uint8)


def _assumptions(layer: _Surface, picture: _Picture) -> Assumptions:
    grid, texture = picture.grid, picture.texture
    return Assumptions(
        layer.frame,
        layer.vertical,
        (layer.tiles, picture.tiles),
        layer.grid,
        grid,
        layer.fills,
        float(1 - np.isfinite(layer.heights_rc).mean()),
        layer.share(lambda x, y: texture.is_picture(grid.columns(x), grid.rows_of(y))),
        picture.remarks,
    )
