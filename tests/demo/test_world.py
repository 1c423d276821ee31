"""The demo landscape: its rasters, its two versions, and the light on it."""

import filecmp
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from scipy.ndimage import binary_dilation

from datagen.demo.noise import fractal_noise
from datagen.demo.settings import FLOWN, SURVEYED, WorldSettings
from datagen.demo.sunlight import cast_shadows, sun_direction, sunlight
from datagen.demo.world import GeodataPaths, make_world, write_world

COARSE = WorldSettings(texel_m=0.9, surface_factor=1)
SEED = 5


@pytest.fixture(scope="module")
def surveyed():
    return make_world(COARSE, SURVEYED, SEED)


@pytest.fixture(scope="module")
def flown():
    return make_world(COARSE, FLOWN, SEED)


def test_every_surface_class_occurs(surveyed, flown):
    for world in (surveyed, flown):
        codes, counts = np.unique(world.landcover_hw, return_counts=True)
        assert codes.tolist() == [1, 2, 3, 6, 9, 17]
        assert counts.min() >= 20


def test_the_landscape_has_relief_and_colour(surveyed):
    assert np.isfinite(surveyed.surface_hw).all()
    assert 15.0 < np.ptp(surveyed.surface_hw) < 80.0
    assert surveyed.surface_hw.dtype == np.float32 and surveyed.ortho_HW3.dtype == np.uint8
    assert surveyed.ortho_HW3.std(axis=(0, 1)).min() > 20.0
    clipped = ((surveyed.ortho_HW3 == 0) | (surveyed.ortho_HW3 == 255)).all(axis=2).mean()
    assert clipped < 0.01


def test_bridge_stands_above_the_water_it_crosses(surveyed):
    deck_hw, water_hw = surveyed.landcover_hw == 17, surveyed.landcover_hw == 9
    near_hw = binary_dilation(deck_hw, iterations=8)
    assert (near_hw & water_hw).any()
    assert surveyed.surface_hw[deck_hw].min() > surveyed.surface_hw[near_hw & water_hw].max() + 0.5


def test_same_seed_same_bytes_other_seed_other_place(tmp_path, surveyed):
    names = [GeodataPaths.under(tmp_path, name) for name in ("first", "second")]
    write_world(surveyed, COARSE, names[0])
    write_world(make_world(COARSE, SURVEYED, SEED), COARSE, names[1])
    for part in ("surface", "ortho", "landcover"):
        assert filecmp.cmp(getattr(names[0], part), getattr(names[1], part), shallow=False), part
    other = make_world(COARSE, SURVEYED, SEED + 1)
    assert np.abs(other.surface_hw - surveyed.surface_hw).mean() > 1.0
    assert (other.ortho_HW3 != surveyed.ortho_HW3).mean() > 0.9


def test_rasters_are_georeferenced_alike(tmp_path):
    settings = WorldSettings(extent_m=405.0, texel_m=0.9, surface_factor=3)
    paths = GeodataPaths.under(tmp_path / "geodata", "land")
    write_world(make_world(settings, SURVEYED, SEED), settings, paths)
    assert paths.exist()
    with (
        rasterio.open(paths.surface) as surface,
        rasterio.open(paths.ortho) as ortho,
        rasterio.open(paths.landcover) as cover,
    ):
        assert surface.crs == ortho.crs == cover.crs and surface.crs.is_projected
        assert surface.bounds == ortho.bounds == cover.bounds
        assert surface.res == cover.res == (2.7, 2.7) and ortho.res == (0.9, 0.9)
        assert (surface.dtypes[0], ortho.count, ortho.dtypes[0], cover.dtypes[0]) == ("float32", 3, "uint8", "uint8")
    assert sorted(path.suffix for path in paths.surface.parent.iterdir()) == [".tif"] * 3


def test_later_world_is_the_same_place_with_other_colours(surveyed, flown):
    changed_m = np.abs(flown.surface_hw - surveyed.surface_hw)
    grown_or_driven = np.isin(surveyed.landcover_hw, (1, 3)) | np.isin(flown.landcover_hw, (1, 3))
    assert changed_m[~grown_or_driven].max() == 0.0
    assert changed_m[grown_or_driven].mean() > 0.1
    difference = np.abs(flown.ortho_HW3.astype(float) - surveyed.ortho_HW3).mean()
    assert difference > 25.0


def test_trees_grow_and_cars_move(surveyed, flown):
    trees = (surveyed.landcover_hw == 3) & (flown.landcover_hw == 3)
    assert (flown.surface_hw - surveyed.surface_hw)[trees].mean() > 0.2
    before, after = surveyed.landcover_hw == 1, flown.landcover_hw == 1
    assert (before & after).sum() < 0.7 * before.sum()


def test_no_gap_leaves_the_world_as_it_was(surveyed):
    same = make_world(COARSE, SURVEYED.towards(FLOWN, 0.0), SEED)
    assert np.array_equal(same.ortho_HW3, surveyed.ortho_HW3)
    assert np.array_equal(same.surface_hw, surveyed.surface_hw)


def test_more_gap_is_more_different(surveyed):
    differences = []
    for share in (0.3, 0.6, 1.0):
        later = make_world(COARSE, SURVEYED.towards(FLOWN, share), SEED)
        differences.append(np.abs(later.ortho_HW3.astype(float) - surveyed.ortho_HW3).mean())
    assert differences == sorted(differences) and differences[0] > 3.0


def test_shadow_of_a_tower_has_the_sun_s_length_and_side():
    cell, tall = 0.5, 12.0
    surface_hw = np.zeros((121, 121), np.float32)
    surface_hw[58:63, 58:63] = tall
    shade_hw = cast_shadows(surface_hw, cell, sun_direction(azimuth_deg=270.0, elevation_deg=45.0))
    assert not shade_hw[60, :57].any(), "the sunny side, west"
    reach_m = (np.flatnonzero(shade_hw[60, 63:]).max() + 1) * cell
    assert reach_m == pytest.approx(tall, abs=1.5)
    assert not shade_hw[:55].any() and not shade_hw[66:].any()


def test_slopes_towards_the_sun_are_brighter():
    ramp_hw = np.repeat(np.arange(80, dtype=np.float32)[None] * 0.2, 80, axis=0)
    season = replace(SURVEYED, sun_azimuth_deg=270.0, sun_elevation_deg=40.0)
    facing = sunlight(ramp_hw, 1.0, season)[20:60, 20:60].mean()
    averted = sunlight(ramp_hw[:, ::-1].copy(), 1.0, season)[20:60, 20:60].mean()
    level = sunlight(np.zeros((80, 80), np.float32), 1.0, season)[20:60, 20:60].mean()
    assert facing > level + 0.05 > averted + 0.1


def test_noise_has_unit_spread_and_the_asked_scale():
    field = fractal_noise(np.random.default_rng(0), (400, 400), 40.0, octaves=1)
    assert 0.6 < field.std() < 1.4
    step = np.abs(np.diff(field, axis=1)).mean()
    finer = np.abs(np.diff(fractal_noise(np.random.default_rng(0), (400, 400), 10.0, octaves=1), axis=1)).mean()
    assert finer > 2.5 * step


@pytest.mark.parametrize("wrong", [dict(surface_factor=2), dict(extent_m=100.3), dict(extent_m=9.0)])
def test_impossible_rasters_are_refused(wrong):
    with pytest.raises(ValueError, match="surface"):
        WorldSettings(**wrong)
