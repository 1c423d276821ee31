"""GeoTIFF reading: one file brought onto a metric, north-up grid, whatever its CRS, orientation and tags."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform, transform_bounds
from rasterio.windows import Window

from datagen import frames, nodata
from datagen.vertical import Vertical, vertical_of

_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_INFRARED = ("nir", "infrared")
# Cells around the part of a grid that a tile covers: its bounds in another CRS are approximate.
MARGIN_CELLS = 2
# Tiles of more cells are read in parts; more cells around a part for the same reason.
_WHOLE_CELLS, _WINDOW_MARGIN = 4_000_000, 8


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

    def part(self, first_row: int, first_col: int, rows: int, cols: int) -> Grid:
        """Some of the cells, counted from the north-west corner."""
        left, top = self.left + first_col * self.step_x, self.top - first_row * self.step_y
        return Grid(left, top, self.step_x, self.step_y, rows, cols)

    def cells_within(self, bounds: tuple[float, float, float, float], margin: int) -> tuple[slice, slice]:
        """Rows and columns that bounds (left, bottom, right, top) touch, with a margin of cells; may be empty."""
        left, bottom, right, top = bounds
        first_c, last_c = np.floor(self.columns(left)) - margin, np.ceil(self.columns(right)) + margin
        first_r, last_r = np.floor(self.rows_of(top)) - margin, np.ceil(self.rows_of(bottom)) + margin
        (first_c, last_c), (first_r, last_r) = (
            np.clip([first_c, last_c], 0, self.cols).astype(int),
            np.clip([first_r, last_r], 0, self.rows).astype(int),
        )
        return slice(int(first_r), int(last_r)), slice(int(first_c), int(last_c))

    def columns(self, x):
        """Continuous column of easting x."""
        return (x - self.left) / self.step_x

    def rows_of(self, y):
        """Continuous row of northing y."""
        return (self.top - y) / self.step_y


@dataclass(frozen=True)
class Tile:
    """An open raster. Attributes: crs: the horizontal part of its CRS, or the one that the user gave. what: its role."""

    dataset: rasterio.DatasetReader
    crs: CRS
    what: str

    def __str__(self) -> str:
        return f"{self.what} {self.dataset.name}"

    @property
    def upright(self) -> Grid | None:
        """The tile's own cells as a north-up grid in its own CRS; None when it is rotated or sheared."""
        t = self.dataset.transform
        if t.b != 0 or t.d != 0:
            return None
        left, top = min(t.c, t.c + t.a * self.dataset.width), max(t.f, t.f + t.e * self.dataset.height)
        return Grid(left, top, abs(t.a), abs(t.e), self.dataset.height, self.dataset.width)

    @property
    def flips(self) -> tuple[slice, slice]:
        """What turns the stored rows and columns into those of `upright`."""
        t = self.dataset.transform
        return slice(None, None, -1 if t.e > 0 else 1), slice(None, None, -1 if t.a < 0 else 1)

    @property
    def centre_xy(self) -> tuple[float, float]:
        """Centre of the tile in its own CRS."""
        return self._position(self.dataset.width / 2, self.dataset.height / 2)

    def _position(self, column: float, row: float) -> tuple[float, float]:
        t = self.dataset.transform
        return t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f

    @cached_property
    def masked(self) -> bool:
        """Whether the file itself says what is missing: nodata, a mask, or a true alpha band."""
        flags = self.dataset.mask_flag_enums[0]
        return self.dataset.nodata is not None or (MaskFlags.per_dataset in flags and not self.false_alpha)

    @cached_property
    def false_alpha(self) -> bool:
        """Whether a band is tagged alpha and holds picture content."""
        band = nodata.alpha_band(self.dataset)
        return band is not None and not nodata.is_alpha(self.dataset, band)

    def in_frame(self, crs: CRS) -> Tile:
        """The tile as one of a scene in crs.

        Raises:
            ValueError: one is in a local CRS and the other is not.
        """
        if frames.is_local(self.crs) != frames.is_local(crs):
            raise ValueError(
                f"{self} is in {frames.label(self.crs)}, the scene in {frames.label(crs)}: "
                "a local CRS cannot be converted to another; bring both into one"
            )
        # Programs name their local frames as they like; two of one scene are the same.
        return replace(self, crs=crs) if frames.is_local(crs) else self

    def bounds_in(self, crs: CRS) -> tuple[float, float, float, float]:
        """left, bottom, right, top of the tile's outline in crs."""
        width, height = self.dataset.width, self.dataset.height
        x, y = zip(*(self._position(c, r) for c in (0, width) for r in (0, height)), strict=True)
        own = min(x), min(y), max(x), max(y)
        return own if self.crs == crs else transform_bounds(self.crs, crs, *own)

    def native_grid(self, crs: CRS) -> Grid:
        """The tile's own cells where they are north-up in crs, else the grid GDAL proposes for warping it there."""
        if self.crs == crs and self.upright is not None:
            return self.upright
        with WarpedVRT(self.dataset, src_crs=self.crs, crs=crs) as warped:
            t = warped.transform
            return Grid(t.c, t.f, t.a, -t.e, warped.height, warped.width)

    def offset(self, crs: CRS, grid: Grid) -> tuple[int, int] | None:
        """Row and column of `upright` where the grid begins, None when the tile has to be resampled."""
        own = self.upright
        if self.crs != crs or own is None:
            return None
        shift_c, shift_r = own.columns(grid.left), own.rows_of(grid.top)
        whole = np.allclose([own.step_x, own.step_y], [grid.step_x, grid.step_y], rtol=1e-9) and np.allclose(
            [shift_c, shift_r], np.round([shift_c, shift_r]), atol=1e-3
        )
        return (round(shift_r), round(shift_c)) if whole else None


def open_tile(path: Path, what: str, declared_crs: CRS | None = None) -> Tile:
    """Opens a georeferenced raster.

    Args:
        declared_crs: CRS of files that have none.
    Raises:
        FileNotFoundError: no such file.
        ValueError: not a raster, or without CRS or geotransform.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path}: no such file")
    try:
        dataset = rasterio.open(path)
    except RasterioError as error:
        raise ValueError(f"{what} {path}: not a readable raster ({error})") from error
    crs = declared_crs if dataset.crs is None else frames.horizontal(dataset.crs)
    problem = None
    if crs is None:
        problem = (
            "the raster has no coordinate reference system (say it with --crs, such as --crs EPSG:2056, or --crs local "
            "for metres in a frame of its own; or set it with gdal_edit.py -a_srs)"
        )
    elif dataset.transform == Affine.identity():
        problem = "the raster has no geotransform"
    if problem:
        dataset.close()
        raise ValueError(f"{what} {path}: {problem}")
    return Tile(dataset, crs, what)


def read_on_grid(
    tile: Tile, crs: CRS, grid: Grid, resampling: Resampling, bands: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads bands onto a grid.

    Returns:
        (values [bands, rows, cols], valid [rows, cols] bool): not valid is outside the tile and its nodata.
    Raises:
        ValueError: the file is damaged.
    """
    try:
        offset = tile.offset(crs, grid)
        if offset is not None:
            return _read_window(tile, *offset, grid, bands)
        if tile.false_alpha:
            return _read_unmasked(tile, crs, grid, resampling, bands)
        target = {"crs": crs, "transform": grid.transform, "width": grid.cols, "height": grid.rows}
        # An alpha band tells covered from uncovered pixels where the file declares neither nodata nor a mask.
        add_alpha = tile.dataset.nodata is None and nodata.alpha_band(tile.dataset) is None
        with WarpedVRT(tile.dataset, src_crs=tile.crs, add_alpha=add_alpha, resampling=resampling, **target) as warped:
            return warped.read(bands), warped.dataset_mask() != 0
    except RasterioError as error:
        raise ValueError(f"{tile}: cannot be read, is it truncated? ({error})") from error


def _read_window(tile: Tile, row: int, column: int, grid: Grid, bands: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the upright tile from (row, column) on, zero and not valid where it has none."""
    height, width = tile.dataset.height, tile.dataset.width
    first_c, last_c = np.clip([column, column + grid.cols], 0, width)
    first_r, last_r = np.clip([row, row + grid.rows], 0, height)
    values = np.zeros((len(bands), grid.rows, grid.cols), tile.dataset.dtypes[bands[0] - 1])
    valid = np.zeros((grid.rows, grid.cols), bool)
    flip_r, flip_c = tile.flips
    window = Window(
        first_c if flip_c.step == 1 else width - last_c,
        first_r if flip_r.step == 1 else height - last_r,
        last_c - first_c,
        last_r - first_r,
    )
    target = (slice(first_r - row, last_r - row), slice(first_c - column, last_c - column))
    values[(slice(None), *target)] = tile.dataset.read(bands, window=window)[:, flip_r, flip_c]
    mask = True if tile.false_alpha else (tile.dataset.dataset_mask(window=window) != 0)[flip_r, flip_c]
    valid[target] = mask
    return values, valid


def _read_unmasked(
    tile: Tile, crs: CRS, grid: Grid, resampling: Resampling, bands: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Reads by way of memory, so that GDAL does not see the band that is tagged alpha and is none."""
    source = {"src_transform": tile.dataset.transform, "src_crs": tile.crs}
    target = {"dst_transform": grid.transform, "dst_crs": crs}
    stored = tile.dataset.read(bands)
    values = np.zeros((len(bands), grid.rows, grid.cols), stored.dtype)
    reproject(stored, values, resampling=resampling, **source, **target)
    covered = np.zeros((grid.rows, grid.cols), np.uint8)
    reproject(np.ones(stored.shape[1:], np.uint8), covered, resampling=Resampling.nearest, **source, **target)
    return values, covered > 0


def read_heights(tile: Tile, crs: CRS, grid: Grid, vertical: Vertical) -> tuple[np.ndarray, list[float]]:
    """Heights in metres, float32 [rows, cols], NaN where there is no surface, and the fill values nobody declared.

    The whole tile, or of a large one the part that is needed, is cleaned before it is resampled, so that no fill value leaks
    into its neighbours.
    """
    try:
        window = _needed(tile, crs, grid)
        heights, fills = _clean_heights(tile, vertical, window)
    except RasterioError as error:
        raise ValueError(f"{tile}: cannot be read, is it truncated? ({error})") from error
    out = np.full((grid.rows, grid.cols), np.nan, np.float32)
    offset = tile.offset(crs, grid)
    if offset is None:
        # The nodata of reproject is NaN on both sides: float32 has one, whatever the file's type.
        reproject(
            heights,
            out,
            src_transform=tile.dataset.window_transform(window),
            src_crs=tile.crs,
            src_nodata=np.nan,
            dst_transform=grid.transform,
            dst_crs=crs,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
        return out, fills
    row, column = offset
    upright = heights[tile.flips]
    # Where the part that was read begins in the upright tile.
    flip_r, flip_c = tile.flips
    row -= int(window.row_off if flip_r.step == 1 else tile.dataset.height - window.row_off - window.height)
    column -= int(window.col_off if flip_c.step == 1 else tile.dataset.width - window.col_off - window.width)
    first_c, last_c = np.clip([column, column + grid.cols], 0, heights.shape[1])
    first_r, last_r = np.clip([row, row + grid.rows], 0, heights.shape[0])
    out[first_r - row : last_r - row, first_c - column : last_c - column] = upright[first_r:last_r, first_c:last_c]
    return out, fills


def _needed(tile: Tile, crs: CRS, grid: Grid) -> Window:
    """The part of a tile to read for a grid: all of it, but for large tiles."""
    dataset = tile.dataset
    whole = Window(0, 0, dataset.width, dataset.height)
    if dataset.width * dataset.height <= _WHOLE_CELLS:
        return whole
    bounds = grid.bounds if tile.crs == crs else transform_bounds(crs, tile.crs, *grid.bounds)
    back = ~dataset.transform
    columns, rows = zip(*(back @ (x, y) for x in bounds[::2] for y in bounds[1::2]), strict=True)
    first_c, last_c = np.clip([min(columns) - _WINDOW_MARGIN, max(columns) + _WINDOW_MARGIN], 0, dataset.width)
    first_r, last_r = np.clip([min(rows) - _WINDOW_MARGIN, max(rows) + _WINDOW_MARGIN], 0, dataset.height)
    first_c, first_r, last_c, last_r = int(first_c), int(first_r), int(np.ceil(last_c)), int(np.ceil(last_r))
    return Window(first_c, first_r, last_c - first_c, last_r - first_r) if last_c > first_c and last_r > first_r else whole


def _clean_heights(tile: Tile, vertical: Vertical, window: Window) -> tuple[np.ndarray, list[float]]:
    dataset = tile.dataset
    raw = dataset.read(1, window=window)
    if np.iscomplexobj(raw):
        raise ValueError(f"{tile}: complex numbers are no heights")
    scale, offset = dataset.scales[0] * vertical.metres_per_unit, dataset.offsets[0] * vertical.metres_per_unit
    # In double precision, and with no warning for the ends of the number range that some files use as nodata.
    with np.errstate(over="ignore", invalid="ignore"):
        heights = (raw.astype(np.float64) * scale + offset).astype(np.float32)
    missing, fills = nodata.missing_heights(raw, heights, dataset.read_masks(1, window=window) != 0, declared=tile.masked)
    heights[missing] = np.nan
    return heights, fills


def vertical_of_tile(tile: Tile, unit: str | None) -> Vertical:
    """Unit and datum of a surface model's heights, see `vertical.vertical_of`."""
    return vertical_of(tile.dataset, tile.dataset.crs or tile.crs, unit, str(tile))


def colour_bands(tile: Tile) -> tuple[list[int], str]:
    """Bands of red, green, blue (three, or one for grey) and a remark where they are not the first ones as tagged.

    Raises:
        ValueError: not 8 bits per channel, or palette colours.
    """
    dataset, tags = tile.dataset, tile.dataset.colorinterp
    if dataset.dtypes[0] != "uint8":
        raise ValueError(f"{tile}: {dataset.dtypes[0]} channels; convert to 8 bits (gdal_translate -ot Byte -scale)")
    if tags[0] == ColorInterp.palette:
        raise ValueError(f"{tile}: palette colours; expand them (gdal_translate -expand rgb)")
    described = [(text or "").strip().lower() for text in dataset.descriptions]
    picture = [number for number, tag in enumerate(tags, 1) if tag != ColorInterp.alpha or tile.false_alpha]
    names = [colour.name for colour in _COLOURS]
    remarks = []
    # Names are written on purpose, colour tags often by default.
    if all(name in described for name in names):
        bands = [described.index(name) + 1 for name in names]
    elif all(colour in tags for colour in _COLOURS):
        bands = [tags.index(colour) + 1 for colour in _COLOURS]
    elif len(picture) < 3:
        bands, remarks = picture[:1], ["grey"]
    else:
        bands, remarks = picture[:3], [f"bands {picture[:3]} taken as red, green, blue (not tagged)"]
    if not remarks and bands != [1, 2, 3]:
        remarks.append(f"red, green, blue are bands {bands}")
    remarks += [
        f"band {band} shown as a colour is {described[band - 1] or tags[band - 1].name}"
        for band in bands
        if any(word in described[band - 1] for word in _INFRARED) or tags[band - 1].name in _INFRARED
    ]
    if tile.false_alpha:
        remarks.append("the band tagged alpha holds picture content and is ignored")
    return bands, "; ".join(remarks)


def read_colour(
    tile: Tile, crs: CRS, grid: Grid, bands: list[int], *, collars: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour uint8 [rows, cols, 3], valid [rows, cols], and which of the not valid pixels are a white collar.

    Args:
        bands: three, or one for grey (`colour_bands`).
        collars: whether collars and black patches that no file declares are looked for; a part of a picture shows none.
    """
    # The VRT cannot hand out one band three times, nor bands in any order.
    stored = sorted(set(bands))
    values, valid = read_on_grid(tile, crs, grid, Resampling.cubic, stored)
    values = values[[stored.index(band) for band in bands]]
    colour = np.ascontiguousarray(np.broadcast_to(values, (3, grid.rows, grid.cols)).transpose(1, 2, 0))
    if tile.masked or not collars:
        return colour, valid, np.zeros_like(valid)
    white = valid & nodata.white_collar(colour, valid)
    return colour, valid & ~white & ~nodata.black_patches(colour), white


def read_codes(tile: Tile, crs: CRS, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """LAS codes as stored [rows, cols] and valid: not valid where the tile says nodata, 0, or ends."""
    if not np.issubdtype(np.dtype(tile.dataset.dtypes[0]), np.integer):
        raise ValueError(f"{tile}: expected integer LAS codes, found {tile.dataset.dtypes[0]}")
    values, valid = read_on_grid(tile, crs, grid, Resampling.nearest, [1])
    return values[0].astype(np.int64), valid & (values[0] != 0)


def to_crs(lon: np.ndarray, lat: np.ndarray, crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    """WGS 84 longitude and latitude (deg) to x, y in crs."""
    x, y = transform(frames.WGS84, crs, np.atleast_1d(lon).tolist(), np.atleast_1d(lat).tolist())
    return np.asarray(x), np.asarray(y)
