"""Layers in many files are the layer in one."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.__main__ import build_parser
from datagen.cameras import centred_intrinsics
from datagen.common_arguments import open_scene
from datagen.mosaic import tile_paths
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import LEFT, TOP, Geodata, cell_centres, quarter_codes, smooth_colour, smooth_height, write_raster
from .test_geodata import warped
from .test_labels import pose

CAMERA = pose(0, 0, 75, 15, -85, 0), centred_intrinsics(120.0, 120, 80), 120, 80


def grid_of(function, step, dtype):
    x, y = cell_centres(step)
    return np.asarray(function(x[None], y[:, None])).astype(dtype)


HEIGHTS, COLOUR = grid_of(smooth_height, 1.0, np.float32), grid_of(smooth_colour, 0.5, np.uint8)
CODES = grid_of(quarter_codes, 1.0, np.uint8)


def write_tiles(folder, bands, step, *, count=2, overlap=0, **options):
    """Cuts a raster into count x count GeoTIFFs; returns their paths."""
    folder.mkdir()
    rows, cols = bands.shape[-2:]
    paths = []
    for i in range(count):
        for j in range(count):
            top, left = i * rows // count, j * cols // count
            part = bands[..., top : (i + 1) * rows // count + overlap, left : (j + 1) * cols // count + overlap]
            where = {"left": LEFT + left * step, "top": TOP - top * step}
            path = folder / f"tile_{i}_{j}.TIF"
            paths.append(write_raster(path, np.ascontiguousarray(part), step, **where, **options))
    return paths


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Geodata:
    folder = tmp_path_factory.mktemp("whole")
    return Geodata(
        write_raster(folder / "s.tif", HEIGHTS, 1.0),
        write_raster(folder / "o.tif", COLOUR, 0.5),
        write_raster(folder / "c.tif", CODES, 1.0, nodata=0),
    )


def assert_same(scene: GeoScene, expected: GeoScene):
    assert scene.origin_xyz == expected.origin_xyz and scene.grid == expected.grid
    np.testing.assert_array_equal(scene.heights_rc, expected.heights_rc)
    found, wanted = Renderer(scene).render(*CAMERA), Renderer(expected).render(*CAMERA)
    np.testing.assert_array_equal(found.rgb_HW3, wanted.rgb_HW3)
    np.testing.assert_array_equal(found.semantics_HW, wanted.semantics_HW)


@pytest.mark.parametrize("overlap", [0, 7])
@pytest.mark.parametrize("as_folder", [True, False])
def test_tiles_are_the_whole(whole, tmp_path, overlap, as_folder):
    options = {"overlap": overlap, "count": 3}
    surface = write_tiles(tmp_path / "s", HEIGHTS, 1.0, **options)
    ortho = write_tiles(tmp_path / "o", COLOUR, 0.5, **options)
    cover = write_tiles(tmp_path / "c", CODES, 1.0, nodata=0, **options)
    for folder in ("s", "o", "c"):  # what other systems leave in folders
        (tmp_path / folder / "._tile_0_0.TIF").write_bytes(b"\0\5\26\7")
        (tmp_path / folder / "readme.txt").write_text("tiles")
    layers = (tmp_path / "s", tmp_path / "o", tmp_path / "c") if as_folder else (surface, ortho, cover)
    scene = GeoScene.open(*layers)
    assert_same(scene, whole.open())
    assert "9 surface and 9 orthophoto files" in str(scene.assumptions)


def test_nodata_is_that_of_each_tile(whole, tmp_path):
    """Declared, another one declared, not declared at all, and NaN; each over a hole of its tile."""
    heights = HEIGHTS + 300
    heights[80:120, 80:120] = np.nan
    tiles = write_tiles(tmp_path / "s", heights, 1.0)
    for path, fill, options in zip(
        tiles, (-9999, -32767, -99999, np.nan), ({"nodata": -9999}, {"nodata": -32767}, {}, {}), strict=True
    ):
        i, j = int(path.stem[5]), int(path.stem[7])
        part = heights[100 * i : 100 * (i + 1), 100 * j : 100 * (j + 1)]
        where = {"left": LEFT + 100 * j, "top": TOP - 100 * i}
        write_raster(path, np.nan_to_num(part, nan=fill), 1.0, **where, **options)
    scene = GeoScene.open(tiles, whole.ortho)
    np.testing.assert_array_equal(scene.heights_rc + np.float32(scene.origin_xyz[2]), heights)
    assert scene.assumptions.fills == [-99999]


def test_units_are_those_of_each_tile(whole, tmp_path):
    tiles = write_tiles(tmp_path / "s", HEIGHTS, 1.0)
    write_raster(tiles[1], HEIGHTS[:100, 100:] / np.float32(0.3048), 1.0, left=LEFT + 100, tags={"units": ("ft",)})
    assert np.abs(GeoScene.open(tiles, whole.ortho).heights_rc - HEIGHTS).max() < 1e-4
    write_raster(tiles[1], HEIGHTS[:100, 100:], 1.0, left=LEFT + 100, crs="EPSG:2056+5728")
    with pytest.raises(ValueError, match=r"tile_0_1.TIF has heights above LN02 height, .*tile_0_0.TIF above an undeclared"):
        GeoScene.open(tiles, whole.ortho)


def test_different_resolutions_work_on_the_finest(whole, tmp_path):
    coarse = write_raster(tmp_path / "coarse.tif", HEIGHTS.reshape(100, 2, 100, 2).mean((1, 3))[:, :50], 2.0)
    fine = write_raster(tmp_path / "fine.tif", np.ascontiguousarray(HEIGHTS[:, 100:]), 1.0, left=LEFT + 100)
    scene = GeoScene.open([coarse, fine], whole.ortho)
    assert scene.grid.step_x == 1 and (scene.grid.rows, scene.grid.cols) == (200, 200)
    np.testing.assert_array_equal(scene.heights_rc[:, 100:], HEIGHTS[:, 100:])
    # A quarter of a coarse cell of the slope at most.
    assert np.abs(scene.heights_rc[:, :100] - HEIGHTS[:, :100]).max() < 0.6


def test_gaps_between_tiles_stay_holes_and_another_crs_joins(whole, tmp_path):
    tiles = write_tiles(tmp_path / "s", HEIGHTS, 1.0)
    scene = GeoScene.open(tiles[:3], whole.ortho)
    missing = np.isnan(scene.heights_rc)
    assert missing[100:, 100:].all() and not missing[:100].any() and not missing[:, :100].any()
    joined = GeoScene.open([*tiles[:3], warped(tiles[3], tmp_path / "utm.tif", "EPSG:32632", nodata=-9999)], whole.ortho)
    inner = joined.heights_rc[105:195, 105:195] - HEIGHTS[105:195, 105:195]
    assert joined.crs.to_epsg() == 2056 and np.abs(inner).max() < 0.1


def test_collars_of_tiles_over_each_other_and_roofs_across_them(whole, tmp_path):
    """Every tile has a white collar over its neighbour; a white roof lies across the border of two."""
    colour = COLOUR.copy()
    colour[:, 100:140, 180:220] = 255
    tiles = write_tiles(tmp_path / "o", colour, 0.5)
    for path in tiles:
        i, j = int(path.stem[5]), int(path.stem[7])
        part = np.full((3, 240, 240), 255, np.uint8)
        part[:, 20:220, 20:220] = colour[:, 200 * i : 200 * (i + 1), 200 * j : 200 * (j + 1)]
        write_raster(path, part, 0.5, left=LEFT + 100 * j - 10, top=TOP - 100 * i + 10)
    scene = GeoScene.open(whole.surface, tiles)
    level = scene.texture.levels[0]
    assert level.shape == (400, 400, 3)
    inner = np.ones((400, 400), bool)
    for border in (0, 200, 400):  # the fringe of each collar takes the neighbouring colour
        inner[max(border - 5, 0) : border + 5] = inner[:, max(border - 5, 0) : border + 5] = False
    inner[95:145, 175:225] = False
    assert (level[inner] == colour.transpose(1, 2, 0)[inner]).all()
    # Edge to edge, without collars: nothing but the tiles' borders cuts the roof.
    plain = write_tiles(tmp_path / "plain", colour, 0.5)
    np.testing.assert_array_equal(GeoScene.open(whole.surface, plain).texture.levels[0], colour.transpose(1, 2, 0))


def test_tile_lists(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="surface model .*empty: a folder without a GeoTIFF"):
        tile_paths(tmp_path / "empty", "surface model")
    for name in ("b.tif", "a.TIFF", ".hidden.tif", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in tile_paths([tmp_path, "c.vrt"], "orthophoto")] == ["a.TIFF", "b.tif", "c.vrt"]


def test_the_commands_take_folders_and_several_files(whole, tmp_path, capsys):
    surface, ortho = write_tiles(tmp_path / "s", HEIGHTS, 1.0), write_tiles(tmp_path / "o", COLOUR, 0.5)
    views = ["--preset", "p.json", "--scene", "s", "--output_dir", str(tmp_path)]

    def parsed(*geodata):
        return build_parser("sections").parse_args(["sections", *map(str, geodata), *views])

    args = parsed("--surface", tmp_path / "s", "--ortho", *ortho, "--landcover", whole.landcover)
    assert (args.surface, args.ortho, args.landcover) == (surface, ortho, whole.landcover)
    assert_same(open_scene(args, tmp_path / "scene"), whole.open())
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        parsed("--surface", tmp_path / "empty", "--ortho", whole.ortho)
    assert "a folder without a GeoTIFF" in capsys.readouterr().err
    assert open_scene(parsed("--surface", whole.surface, "--ortho", whole.ortho, "--height_unit", "foot"), tmp_path
                      ).heights_rc.max() == pytest.approx(0.3048 * HEIGHTS.max())  # fmt: skip


def test_bad_tiles_are_named(whole, tmp_path):
    tiles = write_tiles(tmp_path / "s", HEIGHTS, 1.0)
    with pytest.raises(FileNotFoundError, match=r"surface model .*none.tif: no such file"):
        GeoScene.open([*tiles, tmp_path / "none.tif"], whole.ortho)
    tiles[2].write_bytes(tiles[2].read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"tile_1_0.TIF: (cannot be read|not a readable)"):
        GeoScene.open(tiles, whole.ortho)
    one = write_raster(tmp_path / "one.tif", HEIGHTS[:1, :1], 1.0)
    with pytest.raises(ValueError, match=r"one.tif: 1 x 1 cells make no surface"):
        GeoScene.open(one, whole.ortho)
    # A tile of one cell is none the less a tile.
    scene = GeoScene.open([one, write_raster(tmp_path / "rest.tif", HEIGHTS[1:], 1.0, top=TOP - 1)], whole.ortho)
    assert np.isfinite(scene.heights_rc[0, 0]) and np.isnan(scene.heights_rc[0, 1])
