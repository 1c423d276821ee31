"""One layer of a scene in one or many files: tiles read as one raster on any part of the layer's grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from datagen import nodata, point_cloud, rasters
from datagen.rasters import Grid, Tile
from datagen.vertical import Vertical

_SUFFIXES = {".tif", ".tiff"}
# Files, a folder of tiles, or several of either.
Sources = Path | str | Sequence[Path | str]


def tile_paths(sources: Sources, what: str) -> list[Path]:
    """The files of a layer: a folder stands for the GeoTIFFs in it, or else its point clouds; hidden files left out.

    Raises:
        ValueError: a folder without a GeoTIFF. (A missing file shows when it is opened.)
    """
    paths = []
    for source in [sources] if isinstance(sources, str | Path) else sources:
        source = Path(source)
        if not source.is_dir():
            paths.append(source)
            continue
        there = sorted(p for p in source.iterdir() if not p.name.startswith("."))
        inside = [p for p in there if p.suffix.lower() in _SUFFIXES]
        inside = inside or [p for p in there if p.suffix.lower() in point_cloud.SUFFIXES]
        if not inside:
            raise ValueError(f"{what} {source}: a folder without a GeoTIFF (*.tif, *.tiff)")
        paths += inside
    return paths


@dataclass(frozen=True)
class Mosaic:
    """The tiles of a layer; where they overlap, the first that has a value there counts."""

    tiles: tuple[Tile, ...]

    def __str__(self) -> str:
        more = f" and {len(self.tiles) - 1} more tiles" if len(self.tiles) > 1 else ""
        return f"{self.tiles[0]}{more}"

    @classmethod
    @contextmanager
    def open(cls, sources: Sources, what: str, declared_crs: CRS | None = None) -> Iterator[Mosaic]:
        """Opens the files of a layer, see `rasters.open_tile`."""
        with ExitStack() as stack:
            tiles = []
            for path in tile_paths(sources, what):
                tiles.append(rasters.open_tile(path, what, declared_crs))
                stack.callback(tiles[-1].dataset.close)
            yield cls(tuple(tiles))

    @property
    def crs(self) -> CRS:
        """That of the first tile."""
        return self.tiles[0].crs

    @property
    def centre_xy(self) -> tuple[float, float]:
        """Centre of all tiles in `crs`."""
        if len(self.tiles) == 1:
            return self.tiles[0].centre_xy
        left, bottom, right, top = self.bounds_in(self.crs)
        return (left + right) / 2, (bottom + top) / 2

    def in_frame(self, crs: CRS) -> Mosaic:
        """The layer as one of a scene in crs; ValueError when one is in a local CRS and the other is not."""
        return Mosaic(tuple(tile.in_frame(crs) for tile in self.tiles))

    def bounds_in(self, crs: CRS) -> tuple[float, float, float, float]:
        """left, bottom, right, top of all tiles in crs."""
        left, bottom, right, top = np.transpose([tile.in_frame(crs).bounds_in(crs) for tile in self.tiles])
        return float(left.min()), float(bottom.min()), float(right.max()), float(top.max())

    def grid(self, crs: CRS) -> Grid:
        """Grid of the whole layer in crs: that of the tile with the finest cells, extended over all tiles."""
        grids = [tile.native_grid(crs) for tile in self.tiles]
        finest = min(grids, key=lambda grid: grid.step_x * grid.step_y)
        if len(grids) == 1:
            return finest
        left, bottom, right, top = np.transpose([grid.bounds for grid in grids])
        return extent_on_lattice(finest, (left.min(), bottom.min(), right.max(), top.max()))

    def parts(self, crs: CRS, grid: Grid) -> Iterator[tuple[Tile, tuple[slice, slice], Grid]]:
        """Tiles that touch a grid, each with the rows and columns there and their grid."""
        for tile in self.tiles:
            rows, cols = grid.cells_within(tile.bounds_in(crs), rasters.MARGIN_CELLS)
            if rows.start < rows.stop and cols.start < cols.stop:
                size = rows.stop - rows.start, cols.stop - cols.start
                yield tile, (rows, cols), grid.part(rows.start, cols.start, *size)

    def verticals(self, unit: str | None) -> list[Vertical]:
        """Unit and datum of every tile's heights.

        Raises:
            ValueError: see `vertical.vertical_of`; or two tiles stand on different datums.
        """
        verticals = [rasters.vertical_of_tile(tile, unit) for tile in self.tiles]
        for tile, vertical in zip(self.tiles, verticals, strict=True):
            if vertical.datum != verticals[0].datum:
                raise ValueError(
                    f"{tile} has heights above {vertical.datum or 'an undeclared datum'}, {self.tiles[0]} above "
                    f"{verticals[0].datum or 'an undeclared datum'}: bring all tiles to one vertical datum"
                )
        return verticals

    def heights(self, crs: CRS, grid: Grid, unit: str | None = None) -> tuple[np.ndarray, list[float]]:
        """Heights in metres, float32 [rows, cols], NaN in holes, and the fill values that no file declares."""
        vertical_of = dict(zip(map(id, self.tiles), self.verticals(unit), strict=True))
        heights_rc, all_fills = np.full((grid.rows, grid.cols), np.nan, np.float32), set()
        for tile, (rows, cols), part in self.parts(crs, grid):
            values, fills = rasters.read_heights(tile, crs, part, vertical_of[id(tile)])
            all_fills.update(fills)
            target = heights_rc[rows, cols]
            target[...] = np.where(np.isnan(target), values, target)
        return heights_rc, sorted(all_fills)

    def colour(self, crs: CRS, grid: Grid, *, collars: bool = True) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Colour uint8 [rows, cols, 3], valid [rows, cols], remarks on bands and collars (see `rasters.read_colour`).

        Raises:
            ValueError: see `rasters.colour_bands`.
        """
        bands_of = {id(tile): rasters.colour_bands(tile) for tile in self.tiles}
        remarks = sorted({remark for _, remark in bands_of.values() if remark})
        parts = list(self.parts(crs, grid))
        if len(parts) == 1 and parts[0][2] == grid:
            # The usual case, without a second copy of a large picture.
            bands = bands_of[id(parts[0][0])][0]
            colour_HW3, valid_HW, white_HW = rasters.read_colour(parts[0][0], crs, grid, bands, collars=collars)
        else:
            colour_HW3, valid_HW, white_HW = _assembled_colour(parts, crs, grid, bands_of, collars)
        if white_HW.any():
            remarks.append(f"white collar ({white_HW.mean():.0%}) taken as missing")
        return colour_HW3, valid_HW, remarks

    def codes(self, crs: CRS, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """LAS codes int64 [rows, cols] and valid."""
        codes_rc, valid_rc = np.zeros((grid.rows, grid.cols), np.int64), np.zeros((grid.rows, grid.cols), bool)
        for tile, (rows, cols), part in self.parts(crs, grid):
            codes, valid = rasters.read_codes(tile, crs, part)
            fresh = valid & ~valid_rc[rows, cols]
            codes_rc[rows, cols][fresh] = codes[fresh]
            valid_rc[rows, cols] |= valid
        return codes_rc, valid_rc


def _assembled_colour(
    parts, crs: CRS, grid: Grid, bands_of: dict, collars: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour, valid and white collar of a grid that several tiles, or a part of one, cover."""
    colour_HW3 = np.zeros((grid.rows, grid.cols, 3), np.uint8)
    valid_HW, white_HW = (np.zeros((grid.rows, grid.cols), bool) for _ in range(2))
    for tile, where, part in parts:
        colour, valid, white = rasters.read_colour(tile, crs, part, bands_of[id(tile)][0], collars=collars)
        fresh = (valid | white) & ~valid_HW[where]
        colour_HW3[where][fresh] = colour[fresh]
        white_HW[where] = (white_HW[where] | white) & ~(valid | valid_HW[where])
        valid_HW[where] |= valid
    if len(parts) > 1 and white_HW.any():
        # A roof cut by a tile's border looks like that tile's collar; a collar of all tiles reaches the outside.
        collar_HW = white_HW & nodata.white_collar(colour_HW3, valid_HW | white_HW)
        valid_HW |= white_HW & ~collar_HW
        white_HW = collar_HW
    return colour_HW3, valid_HW, white_HW


def extent_on_lattice(own: Grid, bounds: tuple[float, float, float, float]) -> Grid:
    """The extent in cells of own, aligned with own's cells so that nothing is resampled needlessly."""
    left, bottom, right, top = bounds
    first_c, first_r = int(np.floor(own.columns(left) + 1e-6)), int(np.floor(own.rows_of(top) + 1e-6))
    last_c, last_r = int(np.ceil(own.columns(right) - 1e-6)), int(np.ceil(own.rows_of(bottom) - 1e-6))
    return own.part(first_r, first_c, last_r - first_r, last_c - first_c)
