"""Synthetic geodata with known geometry, written as GeoTIFFs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

from datagen.scene import GeoScene

CRS_CODE = "EPSG:2056"
# A corner in that CRS whose nearby multiple of 100 m becomes the world origin.
LEFT, TOP = 2_600_000.0, 1_200_200.0
SIZE = 200.0
HEIGHT_STEP, COLOUR_STEP = 1.0, 0.25


def write_raster(
    path: Path,
    bands: np.ndarray,
    step: float = 1.0,
    *,
    left=LEFT,
    top=TOP,
    crs=CRS_CODE,
    transform=None,
    tags=None,
    **profile,
) -> Path:
    """Writes [rows, cols] or [bands, rows, cols] as a GeoTIFF, north-up unless a transform is given.

    Args: tags: attributes of the dataset, such as scales, units, colorinterp, descriptions.
    """
    bands = bands[None] if bands.ndim == 2 else bands
    options = dict(
        driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=bands.shape[0], dtype=bands.dtype, crs=crs
    )
    transform = Affine(step, 0, left, 0, -step, top) if transform is None else transform
    with rasterio.open(path, "w", transform=transform, **options, **profile) as raster:
        for name, value in (tags or {}).items():
            setattr(raster, name, value)
        raster.write(bands)
    return path


def cell_centres(step: float, size: float = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """World x [cols] and y [rows] of cell centres; the world origin is the extent's centre, (LEFT + 100, TOP - 100)."""
    index = np.arange(round(size / step)) + 0.5
    return index * step - size / 2, size / 2 - index * step


def smooth_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A hilly terrain, metres, relative to the world origin."""
    return 6 * np.sin(x / 17) * np.cos(y / 23) + 0.05 * x


def plane_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.2 * x - 0.1 * y


def block_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Flat ground with one 20 m high block over |x| < 20, |y| < 20."""
    return np.where((np.abs(x) < 20) & (np.abs(y) < 20), 20.0, 0.0)


def noise_colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Random colour per texel: everything aliases unless it is filtered."""
    colour = np.random.default_rng(1).integers(0, 256, (3, *np.broadcast_shapes(x.shape, y.shape)))
    return colour.astype(np.uint8)


def smooth_colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slow waves in plan position."""
    waves = np.stack(np.broadcast_arrays(np.sin(x / 6) * np.cos(y / 9), np.cos(x / 8 + y / 5), np.sin(y / 7 - x / 11)))
    return np.rint(127.5 + 110 * waves).astype(np.uint8)


def quarter_codes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Water in the south-west, buildings in the north-east, low vegetation else."""
    return np.where((x < 0) & (y < 0), 9, np.where((x > 0) & (y > 0), 6, 3)).astype(np.uint8)


@dataclass(frozen=True)
class Geodata:
    """Paths of a synthetic scene's rasters."""

    surface: Path
    ortho: Path
    landcover: Path

    def open(self, **options) -> GeoScene:
        return GeoScene.open(self.surface, self.ortho, self.landcover, **options)

    def arguments(self) -> list[str]:
        paths = ("--surface", self.surface, "--ortho", self.ortho, "--landcover", self.landcover)
        return [str(word) for word in paths]
