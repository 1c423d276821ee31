"""GeoTIFF reading: surface model, orthophoto and land cover brought onto one metric, north-up frame."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform, transform_bounds
from rasterio.windows import Window

log = logging.getLogger(__name__)

# Undeclared nodata: black patches at least this wide (pixels) count as missing, dilated by the JPEG fringe.
_BLACK_PATCH_PX = 9
_BLACK_FRINGE_PX = 3


@dataclass(frozen=True)
class Grid:
    """A north-up raster: column c, row r (continuous, 0 at the outer edge) is x = left + c*step, y = top - r*step."""

    left: float
    top: float
    step_x: float
    step_y: float
    rows: int
    cols: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """left, bottom, right, top."""
        return self.left, self.top - self.rows * self.step_y, self.left + self.cols * self.step_x, self.top

    @property
    def transform(self) -> Affine:
        return Affine(self.step_x, 0, self.left, 0, -self.step_y, self.top)

    def shifted(self, dx: float, dy: float) -> Grid:
        return Grid(self.left + dx, self.top + dy, self.step_x, self.step_y, self.rows, self.cols)

    def columns(self, x):
        """Continuous column of easting x."""
        return (x - self.left) / self.step_x

    def rows_of(self, y):
        """Continuous row of northing y."""
        return (self.top - y) / self.step_y


def open_raster(path: Path, what: str) -> rasterio.DatasetReader:
    """Opens a georeferenced raster.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a raster, or without CRS or geotransform.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path}: no such file")
    try:
        raster = rasterio.open(path)
    except RasterioError as error:
        raise ValueError(f"{what} {path}: not a readable raster ({error})") from error
    if raster.crs is None:
        raise ValueError(
            f"{what} {path}: the raster has no coordinate reference system (set one with gdal_edit.py -a_srs)"
        )
    if raster.transform == Affine.identity():
        raise ValueError(f"{what} {path}: the raster has no geotransform")
    return raster


def metric_crs(raster: rasterio.DatasetReader) -> CRS:
    """The raster's own CRS when it is projected in metres, else the UTM zone (WGS 84) of the raster's centre."""
    crs = raster.crs
    if crs.is_projected and abs(crs.linear_units_factor[1] - 1) < 1e-9:
        return crs
    left, bottom, right, top = transform_bounds(crs, CRS.from_epsg(4326), *raster.bounds)
    lon, lat = (left + right) / 2, (bottom + top) / 2
    zone = int((lon + 180) // 6) % 60 + 1
    chosen = CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)
    log.info("%s is not in metres (%s); working in %s", raster.name, crs, chosen)
    return chosen


def _is_north_up(transform_: Affine) -> bool:
    return transform_.b == 0 and transform_.d == 0 and transform_.a > 0 and transform_.e < 0


def native_grid(raster: rasterio.DatasetReader, crs: CRS) -> Grid:
    """The raster's own grid if it is north-up in crs, else the grid GDAL proposes for warping it there."""
    if raster.crs == crs and _is_north_up(raster.transform):
        t = raster.transform
        return Grid(t.c, t.f, t.a, -t.e, raster.height, raster.width)
    t, cols, rows = calculate_default_transform(raster.crs, crs, raster.width, raster.height, *raster.bounds)
    return Grid(t.c, t.f, t.a, -t.e, rows, cols)


def read_on_grid(
    raster: rasterio.DatasetReader, crs: CRS, grid: Grid, resampling: Resampling, bands: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads bands onto a grid.

    Returns:
        (values [bands, rows, cols], valid [rows, cols] bool): not valid is outside the raster and its nodata.
    Raises:
        ValueError: the file is damaged.
    """
    try:
        return _read_on_grid(raster, crs, grid, resampling, bands)
    except RasterioError as error:
        raise ValueError(f"{raster.name}: cannot be read, is it truncated? ({error})") from error


def _read_on_grid(
    raster, crs: CRS, grid: Grid, resampling: Resampling, bands: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    own = native_grid(raster, crs)
    shift_c, shift_r = own.columns(grid.left), own.rows_of(grid.top)
    aligned = (
        raster.crs == crs
        and _is_north_up(raster.transform)
        and np.allclose([own.step_x, own.step_y], [grid.step_x, grid.step_y], rtol=1e-9)
        and np.allclose([shift_c, shift_r], np.round([shift_c, shift_r]), atol=1e-3)
    )
    if aligned:
        return _read_window(raster, round(shift_c), round(shift_r), grid, bands)
    options = dict(crs=crs, transform=grid.transform, width=grid.cols, height=grid.rows, resampling=resampling)
    # An alpha band tells covered from uncovered pixels where the file declares neither nodata nor a mask.
    with WarpedVRT(raster, add_alpha=raster.nodata is None and not _has_alpha(raster), **options) as warped:
        return warped.read(bands), warped.dataset_mask() != 0


def _read_window(raster, column: int, row: int, grid: Grid, bands: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the raster from (row, column) on, zero and not valid where the raster has none."""
    first_c, last_c = np.clip([column, column + grid.cols], 0, raster.width)
    first_r, last_r = np.clip([row, row + grid.rows], 0, raster.height)
    values = np.zeros((len(bands), grid.rows, grid.cols), raster.dtypes[bands[0] - 1])
    valid = np.zeros((grid.rows, grid.cols), bool)
    window = Window(first_c, first_r, last_c - first_c, last_r - first_r)
    target = (slice(first_r - row, last_r - row), slice(first_c - column, last_c - column))
    values[(slice(None), *target)] = raster.read(bands, window=window)
    valid[target] = raster.dataset_mask(window=window) != 0
    return values, valid


def _has_alpha(raster: rasterio.DatasetReader) -> bool:
    return ColorInterp.alpha in raster.colorinterp


def read_heights(raster: rasterio.DatasetReader, crs: CRS, grid: Grid) -> np.ndarray:
    """Heights float32 [rows, cols], NaN where there is no surface."""
    values, valid = read_on_grid(raster, crs, grid, Resampling.bilinear, [1])
    heights = values[0].astype(np.float32)
    return np.where(valid & np.isfinite(heights), heights, np.float32(np.nan))


def read_colour(raster: rasterio.DatasetReader, crs: CRS, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 [rows, cols, 3] and valid [rows, cols]. One band is grey; bands above three are ignored.

    Raises:
        ValueError: not 8 bits per channel, or palette colours.
    """
    if raster.dtypes[0] != "uint8":
        raise ValueError(
            f"orthophoto {raster.name}: {raster.dtypes[0]} channels; convert to 8 bits (gdal_translate -ot Byte -scale)"
        )
    if raster.colorinterp[0] == ColorInterp.palette:
        raise ValueError(f"orthophoto {raster.name}: palette colours; expand them (gdal_translate -expand rgb)")
    bands = [1, 2, 3] if raster.count >= 3 else [1, 1, 1]
    # The VRT cannot hand out one band three times.
    values, valid = read_on_grid(raster, crs, grid, Resampling.cubic, sorted(set(bands)))
    colour = np.ascontiguousarray(np.broadcast_to(values, (3, grid.rows, grid.cols)).transpose(1, 2, 0))
    declared = raster.nodata is not None or _has_alpha(raster)
    return colour, valid if declared else valid & ~_black_patches(colour)


def _black_patches(colour_HW3: np.ndarray) -> np.ndarray:
    """Where an orthophoto without declared nodata is a solid black patch, [rows, cols] bool."""
    black = (colour_HW3.max(axis=2) == 0).astype(np.uint8)
    if not black.any():
        return black.astype(bool)
    patch = cv2.morphologyEx(
        black, cv2.MORPH_OPEN, np.ones((_BLACK_PATCH_PX, _BLACK_PATCH_PX), np.uint8), borderType=cv2.BORDER_REPLICATE
    )
    size = 2 * _BLACK_FRINGE_PX + 1
    return cv2.dilate(patch, np.ones((size, size), np.uint8)) > 0


def read_codes(raster: rasterio.DatasetReader, crs: CRS, grid: Grid) -> np.ndarray:
    """LAS codes uint8 [rows, cols]; unclassified (1) where the raster says nodata, 0, or ends."""
    if not np.issubdtype(np.dtype(raster.dtypes[0]), np.integer):
        raise ValueError(f"land cover {raster.name}: expected integer LAS codes, found {raster.dtypes[0]}")
    values, valid = read_on_grid(raster, crs, grid, Resampling.nearest, [1])
    codes = np.where(valid, values[0], 0)
    return np.where(codes == 0, 1, codes).astype(np.int64)


def overlap_fraction(raster: rasterio.DatasetReader, crs: CRS, grid: Grid) -> float:
    """Share of the grid's area that the raster's bounding box covers."""
    left, bottom, right, top = transform_bounds(raster.crs, crs, *raster.bounds)
    gl, gb, gr, gt = grid.bounds
    width, height = min(right, gr) - max(left, gl), min(top, gt) - max(bottom, gb)
    return max(width, 0.0) * max(height, 0.0) / ((gr - gl) * (gt - gb))


def to_crs(lon: np.ndarray, lat: np.ndarray, crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    """WGS 84 longitude and latitude (deg) to x, y in crs."""
    x, y = transform(CRS.from_epsg(4326), crs, np.atleast_1d(lon).tolist(), np.atleast_1d(lat).tolist())
    return np.asarray(x), np.asarray(y)
