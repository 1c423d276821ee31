"""Scenes that are read in parts: what views show is what the whole scene shows, and only what is looked at is read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datagen import common_arguments, large_scene, rasters
from datagen.__main__ import main
from datagen.cameras import centred_intrinsics
from datagen.flights import pose_of
from datagen.large_scene import LargeRenderer, LargeScene
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import COLOUR_STEP, CRS_CODE, LEFT, TOP, quarter_codes, smooth_colour, smooth_height, write_raster
from .test_sampling import preset_document
from .test_spread import without_locks

K_33, SIZE = centred_intrinsics(100.0, 96, 64), (96, 64)
SIDE, TILE = 600.0, 200.0


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Folders of 3 x 3 tiles of 200 m: surface (1 m), orthophoto (0.5 m) and land cover."""
    folder = tmp_path_factory.mktemp("tiles")
    for name in ("surface", "ortho", "landcover"):
        (folder / name).mkdir()
    for row in range(3):
        for col in range(3):
            corner = {"left": LEFT + col * TILE, "top": TOP - row * TILE}
            where = f"{row}{col}.tif"
            x, y = _centres(1.0, col, row)
            write_raster(folder / "surface" / where, smooth_height(x, y).astype(np.float32), 1.0, nodata=-9999, **corner)
            write_raster(folder / "landcover" / where, quarter_codes(x, y), 1.0, nodata=0, **corner)
            x, y = _centres(2 * COLOUR_STEP, col, row)
            write_raster(folder / "ortho" / where, smooth_colour(x, y), 2 * COLOUR_STEP, **corner)
    return folder


def _centres(step: float, col: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """World x [1, cols] and y [rows, 1], origin in the middle of all tiles."""
    index = (np.arange(round(TILE / step)) + 0.5) * step
    return (col * TILE + index - SIDE / 2)[None], (SIDE / 2 - row * TILE - index)[:, None]


def layers(folder):
    return folder / "surface", folder / "ortho", folder / "landcover"


@pytest.fixture(scope="module")
def both(tiles):
    """(renderer of the whole scene, renderer of the scene in parts) with one origin."""
    whole = GeoScene.open(*layers(tiles))
    return Renderer(whole), LargeRenderer(LargeScene.open(*layers(tiles), origin_xyz=whole.origin_xyz))


def camera(x, y, pitch=-70.0, yaw=30.0, height=60.0):
    return pose_of((x, y, height), (yaw, pitch, 0.0))


@pytest.mark.parametrize(
    "place", [(0, 0), (190, -6, -40), (-97, 103, -90), (-285, 18, -60, 200), (290, 290, -55, 225), (103, 0, -32, 80, 40)]
)
def test_views_are_those_of_the_whole_scene(both, place):
    """In the middle, over seams of tiles, low and oblique, and over the border."""
    whole, parts = (renderer.render(camera(*place), K_33, *SIZE) for renderer in both)
    assert whole.valid_hw.mean() > 0.4
    assert np.array_equal(whole.valid_hw, parts.valid_hw) and np.array_equal(whole.semantics_HW, parts.semantics_HW)
    seen = whole.valid_hw
    assert np.abs(whole.depth_hw - parts.depth_hw)[seen].max() < 5e-3
    assert np.abs(whole.coords_3hw - parts.coords_3hw)[:, seen].max() < 5e-3
    assert np.abs(whole.normal_3hw - parts.normal_3hw)[:, seen].max() < 5e-3
    on_data = whole.semantics_HW > 0
    assert np.percentile(np.abs(whole.rgb_HW3.astype(int) - parts.rgb_HW3)[on_data], 99.5) <= 4
    sights = [renderer.sight(camera(*place), K_33, *SIZE) for renderer in both]
    assert np.allclose(*[(s.surface, s.picture, s.underside) for s in sights], atol=1e-3)


def test_heights_are_those_of_the_whole_scene(both):
    x, y = np.random.default_rng(0).uniform(-330, 330, (2, 30))
    whole, parts = (renderer.scene.height_at(x, y) for renderer in both)
    assert np.array_equal(np.isnan(whole), np.isnan(parts)) and np.isnan(whole).any() and np.isfinite(whole).sum() > 15
    assert np.nanmax(np.abs(whole - parts)) < 5e-3


def test_what_is_in_memory_changes_nothing(tiles, both):
    """Views in another order, with parts of others at hand, are the same to the last bit."""
    places = [(0, 0), (190, -6, -40), (20, 10), (-150, 150)]
    first = {place: both[1].render(camera(*place), K_33, *SIZE) for place in places}
    fresh = LargeRenderer(LargeScene.open(*layers(tiles), origin_xyz=both[1].scene.origin_xyz))
    for place in reversed(places):
        again = fresh.render(camera(*place), K_33, *SIZE)
        assert np.array_equal(again.rgb_HW3, first[place].rgb_HW3)
        assert np.array_equal(again.coords_3hw, first[place].coords_3hw, equal_nan=True)


def test_only_the_tiles_that_are_seen_are_read(tiles, monkeypatch):
    scene = LargeScene.open(*layers(tiles))
    read = []
    original = rasters.open_tile
    monkeypatch.setattr(
        large_scene.rasters, "open_tile", lambda path, *rest: read.append(path.name) or original(path, *rest)
    )
    LargeRenderer(scene).render(camera(-220, 220, -90), K_33, *SIZE)
    assert set(read) == {"00.tif"} and len(read) == 3, "surface, orthophoto and land cover of one tile"
    part = next(iter(scene._parts.values()))
    assert part.heights_rc.size < 300**2


def test_a_large_file_is_read_in_windows(tmp_path, monkeypatch):
    """The part of one big file, north-up, south-up, and in another CRS, is that of the whole."""
    monkeypatch.setattr(rasters, "_WHOLE_CELLS", 1000)
    x, y = _centres(1.0, 1, 1)
    heights = smooth_height(x, y).astype(np.float32)
    heights[100:110, 100:110] = -9999
    from rasterio.crs import CRS
    from rasterio.transform import Affine

    crs, vertical = CRS.from_string(CRS_CODE), large_scene.Vertical(1.0, "", "", None)
    sources = {
        "up": write_raster(tmp_path / "up.tif", heights, 1.0, nodata=-9999),
        "down": write_raster(
            tmp_path / "down.tif", heights[::-1], nodata=-9999, transform=Affine(1, 0, LEFT, 0, 1, TOP - TILE)
        ),
    }
    part = rasters.Grid(LEFT + 80, TOP - 90, 1.0, 1.0, 60, 50)
    expected = np.where(heights == -9999, np.nan, heights)[90:150, 80:130]
    for path in sources.values():
        tile = rasters.open_tile(path, "surface")
        assert rasters._needed(tile, crs, part).height < 100
        assert np.array_equal(rasters.read_heights(tile, crs, part, vertical)[0], expected, equal_nan=True)
    utm = CRS.from_epsg(32632)
    tile = rasters.open_tile(sources["up"], "surface")
    native = tile.native_grid(utm)
    there = native.part(100, 120, 50, 60)
    windowed, _ = rasters.read_heights(tile, utm, there, vertical)
    monkeypatch.setattr(rasters, "_WHOLE_CELLS", 10**9)
    whole, _ = rasters.read_heights(tile, utm, there, vertical)
    assert np.isfinite(whole).mean() > 0.9 and np.array_equal(whole, windowed, equal_nan=True)


def test_sections_of_a_large_scene(tiles, tmp_path, monkeypatch, caplog):
    """The command does it by itself when the layers are too large, in shares too, and says so."""
    monkeypatch.setattr(common_arguments, "is_large", lambda *layers: True)
    preset = tmp_path / "p.json"
    ranges = {"xRange": [LEFT + 80, LEFT + 520], "yRange": [TOP - 520, TOP - 80], "hRange": [40, 80]}
    preset.write_text(json.dumps(preset_document(nbImages=6, pitchRange=[-90, -60], **ranges)))
    surface, ortho, landcover = map(str, layers(tiles))
    words = ["sections", "--surface", surface, "--ortho", ortho, "--landcover", landcover, "--preset", str(preset)]
    words += ["--width", "96", "--height", "64", "--focal", "100", "--scene", "s", "--workers", "2", "--output_dir"]
    caplog.set_level("INFO")
    assert main([*words, str(tmp_path / "a")]) == 0 and "larger than memory: read in parts" in caplog.text
    for share in ("1/2", "2/2"):
        assert main([*words, str(tmp_path / "b"), "--shard", share]) == 0
    assert without_locks(tmp_path / "a" / "s") == without_locks(tmp_path / "b" / "s")


def test_what_is_large(tiles, monkeypatch):
    assert not large_scene.is_large(tiles / "surface", tiles / "ortho", None)
    monkeypatch.setattr(large_scene, "MAX_SURFACE_CELLS", 300_000)
    assert large_scene.is_large(tiles / "surface", tiles / "ortho", None)
    scene = LargeScene.open(*layers(tiles))
    monkeypatch.setattr(large_scene, "MAX_SURFACE_CELLS", 10_000)
    with pytest.raises(ValueError, match=r"a view sees \d+ km2 of ground, more than fits into memory"):
        LargeRenderer(scene).render(camera(0, 0), K_33, *SIZE)
    assert LargeRenderer(scene).sight(camera(0, 0), K_33, *SIZE).surface == 0
