"""Rasters of any CRS, nodata, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.warp import Resampling, calculate_default_transform, reproject

from datagen.cameras import centred_intrinsics
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import CRS_CODE, LEFT, TOP, cell_centres, smooth_height, write_raster
from .test_labels import pose


def warped(source, target, crs, resampling=Resampling.cubic, **profile):
    """The raster in another CRS, with its colour tags; what it does not cover becomes its nodata."""
    with rasterio.open(source) as raster:
        transform, width, height = calculate_default_transform(raster.crs, crs, raster.width, raster.height, *raster.bounds)
        options = {**raster.profile, "crs": crs, "transform": transform, "width": width, "height": height, **profile}
        with rasterio.open(target, "w", **options) as out:
            out.colorinterp, out.descriptions = raster.colorinterp, raster.descriptions
            for band in range(1, raster.count + 1):
                reproject(rasterio.band(raster, band), rasterio.band(out, band), resampling=resampling)
    return target


def test_world_frame_is_the_crs_minus_the_recorded_origin(hills_scene):
    assert hills_scene.origin_xyz == (LEFT + 100, TOP - 100, 0.0)
    x, y = cell_centres(1.0)
    assert np.allclose(hills_scene.heights_rc, smooth_height(x[None], y[:, None]), atol=1e-5), "to the outermost cell"
    x, y = np.array([-31.5, 0.5, 60.5]), np.array([12.5, -0.5, -70.5])
    assert np.allclose(hills_scene.height_at(x, y), smooth_height(x, y), atol=1e-3)
    assert np.isnan(hills_scene.height_at(150.0, 0.0)).all()


def test_a_given_origin_moves_the_world_only(hills):
    scene = hills.open(origin_xyz=(LEFT, TOP, 50.0))
    assert np.allclose(scene.height_at(100.5, -99.5), smooth_height(0.5, 0.5) - 50, atol=1e-3)
    moved = scene.to_world(np.array([[1, 0, 0, LEFT + 3], [0, 1, 0, TOP + 4], [0, 0, 1, 60], [0, 0, 0, 1.0]]))
    assert moved[:3, 3].tolist() == [3, 4, 10]


def test_orthophoto_and_land_cover_in_another_crs(hills, hills_scene, tmp_path):
    ortho = warped(hills.ortho, tmp_path / "ortho.tif", "EPSG:32632")
    cover = warped(hills.landcover, tmp_path / "cover.tif", "EPSG:4326", Resampling.nearest)
    scene = GeoScene.open(hills.surface, ortho, cover)
    camera = pose(0, 0, 70, 20, -80, 0), centred_intrinsics(160.0, 120, 80), 120, 80
    expected, found = Renderer(hills_scene).render(*camera), Renderer(scene).render(*camera)
    assert np.abs(expected.rgb_HW3.astype(int) - found.rgb_HW3).mean() < 3
    assert (expected.semantics_HW == found.semantics_HW).mean() > 0.97
    assert (expected.coords_3hw == found.coords_3hw).all()


def test_geographic_surface_becomes_metric(hills, tmp_path):
    surface = warped(hills.surface, tmp_path / "surface.tif", "EPSG:4326", Resampling.bilinear)
    scene = GeoScene.open(surface, hills.ortho, hills.landcover)
    assert scene.crs.to_epsg() == 32632 and 0.5 < scene.grid.step_x < 1.5
    rendered = Renderer(scene).render(pose(0, 0, 70, 0, -90, 0), centred_intrinsics(160.0, 120, 80), 120, 80)
    assert rendered.valid_hw.all()
    # Heights survive the warp: compare at the same spots, found through longitude and latitude.
    points = rendered.coords_3hw[:, ::3, ::3].reshape(3, -1).astype(np.float64)
    lon, lat = rasterio.warp.transform(
        scene.crs, "EPSG:4326", points[0] + scene.origin_xyz[0], points[1] + scene.origin_xyz[1]
    )
    x, y = rasterio.warp.transform("EPSG:4326", CRS_CODE, lon, lat)
    expected = smooth_height(np.array(x) - LEFT - 100, np.array(y) - TOP + 100)
    assert np.abs(points[2] + scene.origin_xyz[2] - expected).max() < 0.15


def test_undeclared_black_borders_and_partial_orthophotos_take_neighbouring_colour(hills, tmp_path):
    with rasterio.open(hills.ortho) as raster:
        colour = raster.read()
    colour[:, :, :200] = 0
    black = write_raster(tmp_path / "black.tif", colour, 0.25)
    part = write_raster(tmp_path / "part.tif", np.ascontiguousarray(colour[:, :, 200:]), 0.25, left=LEFT + 50)
    camera = pose(-60, 0, 60, 0, -90, 0), centred_intrinsics(160.0, 120, 80), 120, 80
    for ortho in (black, part):
        rendered = Renderer(GeoScene.open(hills.surface, ortho)).render(*camera)
        assert rendered.rgb_HW3.max(axis=2).min() > 20 and rendered.valid_hw.all()
        assert (rendered.semantics_HW == 1).all(), "without land cover everything is unclassified"


def test_land_cover_nodata_is_unclassified_and_codes_can_be_replaced(hills, tmp_path):
    codes = np.full((200, 200), 5, np.uint8)
    codes[:, 100:] = 0
    cover = write_raster(tmp_path / "cover.tif", codes, 1.0)
    with pytest.raises(ValueError, match=r"cover.tif: LAS codes \[5\] have no class; known are"):
        GeoScene.open(hills.surface, hills.ortho, cover)
    scene = GeoScene.open(hills.surface, hills.ortho, cover, landcover_codes={5: 3})
    rendered = Renderer(scene).render(pose(0, 0, 80, 0, -90, 0), centred_intrinsics(160.0, 120, 80), 120, 80)
    assert (rendered.semantics_HW[:, :58] == 3).all() and (rendered.semantics_HW[:, 62:] == 1).all()


def test_bad_geodata_is_named(hills, tmp_path):
    def refused(match, kind=ValueError, **changes):
        paths = {"surface": hills.surface, "ortho": hills.ortho, "landcover": hills.landcover, **changes}
        with pytest.raises(kind, match=match):
            GeoScene.open(**paths)

    heights = np.ones((50, 50), np.float32)
    colour = np.ones((3, 50, 50), np.uint8)
    missing = tmp_path / "none.tif"
    for role, name in (("surface", "surface model"), ("ortho", "orthophoto"), ("landcover", "land cover")):
        refused(f"{name} .*none.tif: no such file", FileNotFoundError, **{role: missing})
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    refused("text.tif: not a readable raster", surface=text)
    refused("no coordinate reference system", surface=write_raster(tmp_path / "a.tif", heights, 1.0, crs=None))
    refused("no coordinate reference system", ortho=write_raster(tmp_path / "b.tif", colour, 1.0, crs=None))
    far = write_raster(tmp_path / "far.tif", colour, 1.0, left=LEFT + 5000)
    refused("orthophoto .*far.tif does not overlap the surface model .*surface.tif: bounds", ortho=far)
    refused("land cover .*far.tif does not overlap", landcover=write_raster(far, colour[0], 1.0, left=LEFT + 5000))
    empty = write_raster(tmp_path / "empty.tif", np.full((50, 50), -9999, np.float32), 1.0, nodata=-9999)
    refused("empty.tif: every cell is nodata", surface=empty)
    refused("16 bits|uint16", ortho=write_raster(tmp_path / "deep.tif", colour.astype(np.uint16), 1.0))
    refused("expected integer LAS codes", landcover=write_raster(tmp_path / "float.tif", heights, 1.0))
    whole = hills.surface.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: len(whole) // 2])
    refused("cut.tif: .*truncated|cut.tif: not a readable", surface=cut)
