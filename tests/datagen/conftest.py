"""Fixtures: synthetic geodata with known geometry, written as GeoTIFFs."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.scene import GeoScene

from .synthetic import (
    COLOUR_STEP,
    HEIGHT_STEP,
    Geodata,
    cell_centres,
    quarter_codes,
    smooth_colour,
    smooth_height,
    write_raster,
)


@pytest.fixture(scope="session")
def make_geodata(tmp_path_factory):
    """Factory: geodata of a height and a colour function of world x, y."""

    def make(height=smooth_height, colour=smooth_colour, *, hole=None, height_step=HEIGHT_STEP) -> Geodata:
        folder = tmp_path_factory.mktemp("geodata")
        x, y = cell_centres(height_step)
        heights = np.broadcast_to(height(x[None], y[:, None]), (len(y), len(x))).astype(np.float32)
        if hole is not None:
            heights = np.where(hole(x[None], y[:, None]), np.float32(-9999), heights)
        codes = quarter_codes(x[None], y[:, None])
        x, y = cell_centres(COLOUR_STEP)
        return Geodata(
            write_raster(folder / "surface.tif", heights, height_step, nodata=-9999),
            write_raster(folder / "ortho.tif", colour(x[None], y[:, None]), COLOUR_STEP),
            write_raster(folder / "landcover.tif", codes, height_step, nodata=0),
        )

    return make


@pytest.fixture(scope="session")
def hills(make_geodata) -> Geodata:
    return make_geodata()


@pytest.fixture(scope="session")
def hills_scene(hills) -> GeoScene:
    return hills.open()
