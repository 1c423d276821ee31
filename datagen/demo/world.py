"""The demo world as rasters: surface model, orthophoto and land cover, as arrays and as GeoTIFFs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.transform import from_origin

from datagen.demo import structures
from datagen.demo.layout import make_layout
from datagen.demo.paint import paint_ground
from datagen.demo.settings import GROUND, WATER, Season, WorldSettings
from datagen.demo.sunlight import sunlight
from datagen.demo.terrain import Canvas, distance_fields, ground_heights


@dataclass(frozen=True)
class World:
    """One version of the landscape: heights in metres, RGB and LAS codes; north up."""

    surface_hw: np.ndarray
    ortho_HW3: np.ndarray
    landcover_hw: np.ndarray


@dataclass(frozen=True)
class GeodataPaths:
    """The three GeoTIFFs of one version of the world."""

    surface: Path
    ortho: Path
    landcover: Path

    @classmethod
    def under(cls, folder: Path, name: str) -> GeodataPaths:
        """The rasters `<name>_{surface,ortho,landcover}.tif` of a folder."""
        return cls(*(Path(folder) / f"{name}_{part}.tif" for part in ("surface", "ortho", "landcover")))

    def exist(self) -> bool:
        return all(path.is_file() for path in (self.surface, self.ortho, self.landcover))


def make_world(settings: WorldSettings, season: Season, seed: int) -> World:
    """Build the landscape of a seed in a season; the same seed gives the same place in every season."""
    # separate streams, so that a change in one part of the scene leaves the others where they were
    plan_rng, relief_rng, paint_rng, change_rng = (np.random.default_rng([seed, part]) for part in range(4))
    layout = make_layout(settings.extent_m, plan_rng).changed(season.growth, season.moved_cars, change_rng)
    canvas = Canvas(settings.size_px, settings.texel_m)
    fields = distance_fields(layout, canvas)
    ground_HW = ground_heights(layout, fields, canvas, settings.relief_m, relief_rng)
    scene = structures.Scene(
        canvas=canvas,
        ground_HW=ground_HW,
        surface_HW=ground_HW.copy(),
        colour_HW3=paint_ground(layout, fields, canvas, season.autumn, paint_rng),
        codes_HW=np.where(fields.water, WATER, GROUND).astype(np.uint8),
    )
    structures.raise_bridge(scene, fields)
    structures.raise_buildings(scene, layout)
    structures.raise_cars(scene, layout)
    structures.grow_trees(scene, layout, season.autumn)

    f = settings.surface_factor
    surface_hw = np.ascontiguousarray(scene.surface_HW[f // 2 :: f, f // 2 :: f])
    light_hw3 = sunlight(surface_hw, settings.texel_m * f, season)
    light_HW3 = cv2.resize(light_hw3, canvas.shape, interpolation=cv2.INTER_LINEAR)
    ortho_HW3 = np.clip(scene.colour_HW3 * light_HW3, 0.0, 1.0)
    return World(
        surface_hw=surface_hw + np.float32(settings.datum_m),
        ortho_HW3=np.round(255.0 * ortho_HW3).astype(np.uint8),
        landcover_hw=np.ascontiguousarray(scene.codes_HW[f // 2 :: f, f // 2 :: f]),
    )


def write_world(world: World, settings: WorldSettings, paths: GeodataPaths) -> None:
    """Write the three rasters; each appears under its name only when complete."""
    paths.surface.parent.mkdir(parents=True, exist_ok=True)
    cell = settings.texel_m * settings.surface_factor
    _write_raster(paths.surface, world.surface_hw[None], cell, settings, predictor=3)
    _write_raster(
        paths.ortho, world.ortho_HW3.transpose(2, 0, 1), settings.texel_m, settings, predictor=2, photometric="RGB"
    )
    _write_raster(paths.landcover, world.landcover_hw[None], cell, settings)


def _write_raster(path: Path, bands_CHW: np.ndarray, cell: float, settings: WorldSettings, **options) -> None:
    count, height, width = bands_CHW.shape
    north = settings.south_m + settings.extent_m
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tif")
    profile = dict(
        driver="GTiff", count=count, height=height, width=width, dtype=bands_CHW.dtype, crs=settings.crs,
        transform=from_origin(settings.west_m, north, cell, cell), compress="deflate", zlevel=3, tiled=True,
    )  # fmt: skip
    try:
        with rasterio.open(temporary, "w", **profile, **options) as raster:
            raster.write(bands_CHW)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
