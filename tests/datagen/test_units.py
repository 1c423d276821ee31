"""Heights end up in metres, whatever the file stores; what cannot be known is refused."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.transform import Affine
from rasterio.warp import transform as transformed

from datagen import sampling
from datagen.scene import GeoScene

from .synthetic import write_raster

ROWS, COLS = 40, 50
US_FOOT = 1200 / 3937
UTM, STATE_PLANE = "EPSG:32618", "EPSG:2263"
EAST, NORTH = 590_000.0, 4_510_000.0


def truth(x_px: np.ndarray, y_px: np.ndarray) -> np.ndarray:
    """Heights of 480 to 520 m in cells."""
    return 500 + 20 * np.sin(x_px / 9) * np.cos(y_px / 7)


HEIGHTS = truth(np.arange(COLS)[None], np.arange(ROWS)[:, None])


@pytest.fixture(scope="module")
def ortho(tmp_path_factory):
    colour = np.random.default_rng(0).integers(30, 220, (3, ROWS, COLS)).astype(np.uint8)
    return write_raster(tmp_path_factory.mktemp("ortho") / "ortho.tif", colour)


@pytest.fixture
def surface(tmp_path):
    """Writes the heights (as given, or HEIGHTS in the given type) with tags and opens the scene."""

    def write(heights=HEIGHTS, dtype=np.float32, **options):
        return write_raster(tmp_path / "surface.tif", np.asarray(heights).astype(dtype), **options)

    return write


def absolute_heights(scene: GeoScene) -> np.ndarray:
    return scene.heights_rc.astype(np.float64) + scene.origin_xyz[2]


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [(np.int16, 0.1, 0.0), (np.uint8, 0.25, 480.0), (np.int16, 0.01, 400.0), (np.float32, 1, -7)],
)
def test_scale_and_offset_are_applied(surface, ortho, dtype, scale, offset):
    path = surface(np.round((HEIGHTS - offset) / scale), dtype, tags={"scales": (scale,), "offsets": (offset,)})
    assert np.abs(absolute_heights(GeoScene.open(path, ortho)) - HEIGHTS).max() <= 0.51 * scale


def test_scale_and_offset_are_applied_before_the_unit(surface, ortho):
    tags = {"scales": (0.1,), "offsets": (1000.0,), "units": ("ft",)}
    path = surface(np.round((HEIGHTS / 0.3048 - 1000) / 0.1), np.int16, tags=tags)
    assert np.abs(absolute_heights(GeoScene.open(path, ortho)) - HEIGHTS).max() < 0.02


@pytest.mark.parametrize(
    ("tag", "unit_m"),
    [
        ("m", 1), ("Metre", 1), ("", 1), ("unknown", 1), ("ft", 0.3048), ("foot", 0.3048), ("feet", 0.3048),
        ("us-ft", US_FOOT), ("US survey foot", US_FOOT), ("dm", 0.1), ("cm", 0.01), ("mm", 0.001),
    ],
)  # fmt: skip
def test_unit_tags(surface, ortho, tag, unit_m):
    scene = GeoScene.open(surface(HEIGHTS / unit_m, tags={"units": (tag,)}), ortho)
    assert np.abs(absolute_heights(scene) - HEIGHTS).max() < 1e-3
    assert ("assumed" in str(scene.assumptions)) == (tag in ("", "unknown"))
    assert scene.assumptions.record()["metres_per_height_unit"] == pytest.approx(unit_m, rel=1e-9)


def test_units_in_the_vertical_crs(surface, ortho):
    scene = GeoScene.open(surface(HEIGHTS / US_FOOT, crs="EPSG:2056+6360"), ortho)
    # Two feet that differ by 2e-6 make 1 mm in 500 m, which this rules out.
    assert np.abs(absolute_heights(scene) - HEIGHTS).max() < 3e-4
    assert "US survey foot" in str(scene.assumptions) and "NAVD88" in str(scene.assumptions)
    assert scene.crs.to_epsg() == 2056, "the vertical part is no part of the world frame"


def test_what_the_user_says_overrules_the_file(surface, ortho):
    path = surface(HEIGHTS, crs="EPSG:2056+6360")  # declares feet, holds metres
    assert np.abs(absolute_heights(GeoScene.open(path, ortho, height_unit="metre")) - HEIGHTS).max() < 1e-3


def test_unknown_and_contradictory_units_are_refused(surface, ortho):
    with pytest.raises(ValueError, match=r"surface.tif: unknown height unit 'furlong'.*--height_unit"):
        GeoScene.open(surface(tags={"units": ("furlong",)}), ortho)
    with pytest.raises(ValueError, match=r"band says heights in ft, its CRS in metre; decide with --height_unit"):
        GeoScene.open(surface(crs="EPSG:2056+5728", tags={"units": ("ft",)}), ortho)
    with pytest.raises(ValueError, match="counts downwards"):
        GeoScene.open(surface(crs="EPSG:2056+5831"), ortho)


def test_heights_that_no_ground_has_are_refused_with_a_hint(surface, ortho):
    with pytest.raises(ValueError, match=r"surface.tif: every cell is nodata, or outside .*see --height_unit"):
        GeoScene.open(surface(HEIGHTS * 1000), ortho)


@pytest.mark.parametrize(
    ("crs", "tags", "options"),
    [
        (f"{STATE_PLANE}+6360", {}, {}),
        (STATE_PLANE, {"units": ("US survey foot",)}, {}),
        (STATE_PLANE, {}, {"height_unit": "us-foot"}),
    ],
)
def test_positions_in_feet(tmp_path, crs, tags, options):
    """A surface that is known in UTM, stored on a grid in feet."""
    terrain = lambda e, n: 50 + 10 * np.sin((e - EAST) / 30) * np.cos((n - NORTH) / 40)  # noqa: E731
    (x,), (y,) = transformed(UTM, STATE_PLANE, [EAST], [NORTH])
    step, count = 6.0, 80
    grid = Affine(step, 0, x - step * count / 2, 0, -step, y + step * count / 2)
    x_ft, y_ft = np.meshgrid(grid.c + (np.arange(count) + 0.5) * step, grid.f - (np.arange(count) + 0.5) * step)
    east, north = transformed(STATE_PLANE, UTM, x_ft.ravel().tolist(), y_ft.ravel().tolist())
    z_ft = terrain(np.array(east), np.array(north)).reshape(count, count) / US_FOOT
    surface = write_raster(tmp_path / "s.tif", z_ft.astype(np.float32), transform=grid, crs=crs, tags=tags)
    colour = np.full((3, count, count), 90, np.uint8)
    scene = GeoScene.open(surface, write_raster(tmp_path / "o.tif", colour, transform=grid, crs=STATE_PLANE), **options)
    assert scene.crs.to_epsg() == 32618 and "US survey foot" in str(scene.assumptions)
    assert scene.grid.step_x == pytest.approx(step * US_FOOT, rel=1e-3)
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-50, 50, 21), np.linspace(-50, 50, 21)))
    world_x, world_y = x + EAST - scene.origin_xyz[0], y + NORTH - scene.origin_xyz[1]
    found = scene.height_at(world_x, world_y) + scene.origin_xyz[2]
    assert np.abs(found - terrain(x + EAST, y + NORTH)).max() < 0.1


def test_positions_in_feet_and_heights_in_who_knows_are_refused(tmp_path, ortho):
    surface = write_raster(tmp_path / "s.tif", HEIGHTS.astype(np.float32), crs=STATE_PLANE, left=1e6, top=2e5)
    with pytest.raises(ValueError, match=r"s.tif: positions in units of 0\.304800\d* m and heights .*--height_unit"):
        GeoScene.open(surface, ortho)


@pytest.mark.parametrize(
    ("crs", "left", "top", "step", "datum", "ellipsoidal"),
    [
        ("EPSG:25833+7837", 5e5, 5.8e6, 1.0, "DHHN2016 height", False),
        ("EPSG:4979", 15.0, 52.0, 1e-5, "WGS 84", True),
        ("EPSG:4326+5773", 15.0, 52.0, 1e-5, "EGM96 height", False),
        ("EPSG:25833", 5e5, 5.8e6, 1.0, "", None),
    ],
)
def test_the_vertical_datum_is_said_and_never_applied(tmp_path, crs, left, top, step, datum, ellipsoidal):
    where = {"left": left, "top": top, "step": step}
    flat = np.full((ROWS, COLS), 123.25, np.float32)
    surface = write_raster(tmp_path / "s.tif", flat, crs=crs, **where)
    colour = np.full((3, ROWS, COLS), 90, np.uint8)
    # An orthophoto with another vertical part, or none, changes nothing.
    for ortho_crs in (crs, "EPSG:4326" if step < 1 else "EPSG:25833"):
        scene = GeoScene.open(surface, write_raster(tmp_path / "o.tif", colour, crs=ortho_crs, **where))
        heights = absolute_heights(scene)
        assert np.isfinite(heights).mean() > 0.8 and np.abs(heights[np.isfinite(heights)] - 123.25).max() < 1e-4
        assert scene.assumptions.vertical.datum == datum and scene.assumptions.vertical.ellipsoidal is ellipsoidal
        assert (datum or "vertical datum not declared") in str(scene.assumptions)


def test_ellipsoidal_presets_over_levelled_heights_are_warned_of(surface, ortho, caplog):
    preset = sampling.Preset(1, False, ((0, 1), (0, 1)), (0, 1), "ellipsoid", (0, 0), (-90, -90), (0, 0))
    for crs, expected in (("EPSG:2056+5728", 1), ("EPSG:2056", 0)):
        caplog.clear()
        sampling.preset_proposal(preset, GeoScene.open(surface(crs=crs), ortho))
        assert caplog.text.count("hRange is taken above that") == expected
