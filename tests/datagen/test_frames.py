"""The metric frame: a metre of the world is one on the ground, in any CRS, orientation and local frame."""

from __future__ import annotations

import json

import numpy as np
import pyproj
import pytest
from rasterio.transform import Affine
from rasterio.warp import transform as transformed

from datagen import frames, sampling
from datagen.__main__ import main
from datagen.cameras import centred_intrinsics
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import LEFT, TOP, Geodata, smooth_colour, smooth_height, write_raster
from .test_labels import pose

LOCAL = 'LOCAL_CS["site {}",LOCAL_DATUM["site",0],UNIT["{}",{}],AXIS["X",EAST],AXIS["Y",NORTH]]'
METRES = LOCAL.format("a", "metre", 1)
COUNT = 100
UP = Affine(1, 0, -50, 0, -1, 50)
UTM_CORNER = (500_000.0 - 50, 5_800_000.0 + 50)


def sampled(function, grid: Affine, dtype, shift=(0.0, 0.0)) -> np.ndarray:
    """A function of x, y at the cell centres of any affine grid of COUNT x COUNT cells."""
    c, r = np.meshgrid(np.arange(COUNT) + 0.5, np.arange(COUNT) + 0.5)
    x, y = grid.a * c + grid.b * r + grid.c - shift[0], grid.d * c + grid.e * r + grid.f - shift[1]
    return np.asarray(function(x, y)).astype(dtype)


def render(scene: GeoScene):
    return Renderer(scene).render(pose(-3, 4, 60, 20, -85, 0), centred_intrinsics(170.0, 120, 80), 120, 80)


ORIENTATIONS = {
    "north-up": UP,
    "south-up": Affine(1, 0, -50, 0, 1, -50),
    "west-up": Affine(-1, 0, 50, 0, -1, 50),
    "upside down": Affine(-1, 0, 50, 0, 1, -50),
    "turned": Affine.rotation(30) * Affine.scale(1.2) * UP,
    "transposed": Affine(0, 1, -50, 1, 0, -50),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
@pytest.mark.parametrize("crs", ["EPSG:25833", METRES], ids=["projected", "local"])
def test_every_orientation_gives_the_same_scene(tmp_path, name, crs):
    shift = (0.0, 0.0) if crs == METRES else (5e5, 5.8e6)
    move = Affine.translation(*shift)

    def scene_of(surface_grid, ortho_grid):
        heights = sampled(smooth_height, move * surface_grid, np.float32, shift)
        colour = sampled(smooth_colour, move * ortho_grid, np.uint8, shift)
        surface = write_raster(tmp_path / "s.tif", heights, transform=move * surface_grid, crs=crs, nodata=-9999)
        ortho = write_raster(tmp_path / "o.tif", colour, transform=move * ortho_grid, crs=crs)
        return GeoScene.open(surface, ortho)

    upright, grid = render(scene_of(UP, UP)), ORIENTATIONS[name]
    for surface_grid, ortho_grid in ((grid, UP), (UP, grid), (grid, grid)):
        found = render(scene_of(surface_grid, ortho_grid))
        assert found.valid_hw.all()
        x, y, z = found.coords_3hw.astype(np.float64)
        # Facets of 1.2 m and their resampling against a smooth surface.
        assert np.abs(z - smooth_height(x, y)).max() < (0.06 if name == "turned" else 0.03)
        assert np.abs(found.rgb_HW3.astype(int) - upright.rgb_HW3).mean() < (3 if name == "turned" else 0.5)


@pytest.mark.parametrize("name", ["south-up", "west-up", "upside down"])
def test_a_part_of_a_flipped_orthophoto(tmp_path, name):
    """The surface model lies in one corner of the orthophoto: its pixels come from that corner, untouched."""
    grid, (left, top) = ORIENTATIONS[name], UTM_CORNER
    move = Affine.translation(left + 50, top - 50)
    colour = sampled(smooth_colour, grid, np.uint8)
    ortho = write_raster(tmp_path / "o.tif", colour, transform=move * grid, crs="EPSG:25833")
    corner = write_raster(tmp_path / "s.tif", np.ones((30, 40), np.float32), left=left + 10, top=top - 5, crs="EPSG:25833")
    level = GeoScene.open(corner, ortho).texture.levels[0]
    np.testing.assert_array_equal(level, sampled(smooth_colour, UP, np.uint8).transpose(1, 2, 0)[5:35, 10:50])


@pytest.mark.parametrize(("lon", "lat"), [(9.0, 0.2), (12.0, 47.0), (-70.0, 64.0)])
def test_web_mercator_is_brought_to_true_metres(tmp_path, lon, lat):
    """At the equator its metre is one eastward only, elsewhere one nowhere."""
    (x,), (y,) = transformed("EPSG:4326", "EPSG:3857", [lon], [lat])
    half = 60.0 / np.cos(np.deg2rad(lat))
    step = 2 * half / COUNT
    where = {"left": x - half, "top": y + half, "step": step, "crs": "EPSG:3857"}
    surface = write_raster(tmp_path / "s.tif", np.tile(np.arange(COUNT, dtype=np.float32), (COUNT, 1)), **where)
    scene = GeoScene.open(surface, write_raster(tmp_path / "o.tif", np.full((3, COUNT, COUNT), 99, np.uint8), **where))
    assert scene.crs.to_epsg() // 100 in (326,) and "a metre on the ground" in str(scene.assumptions)
    # A slope of one metre a column: its run between two heights is the true distance of those columns.
    geod = pyproj.Geod(ellps="WGS84")
    ends = transformed("EPSG:3857", "EPSG:4326", [x - half + 10.5 * step, x - half + 89.5 * step], [y, y])
    _, _, true_m = geod.inv(ends[0][0], ends[1][0], ends[0][1], ends[1][1])
    world_x, world_y = scene.lonlat_to_world(*ends)
    assert np.hypot(np.ptp(world_x), np.ptp(world_y)) == pytest.approx(true_m, rel=1.5e-3)
    assert np.allclose(scene.height_at(world_x, world_y) + scene.origin_xyz[2], [10, 89], atol=0.1)
    if lat > 1:
        assert true_m < 0.9 * np.ptp([x - half + 10.5 * step, x - half + 89.5 * step])


@pytest.mark.parametrize(
    ("crs", "lon", "lat", "kept"),
    [
        ("EPSG:2056", 7.4, 46.9, True),
        ("EPSG:25833", 15.0, 52.0, True),
        ("EPSG:25833", 5.3, 60.4, True),  # Bergen, two zones off: 0.3 %
        ("EPSG:3035", 10.0, 50.0, True),
        ("EPSG:3035", 35.0, 65.0, False),  # 1.4 % at the border of the continent
        ("EPSG:3413", -45.0, 80.0, False),
        ("EPSG:2193", 174.0, -41.0, True),
        ("EPSG:3857", 0.0, 0.0, False),
        ("EPSG:2263", -74.0, 40.7, False),
    ],
)
def test_a_crs_is_kept_where_its_metre_is_one(crs, lon, lat, kept):
    (x,), (y,) = transformed("EPSG:4326", crs, [lon], [lat])
    frame = frames.working_frame(frames.declared(crs), (x, y), "name")
    assert (frame.crs.to_string() == crs) == kept and (frame.reason == "") == kept
    if not kept:
        (x,), (y,) = transformed("EPSG:4326", frame.crs, [lon], [lat])
    assert np.allclose(frames.ground_scale(frame.crs, x, y), 1, atol=frames.MAX_SCALE_ERROR)


def test_a_metre_that_is_slightly_off_is_said(caplog):
    (x,), (y,) = transformed("EPSG:4326", "EPSG:25833", [5.3], [60.4])
    frames.working_frame(frames.declared("EPSG:25833"), (x, y), "name")
    assert "name: a metre on the ground is 1.003" in caplog.text


def test_projected_kilometres(tmp_path):
    where = {"left": 500.0, "top": 5800.0, "step": 1e-3, "crs": "+proj=utm +zone=33 +datum=WGS84 +units=km"}
    surface = write_raster(tmp_path / "s.tif", np.full((COUNT, COUNT), 7, np.float32), tags={"units": ("m",)}, **where)
    scene = GeoScene.open(surface, write_raster(tmp_path / "o.tif", np.full((3, COUNT, COUNT), 9, np.uint8), **where))
    assert scene.crs.to_epsg() == 32633 and np.allclose(scene.grid.step_x, 1, rtol=1e-3)
    assert np.allclose(scene.lonlat_to_world(*transformed(where["crs"], "EPSG:4326", [500.05], [5799.95])),
                       [[500_050 - scene.origin_xyz[0]], [5_799_950 - scene.origin_xyz[1]]], atol=0.01)  # fmt: skip


@pytest.fixture
def site(tmp_path):
    def write(surface_crs, ortho_crs, left=-50.0, top=50.0) -> Geodata:
        heights, colour = sampled(smooth_height, UP, np.float32), sampled(smooth_colour, UP, np.uint8)
        codes = np.full((COUNT, COUNT), 6, np.uint8)
        return Geodata(
            write_raster(tmp_path / "s.tif", heights, left=left, top=top, crs=surface_crs),
            write_raster(tmp_path / "o.tif", colour, left=left, top=top, crs=ortho_crs),
            write_raster(tmp_path / "c.tif", codes, left=left, top=top, crs=ortho_crs),
        )

    return write


@pytest.mark.parametrize(
    ("surface_crs", "ortho_crs", "options"),
    [
        (METRES, METRES, {}),
        (METRES, LOCAL.format("b", "metre", 1), {}),
        (None, None, {"declared_crs": "local"}),
        (None, METRES, {"declared_crs": "local"}),
    ],
)
def test_local_frames_in_metres_are_taken_as_they_are(site, surface_crs, ortho_crs, options):
    scene = site(surface_crs, ortho_crs).open(**options)
    assert scene.origin_xyz == (0, 0, 0) and frames.is_local(scene.crs)
    x, y, z = render(scene).coords_3hw.astype(np.float64)
    assert np.abs(z - smooth_height(x, y)).max() < 0.03 and (render(scene).semantics_HW == 6).all()
    preset = sampling.Preset(1, True, ((0, 1), (0, 1)), (0, 1), "ground", (0, 0), (-90, -90), (0, 0))
    with pytest.raises(ValueError, match="local CRS: longitude and latitude have no place there"):
        sampling.preset_proposal(preset, scene)(1, np.random.default_rng(0))


def test_local_frames_that_cannot_be_used_are_refused(site):
    with pytest.raises(ValueError, match=r"s.tif: a local CRS in units of 0\.3048 m; convert"):
        site(LOCAL.format("a", "foot", 0.3048), METRES).open()
    with pytest.raises(ValueError, match=r"orthophoto .*o.tif is in EPSG:25833, the scene in site a: a local CRS cannot"):
        site(METRES, "EPSG:25833").open()
    with pytest.raises(ValueError, match=r"orthophoto .*o.tif is in site a, the scene in EPSG:25833: a local CRS cannot"):
        site("EPSG:25833", METRES, *UTM_CORNER).open()


def test_files_without_a_crs(site):
    bare = site(None, None, *UTM_CORNER)
    with pytest.raises(ValueError, match=r"s.tif: the raster has no coordinate reference system \(say it with --crs"):
        bare.open()
    with pytest.raises(ValueError, match="'EPSG:nothing' is not a CRS; give an EPSG code"):
        bare.open(declared_crs="EPSG:nothing")
    assert bare.open(declared_crs="EPSG:25833").crs.to_epsg() == 25833
    # It is not for files that have one.
    assert site("EPSG:25833", "EPSG:25833", *UTM_CORNER).open(declared_crs="EPSG:2056").crs.to_epsg() == 25833


def test_origins_too_far_for_float32_labels_are_said_and_then_refused(hills, caplog):
    with pytest.raises(
        ValueError, match=r"origin \[0, 0, 0\]: .* 2,600,200 m, where float32 labels come in steps of 0\.25 m"
    ):
        hills.open(origin_xyz=(0, 0, 0))
    with pytest.raises(ValueError, match="float32"):
        hills.open(origin_xyz=(LEFT, TOP, -2_000_000.0))
    # The steps are 8 mm at 100 km and 16 mm at 200 km.
    assert hills.open(origin_xyz=(LEFT - 100_000, TOP, 0)).origin_xyz[0] == LEFT - 100_000
    assert "float32" not in caplog.text
    hills.open(origin_xyz=(LEFT - 200_000, TOP, 0))
    assert "float32 labels come in steps of 0.0156 m" in caplog.text


def test_one_line_says_what_was_assumed(site, tmp_path, caplog):
    files = site("EPSG:25833+7837", "EPSG:25833", *UTM_CORNER)
    poses = tmp_path / "poses"
    poses.mkdir()
    np.savetxt(poses / "a.txt", pose(0, 0, 50, 0, -90, 0))
    words = ["sections", "--surface", files.surface, "--ortho", files.ortho, "--poses", poses]
    words += ["--origin", 500_000, 5_800_000, 0]
    words += ["--scene", "s", "--output_dir", tmp_path / "out", "--section", "a", "--width", 48, "--height", 32]
    caplog.set_level("INFO")
    assert main([str(word) for word in words]) == 0
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("geodata: ")]
    for fact in ("EPSG:25833;", "heights in metre (vertical CRS), DHHN2016 height", "100 x 100 cells of 1 m", "none missing",
                 "orthophoto 1 m a pixel, covers 100.0% of the surface", "origin [500000.0, 5800000.0, 0.0]"):  # fmt: skip
        assert fact in line
    json.dumps(GeoScene.open(files.surface, files.ortho).assumptions.record())
