"""From a bag of photos to sections: surface, orthophoto without test photos, structure from motion, clear refusals."""

from __future__ import annotations

import json
import logging
import shutil

import cv2
import numpy as np
import pycolmap
import pytest
import rasterio
from PIL import Image

from datagen import dense_surface, motion
from datagen.__main__ import main
from datagen.cameras import centred_intrinsics
from datagen.dense_surface import base_surface, without_outliers
from datagen.rasters import Grid
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import block_height
from .test_labels import pose

WIDTH, HEIGHT, FOCAL = 240, 180, 220.0
K_33 = centred_intrinsics(FOCAL, WIDTH, HEIGHT)
# Three lines of four photos over a 20 m high block, 60 m up.
PLACES = [(-24.0 + 16 * i, -16.0 + 16 * j, 60.0) for j in range(3) for i in range(4)]


def speckle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A texture with detail at several scales and no repetition."""
    rng = np.random.default_rng(3)
    shape = np.broadcast_shapes(x.shape, y.shape)
    layers = [
        cv2.resize(
            rng.normal(0, 1, (max(2, shape[0] // n), max(2, shape[1] // n))), shape[::-1], interpolation=cv2.INTER_CUBIC
        )
        for n in (2, 4, 8, 32)
    ]
    grey = 128 + 28 * sum(layers)
    return np.clip(np.stack((grey, 0.8 * grey + 20, 0.9 * grey)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def town(make_geodata) -> GeoScene:
    return make_geodata(block_height, speckle).open()


@pytest.fixture(scope="module")
def survey(tmp_path_factory, town):
    """(folder of twelve photos, their COLMAP model in EPSG:2056)."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "photos").mkdir()
    poses, renderer = [pose(*place, 5.0, -90, 0) for place in PLACES], Renderer(town)
    for i, view in enumerate(poses):
        rgb = renderer.render(view, K_33, WIDTH, HEIGHT).rgb_HW3
        cv2.imwrite(str(folder / "photos" / f"P_{i:02d}.png"), rgb[..., ::-1])
    write_model(folder / "model", poses, town, np.array(town.origin_xyz))
    return folder


def write_model(folder, poses, scene, shift_3):
    """A COLMAP model of the photos and of points on the ground around the block, none on the block itself."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="SIMPLE_PINHOLE", width=WIDTH, height=HEIGHT, params=[FOCAL, 120, 90], camera_id=1)
    )
    xy_N2 = np.random.default_rng(0).uniform(-45, 45, (400, 2))
    xy_N2 = xy_N2[np.abs(xy_N2).max(axis=1) > 21]
    points_N3 = np.column_stack((xy_N2, scene.height_at(*xy_N2.T)))
    seen = []
    for view in poses:
        cam_N3 = (points_N3 - view[:3, 3]) @ view[:3, :3]
        pixel_N2 = cam_N3[:, :2] / cam_N3[:, 2:] * FOCAL + (120, 90)
        seen.append(np.flatnonzero(((pixel_N2 > 0) & (pixel_N2 < (WIDTH, HEIGHT))).all(axis=1)))
        cam_from_world = np.linalg.inv(np.array(view) + np.pad(shift_3[:, None], ((0, 1), (3, 0))))[:3]
        image = pycolmap.Image(
            name=f"P_{len(seen) - 1:02d}.png", camera_id=1, image_id=len(seen), keypoints=pixel_N2[seen[-1]]
        )
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(cam_from_world[:, :3].copy()), cam_from_world[:, 3].copy())
        model.add_image_with_trivial_frame(image, rigid)
    for n, point in enumerate(points_N3):
        track = pycolmap.Track()
        for i, indices in enumerate(seen):
            if n in indices:
                track.add_element(i + 1, int(np.flatnonzero(indices == n)[0]))
        if track.length() >= 3:
            number = model.add_point3D(point + shift_3, track, np.zeros(3, np.uint8))
            model.points3D[number].error = 0.3
    folder.mkdir(exist_ok=True)
    model.write_binary(str(folder))


def from_photos(survey, out, *more, model=True) -> int:
    words = ["from_photos", "--images", survey / "photos", "--scene", "s", "--output_dir", out, "--workers", "2"]
    words += ["--colmap", survey / "model"] if model else []
    return main([str(word) for word in [*words, *more]])


SPLIT = ["--split", "train=P_00,P_02,P_05,P_07,P_08", "val=P_10", "test=P_01,P_03,P_04,P_06,P_09,P_11"]
SMALL = ["--height", "90", "--num_images", "10"]


def test_a_model_and_its_photos_are_enough(survey, town, tmp_path, caplog):
    """Surface and orthophoto lie on the truth; no pixel is a test photo's; the sections follow, in EPSG:2056."""
    caplog.set_level(logging.INFO)
    photos = tmp_path / "photos"
    shutil.copytree(survey / "photos", photos)
    magenta = np.full((HEIGHT, WIDTH, 3), (255, 0, 255), np.uint8)
    bag = tmp_path
    shutil.copytree(survey / "model", tmp_path / "model")
    out = tmp_path / "data"
    assert from_photos(bag, out, "--crs", "EPSG:2056", *SPLIT, *SMALL) == 0
    scene_dir = out / "s"
    names = {path.name for path in scene_dir.iterdir() if path.is_dir()}
    assert names == {"geodata", "train_sim", "val_sim"} | {
        f"{part}_drone_{domain}" for part in ("train", "val", "test") for domain in ("real", "sim")
    }
    made = GeoScene.open(scene_dir / "geodata" / "dsm.tif", scene_dir / "geodata" / "ortho.tif")
    assert made.assumptions.record()["crs"] == "EPSG:2056" and made.grid.step_x == pytest.approx(0.81)
    shift = np.subtract(made.origin_xyz, town.origin_xyz)
    x, y = np.meshgrid(np.arange(-35.0, 36, 2), np.arange(-30.0, 31, 2))
    off = made.height_at(x.ravel() - shift[0], y.ravel() - shift[1]) + shift[2] - town.height_at(x.ravel(), y.ravel())
    # No sparse point lies on the block; close to its walls either height is right.
    from_wall = np.maximum(np.abs(x), np.abs(y)).ravel() - 20
    block, ground = (off[(near > 3) & np.isfinite(off)] for near in (-from_wall, from_wall))
    assert len(block) == 16 * 17 and len(ground) > 500
    for part in (block, ground):
        assert np.median(np.abs(part)) < 0.3 and np.percentile(np.abs(part), 95) < 1.5
    with rasterio.open(scene_dir / "geodata" / "ortho.tif") as raster:
        assert raster.tags()["PHOTOS"].split("\n") == ["P_00", "P_02", "P_05", "P_07", "P_08", "P_10"]
    record = json.loads((scene_dir / "geodata" / "survey.json").read_text())
    assert len(record["surface_photos"]) == 12 and made.assumptions.coverage > 0.95

    # Rendered from what was made, a training photo looks like itself.
    real, sim = (cv2.imread(str(scene_dir / f"train_drone_{d}" / "rgb" / "P_05.png")).astype(int) for d in ("real", "sim"))
    assert np.median(np.abs(real - sim)) < 12

    before = (scene_dir / "geodata" / "dsm.tif").stat().st_mtime_ns
    assert from_photos(bag, out, "--crs", "EPSG:2056", *SPLIT, *SMALL, "--resume") == 0
    assert (scene_dir / "geodata" / "dsm.tif").stat().st_mtime_ns == before

    # With test photos of one loud colour the orthophoto stays what it was: not a pixel of them is in it.
    for stem in ("P_01", "P_03", "P_04", "P_06", "P_09", "P_11"):
        cv2.imwrite(str(photos / f"{stem}.png"), magenta)
    other = tmp_path / "other"
    words = ["--crs", "EPSG:2056", *SPLIT, "--ground_sampling", "0.4", "--geodata_only", "--surface_photos", "known"]
    assert from_photos(bag, other, *words) == 0
    with rasterio.open(other / "s" / "geodata" / "ortho.tif") as raster:
        red, green, blue, alpha = raster.read().astype(int)
    shown = alpha > 0
    assert shown.mean() > 0.45 and (np.minimum(red, blue) - green)[shown].max() < 60


def test_an_orthophoto_of_test_photos_is_refused(survey, tmp_path, capsys):
    out = tmp_path / "data"
    assert from_photos(survey, out, "--crs", "EPSG:2056", *SPLIT, "--ground_sampling", "1", "--geodata_only") == 0
    geodata = out / "s" / "geodata"
    words = ["photos", "--surface", geodata / "dsm.tif", "--ortho", geodata / "ortho.tif", "--colmap", survey / "model"]
    words += ["--photos", survey / "photos", "--scene", "t", "--output_dir", out, "--height", "60"]
    other = ["--split", "train=" + ",".join(f"P_{i:02d}" for i in range(8)), "test=P_08,P_09,P_10,P_11"]
    assert main([*map(str, words), *other]) == 2
    assert "ortho.tif holds pixels of 2 test photos (such as P_08): make it again without" in capsys.readouterr().err
    assert from_photos(survey, out, "--crs", "EPSG:2056", "--ground_sampling", "1", *other, "--geodata_only") == 2
    assert "survey.json: made from other photos, poses or with another split (--overwrite)" in capsys.readouterr().err


def test_frames_that_are_no_frames_are_refused(survey, tmp_path, capsys):
    def refused(message, *more, bag=survey, **options):
        assert from_photos(bag, tmp_path / "data", *more, **options) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error
        assert not (tmp_path / "data").exists(), "something was left behind"

    refused("hold no positions (EXIF), and nothing else says where and how large the model is")
    refused("--flying_height -3: give metres above ground", "--flying_height", "-3")
    refused("'EPSG:x' is not a CRS", "--crs", "EPSG:x")
    model = pycolmap.Reconstruction(str(survey / "model"))
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(np.diag([1.0, -1, -1])), np.zeros(3)))
    bag = tmp_path / "bag"
    (bag / "model").mkdir(parents=True)
    model.write_binary(str(bag / "model"))
    shutil.copytree(survey / "photos", bag / "photos")
    refused("its z axis does not point up", "--crs", "local", bag=bag)
    (bag / "line.csv").write_text(
        "image,x,y,z\n" + "\n".join(f"P_{i:02d}.png,{PLACES[i][0]},{PLACES[i][1]},60" for i in range(4))
    )
    refused("positions lie on one line", "--geo_txt", bag / "line.csv", bag=bag)
    (bag / "line.csv").write_text("image,x,y,z\nnone.png,1,2,3")
    refused("none of its names is a photo of", "--geo_txt", bag / "line.csv", bag=bag)
    for photo in (bag / "photos").iterdir():
        photo.unlink()
    refused("photos holds no photo", bag=bag, model=False)
    shutil.rmtree(bag / "photos")
    refused("no such folder", bag=bag)


def test_a_model_in_any_frame_is_tied_to_positions_or_to_the_ground(survey, town):
    """Turned, scaled and moved, it comes back; residuals are those of the positions."""
    rng = np.random.default_rng(1)
    turn = pycolmap.Rotation3d(np.linalg.qr(rng.normal(size=(3, 3)))[0] * [1, 1, 1])
    if np.linalg.det(turn.matrix()) < 0:
        turn = pycolmap.Rotation3d(-turn.matrix())
    away = pycolmap.Sim3d(0.013, turn, np.array([3.0, -2, 8]))
    model = pycolmap.Reconstruction(str(survey / "model"))
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), -np.array(town.origin_xyz)))
    model.transform(away)
    noise = rng.normal(0, 0.5, (len(PLACES), 3))
    known = {f"P_{i:02d}.png": np.array(place) + noise[i] for i, place in enumerate(PLACES)}
    tie = motion.tie_to_positions(model, known)
    centres = {image.name: image.projection_center() for image in model.images.values()}
    off = np.array([centres[f"P_{i:02d}.png"] - place for i, place in enumerate(PLACES)])
    assert tie.how == "12 positions" and 0.2 < tie.residual_m < 1.2 and np.linalg.norm(off, axis=1).max() < 1.5
    model.transform(away)
    motion.tie_to_ground(model, 60.0)
    centres_N3 = np.array([image.projection_center() for image in model.images.values()])
    assert np.allclose(centres_N3[:, 2], 60, atol=0.5)
    assert np.linalg.norm(centres_N3[0] - centres_N3[3]) == pytest.approx(48, abs=0.5)


def test_photos_alone(survey, town, tmp_path, capsys, caplog):
    """Structure from motion tied to the photos' positions: poses within the positions' grain, then the geodata."""
    caplog.set_level(logging.INFO)
    bag = tmp_path / "bag"
    shutil.copytree(survey / "photos", bag / "photos")
    x_0, y_0, z_0 = town.origin_xyz
    rows = [f"P_{i:02d}.png {x + x_0} {y + y_0} {z + z_0}" for i, (x, y, z) in enumerate(PLACES)]
    (bag / "geo.txt").write_text("\n".join(["EPSG:2056", *rows]))
    words = ["--geo_txt", bag / "geo.txt", "--focal", FOCAL, *SPLIT, "--ground_sampling", "0.5", "--geodata_only"]
    assert from_photos(bag, tmp_path / "data", *words, model=False) == 0
    assert "poses of 12 photos in EPSG:2056, from 12 positions" in caplog.text
    geodata = tmp_path / "data" / "s" / "geodata"
    model = pycolmap.Reconstruction(str(geodata / "model"))
    off = [np.subtract(image.projection_center(), np.add(PLACES[int(image.name[2:4])], town.origin_xyz))
           for image in model.images.values()]  # fmt: skip
    assert np.linalg.norm(off, axis=1).max() < 0.5
    made = GeoScene.open(geodata / "dsm.tif", geodata / "ortho.tif", origin_xyz=town.origin_xyz)
    assert abs(np.nanmedian(made.height_at(np.array([-8.0, 0, 8]), np.zeros(3))) - 20) < 1.0
    caplog.clear()
    assert from_photos(bag, tmp_path / "data", *words, model=False) == 0
    assert "structure from motion" not in caplog.text and "reusing" in caplog.text

    capsys.readouterr()
    assert from_photos(bag, tmp_path / "no", "--geo_txt", bag / "geo.txt", model=False) == 2
    assert "12 of 12 photos (such as P_00.png) do not tell their focal length" in capsys.readouterr().err

    # Photos of places that do not overlap.
    apart = tmp_path / "apart"
    (apart / "photos").mkdir(parents=True)
    for i in range(4):
        picture = np.random.default_rng(i).integers(0, 255, (HEIGHT // 6, WIDTH // 6, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((WIDTH, HEIGHT)).save(apart / "photos" / f"A_{i}.png")
    (apart / "geo.txt").write_text("EPSG:2056\nA_0.png 1 2 3\nA_1.png 4 9 3\nA_2.png 7 2 3")
    assert from_photos(apart, tmp_path / "no", "--geo_txt", apart / "geo.txt", "--focal", "200", model=False) == 2
    error = capsys.readouterr().err
    assert "only 0 of 4 photos hang together" in error and "70 to 80 % overlap" in error
    assert not (tmp_path / "no").exists()


def test_sparse_points():
    rng = np.random.default_rng(0)
    points = np.column_stack((rng.uniform(0, 50, (500, 2)), np.zeros(500)))
    points[:, 2] = 0.1 * points[:, 0] + rng.normal(0, 0.01, 500)
    wild = points.copy()
    wild[::50, 2] += 30
    kept = without_outliers(wild)
    assert len(kept) < 495 and np.abs(kept[:, 2] - 0.1 * kept[:, 0]).max() < 1
    heights, inside = base_surface(points, Grid(10.0, 40.0, 1.0, 1.0, 30, 30))
    assert inside.all() and np.abs(heights - 0.1 * (10.5 + np.arange(30))).max() < 0.1
    _, inside = base_surface(points, Grid(-20.0, 40.0, 1.0, 1.0, 30, 30))
    assert not inside[:, :19].any()


def test_semi_global_matching_bridges_what_does_not_match():
    """One cell without a vote follows its neighbours; the level is found to a fraction."""
    level = 4.3
    votes = np.maximum(0, 1 - np.abs(np.arange(10)[:, None, None] - level) / 3) * np.ones((10, 9, 9))
    votes[:, 4, 4] = 0.5
    found, _ = dense_surface._semi_global(votes.astype(np.float32))
    assert np.abs(found - level).max() < 0.35 and abs(found[4, 4] - level) < 0.35


def test_towers_of_a_few_cells_are_levelled():
    """A block stays, a tower on the ground and a pit in the block go, a slope of any height stays."""
    heights = np.tile(0.3 * np.arange(60, dtype=np.float32), (60, 1))
    heights[10:30, 10:30] += 8
    expected = heights.copy()
    heights[40:43, 40:44] += 12
    heights[20:22, 20:22] -= 5
    levelled = dense_surface.without_speckles(heights, 20)
    assert np.abs(levelled - expected).max() < 1.0 and np.abs(levelled - expected).mean() < 0.01
    assert np.array_equal(dense_surface.without_speckles(heights, 2), heights)
