"""What is missing and not declared so: fill values, collars, alpha that is none; and what looks missing and is not."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from datagen import sampling
from datagen.cameras import Camera, centred_intrinsics
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import LEFT, TOP, block_height, cell_centres, plane_height, smooth_height, write_raster
from .test_geodata import warped
from .test_labels import pose

COUNT = 200
X, Y = (v.ravel() for v in cell_centres(1.0))
RED, GREEN, BLUE, ALPHA = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha
# Water in the south of a brown field.
PICTURE = np.broadcast_to(np.uint8([150, 110, 60])[:, None, None], (3, COUNT, COUNT)).copy()
PICTURE[:, 100:] = np.uint8([20, 50, 120])[:, None, None]
HOLE = np.zeros((COUNT, COUNT), bool)
HOLE[:, :60] = True


def hills(base: float) -> np.ndarray:
    return base + smooth_height(X[None], Y[:, None])


@pytest.fixture(scope="module")
def ortho(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("ortho") / "ortho.tif", PICTURE)


@pytest.fixture
def open_with(tmp_path, ortho):
    """Opens a scene of given heights (north-up, LV95) over the common orthophoto."""

    def open_scene(heights, **options) -> GeoScene:
        return GeoScene.open(write_raster(tmp_path / "surface.tif", heights, **options), ortho)

    return open_scene


def absolute_heights(scene: GeoScene) -> np.ndarray:
    return scene.heights_rc.astype(np.float64) + scene.origin_xyz[2]


@pytest.mark.parametrize(
    ("fill", "dtype"),
    [
        (-9999, np.float32), (-9999, np.int16), (-32767, np.int16), (-32768, np.int16), (-3.4028235e38, np.float32),
        (3.4028235e38, np.float32), (1e20, np.float64), (65535, np.uint16), (0, np.float32), (0, np.uint16),
        (-99, np.float32),
        (np.inf, np.float32), (np.nan, np.float32),
    ],
)  # fmt: skip
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_undeclared_fill_is_a_hole(open_with, fill, dtype, share):
    hole = np.zeros((COUNT, COUNT), bool)
    hole[:, : int(share * COUNT)] = True
    stored = np.where(hole, fill, hills(300)).astype(dtype)
    scene = open_with(stored)
    assert (np.isnan(scene.heights_rc) == hole).all()
    assert np.allclose(absolute_heights(scene)[~hole], stored[~hole], atol=1e-3)
    assert scene.origin_xyz[2] == 300 and scene.assumptions.holes == pytest.approx(hole.mean())
    if np.isfinite(fill):
        assert f"undeclared nodata {float(np.dtype(dtype).type(fill)):.9g} " in str(scene.assumptions)


def test_a_declared_nodata_does_not_hide_another_fill(open_with):
    heights = hills(300).astype(np.float32)
    heights[:50], heights[50:70] = -9999, -32767
    scene = open_with(heights, nodata=-9999)
    assert np.isnan(scene.heights_rc[:70]).all() and np.isfinite(scene.heights_rc[70:]).all()
    assert scene.assumptions.fills == [-32767]


def test_scaled_fill(open_with):
    """Stored -32768 is a possible -327.68 m after scaling: it is told by its distance from everything else."""
    stored = np.where(HOLE, -32768, np.round(hills(300) / 0.01)).astype(np.int16)
    scene = open_with(stored, tags={"scales": (0.01,), "offsets": (0.0,)})
    assert (np.isnan(scene.heights_rc) == HOLE).all() and scene.assumptions.fills == [-32768]


def towers(x, y):
    """Two hundred metres straight up on flat ground at 0, few levels."""
    return np.where((np.abs(x) < 20) & (np.abs(y) < 20), 200 + 10 * (x > 0), 0.0)


def city(x, y):
    """Forty-nine pitched roofs on flat ground at 0."""
    return np.where((np.mod(x, 28) < 14) & (np.mod(y, 28) < 14), 15 + 0.3 * np.mod(x, 28) + 0.02 * np.abs(y), 0.0)


def coast(x, y):
    """A flat sea at 0 and land that rises from it."""
    return np.maximum(0, 0.8 * x + smooth_height(x, y))


@pytest.mark.parametrize("height", [block_height, towers, city, coast, plane_height, smooth_height])
def test_ground_is_not_taken_for_fill(open_with, height):
    heights = np.broadcast_to(height(X[None], Y[:, None]), (COUNT, COUNT)).astype(np.float32)
    scene = open_with(heights)
    assert np.isfinite(scene.heights_rc).all() and not scene.assumptions.fills


def test_a_declared_nodata_leaves_zero_alone(open_with):
    heights = np.where(HOLE, 0, hills(300)).astype(np.float32)
    assert np.isfinite(open_with(heights, nodata=-9999).heights_rc).all()


def test_fill_does_not_leak_into_its_neighbours(open_with, tmp_path, ortho):
    heights = np.where(HOLE, -9999, hills(300)).astype(np.float32)
    plain = write_raster(tmp_path / "plain.tif", heights)
    # Warped by the scene from another CRS, and by somebody who did not know the fill either.
    elsewhere = warped(write_raster(tmp_path / "near.tif", hills(300).astype(np.float32)), tmp_path / "e.tif", "EPSG:32632")
    for path in (warped(plain, tmp_path / "blended.tif", "EPSG:2056"), warped(plain, tmp_path / "utm.tif", "EPSG:32632")):
        found = absolute_heights(GeoScene.open(path, ortho))
        assert 0.6 < np.isfinite(found).mean() < 0.75
        assert np.nanmin(found) > hills(300).min() - 60 and np.nanmax(found) < hills(300).max() + 60
    assert np.nanmin(absolute_heights(GeoScene.open(elsewhere, ortho))) > 280


def test_cameras_do_not_go_under_ground_through_a_hole(open_with):
    scene = open_with(np.where(HOLE, -9999, hills(300)).astype(np.float32))
    renderer, K_33 = Renderer(scene), centred_intrinsics(60.0, 96, 64)
    # Below the hills beside the hole, looking up at their underside.
    under = pose(-60, 0, -60, 90, 30, 0)
    assert sampling.clearance(scene, under) == np.inf and renderer.sight(under, K_33, 96, 64).underside > 0.1
    assert not sampling.is_acceptable(renderer, under, K_33, (96, 64), 0.05)
    with pytest.raises(ValueError, match="camera a at .* sees the surface from below in"):
        sampling.check_cameras([Camera("a", under, K_33, 96, 64)], renderer)
    assert renderer.sight(pose(0, 0, 60, 0, -60, 0), K_33, 96, 64).underside == 0


@pytest.fixture
def coloured(tmp_path):
    """The orthophoto of given bands as the scene holds it: (uint8 [rows, cols, 3], picture [rows, cols], scene)."""
    surface = write_raster(tmp_path / "surface.tif", np.zeros((COUNT, COUNT), np.float32))

    def open_scene(bands, *, crs=None, **options):
        path = write_raster(tmp_path / "ortho.tif", bands, **options)
        scene = GeoScene.open(surface, warped(path, tmp_path / "warped.tif", crs) if crs else path)
        c, r = np.meshgrid(np.arange(COUNT) + 0.5, np.arange(COUNT) + 0.5)
        u, v = scene.ortho_grid.columns(c - 100), scene.ortho_grid.rows_of(100 - r)
        level = scene.texture.levels[0]
        colour = level[np.clip(v.astype(int), 0, len(level) - 1), np.clip(u.astype(int), 0, level.shape[1] - 1)]
        return colour, scene.texture.is_picture(u.ravel(), v.ravel()).reshape(COUNT, COUNT), scene

    return open_scene


def test_white_and_black_collars_are_missing_and_roofs_are_not(coloured):
    for value in (0, 255):
        bands = PICTURE.copy()
        bands[:, HOLE] = value
        bands[:, 30:60, 120:150] = 255  # a roof
        colour, picture, scene = coloured(bands)
        assert not picture[HOLE].any() and picture[:, 65:].all()
        assert (colour[30:60, 120:150] == 255).all() and (np.abs(colour[20, 30].astype(int) - PICTURE[:, 20, 30]) < 50).all()
        assert scene.assumptions.coverage == pytest.approx(0.7, abs=0.02)
        assert ("white collar (3" in str(scene.assumptions)) == (value == 255) and "covers only" in str(scene.assumptions)


def test_declared_nodata_and_masks_decide_alone(coloured):
    bands = PICTURE.copy()
    bands[:, HOLE] = 255
    assert coloured(bands, nodata=7)[1].all(), "white is a colour where nodata is declared to be something else"
    assert not coloured(bands, nodata=255)[1][HOLE].any()


@pytest.mark.parametrize("crs", [None, "EPSG:32632"])
def test_bands_are_found_by_their_tags_and_names(coloured, crs):
    tags = {"colorinterp": (BLUE, GREEN, RED)}
    named = {"descriptions": ("NIR", "Red", "Green", "Blue")}
    nir = np.full((1, COUNT, COUNT), 200, np.uint8)
    for bands, options, remark in (
        (PICTURE, {"tags": {"colorinterp": (RED, GREEN, BLUE)}}, ""),
        (PICTURE[::-1], {"photometric": "MINISBLACK", "tags": tags}, "red, green, blue are bands [3, 2, 1]"),
        (np.concatenate((nir, PICTURE)), {"tags": named}, "red, green, blue are bands [2, 3, 4]"),
    ):
        colour, picture, scene = coloured(np.ascontiguousarray(bands), crs=crs, **options)
        # Resampled twice, pixels at the shore and the border mix.
        inner = np.r_[10:90, 110:190]
        assert np.abs(colour[inner, 10:-10].astype(int) - PICTURE.transpose(1, 2, 0)[inner, 10:-10]).max() <= 2 * bool(crs)
        assert picture[10:-10, 10:-10].all() and remark in str(scene.assumptions)


def test_false_colour_is_said(coloured):
    scene = coloured(PICTURE, tags={"descriptions": ("nir", "red", "green")})[2]
    assert "band 1 shown as a colour is nir" in str(scene.assumptions)


@pytest.mark.parametrize("crs", [None, "EPSG:32632"])
def test_near_infrared_tagged_alpha_hides_nothing(coloured, crs):
    """It is zero over water, where the picture would be taken as missing."""
    nir = np.random.default_rng(0).integers(90, 250, (1, COUNT, COUNT)).astype(np.uint8)
    nir[:, 100:] = 0
    tags = {"colorinterp": (RED, GREEN, BLUE, ALPHA)}
    colour, picture, scene = coloured(np.concatenate((PICTURE, nir)), crs=crs, photometric="RGB", tags=tags)
    inner = np.s_[5:-5, 5:-5]
    assert picture[inner].all() and "tagged alpha holds picture content" in str(scene.assumptions)
    assert np.abs(colour[150, 20:180].astype(int) - PICTURE[:, 150, 20]).max() <= 2


@pytest.mark.parametrize("crs", [None, "EPSG:32632"])
@pytest.mark.parametrize("opaque", [1, 255])
def test_true_alpha_hides(coloured, crs, opaque):
    alpha = np.where(HOLE, 0, opaque).astype(np.uint8)[None]
    tags = {"colorinterp": (RED, GREEN, BLUE, ALPHA)}
    bands = np.concatenate((PICTURE, alpha))
    bands[:3, HOLE] = 255
    colour, picture, _ = coloured(bands, crs=crs, photometric="RGB", tags=tags)
    assert not picture[5:-5, 5:55].any() and picture[5:-5, 65:-5].all()
    assert np.abs(colour[150, 20].astype(int) - PICTURE[:, 150, 20]).max() < 50, "filled from the surroundings"


def test_grey_and_grey_with_alpha(coloured):
    grey = PICTURE[:1]
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)[None]
    for bands, tags in ((grey, (ColorInterp.gray,)), (np.concatenate((grey, alpha)), (ColorInterp.gray, ALPHA))):
        colour, picture, scene = coloured(bands, tags={"colorinterp": tags})
        assert (colour[:, 70:] == grey[0, :, 70:, None]).all() and "grey" in str(scene.assumptions)
        assert picture[:, 70:].all() and picture[:, :50].all() == (len(bands) == 1)


def test_views_of_ground_without_orthophoto_are_drawn_again(tmp_path, caplog):
    """An orthophoto of the middle ninth of a wide surface model."""
    surface = write_raster(tmp_path / "surface.tif", np.zeros((150, 150), np.float32), 2.0, left=LEFT, top=TOP)
    part = np.random.default_rng(0).integers(0, 256, (3, 100, 100)).astype(np.uint8)
    scene = GeoScene.open(surface, write_raster(tmp_path / "part.tif", part, 1.0, left=LEFT + 100, top=TOP - 100))
    assert scene.assumptions.coverage == pytest.approx(1 / 9, rel=0.02)
    assert "covers only 11.1% of the surface" in str(scene.assumptions)
    renderer, K_33, size = Renderer(scene), centred_intrinsics(80.0, 96, 64), (96, 64)
    preset = sampling.Preset(
        30, False, ((LEFT + 40, LEFT + 260), (TOP - 260, TOP - 40)), (40, 50), "ground", (0, 360), (-90, -80), (0, 0)
    )
    poses, rejected = sampling.sample_views(
        sampling.preset_proposal(preset, scene), renderer, K_33, size, 30, min_valid=0.6, seed=0
    )
    assert rejected > 60
    for pose_44 in poses:
        view = renderer.render(pose_44, K_33, *size)
        x, y = view.coords_3hw[:2, view.valid_hw] + np.float32(np.subtract(scene.origin_xyz[:2], (LEFT, TOP)))[:, None]
        assert ((x > 100) & (x < 200) & (y < -100) & (y > -200)).mean() >= 0.6
    # A photo is there, whatever the orthophoto shows: it is used, with a warning.
    x, y = np.subtract((LEFT + 40, TOP - 40), scene.origin_xyz[:2])
    bare = [Camera(name, pose(x, y, 40, 0, -90, 0), K_33, *size) for name in ("a", "b")]
    shown = [Camera("c", poses[0], K_33, *size)]
    sampling.check_cameras(bare + shown, renderer)
    assert "2 of 3 cameras see mostly ground without orthophoto, rendered in made-up colour: a, b" in caplog.text
