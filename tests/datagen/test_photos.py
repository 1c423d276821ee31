"""Real photos: resizing, undistortion, camera files, and the photo sections."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import rasterio
import torch
from PIL import Image

from datagen import photos, sections
from datagen.__main__ import main
from datagen.cameras import (
    Camera,
    Lens,
    centred_intrinsics,
    json_camera,
    read_cameras_json,
    read_colmap,
    read_pose_folder,
    unique_stems,
)
from datagen.render import Renderer
from datagen.scene import GeoScene

from .synthetic import Geodata
from .test_labels import pose


def test_area_resize_by_a_whole_factor_is_the_block_mean():
    photo = np.random.default_rng(0).integers(0, 256, (96, 144, 3)).astype(np.uint8)
    expected = photo.reshape(32, 3, 48, 3, 3).mean(axis=(1, 3))
    assert np.abs(photos.area_resized(photo, 48, 32) - expected).max() <= 0.51
    assert photos.area_resized(photo, 144, 96) is photo


@pytest.mark.parametrize(("width", "height"), [(1440, 810), (810, 1440), (5472, 3648)])
def test_resized_camera_and_resized_photo_agree(width, height):
    """A colour ramp tied to the viewing ray stays tied to it."""
    camera = Camera("a", np.eye(4), centred_intrinsics(1000.0, width, height), width, height)
    small = photos.resized_camera(camera, 480)
    assert min(small.width, small.height) == 480
    assert small.K_33[0, 0] == small.K_33[1, 1] == pytest.approx(1000 * 480 / min(width, height))
    assert small.K_33[0, 2] == pytest.approx(small.width / 2, abs=1e-9)
    assert small.K_33[1, 2] == pytest.approx(small.height / 2, abs=1e-9)
    tangent = (np.arange(width) + 0.5 - width / 2) / 1000
    slope = 120 / tangent.max()
    ramp = 128 + slope * tangent
    dither = np.random.default_rng(0).uniform(0, 1, (height, width))
    photo = np.repeat(np.floor(ramp[None] + dither).astype(np.uint8)[..., None], 3, axis=2)
    resized = photos.area_resized(photo, small.width, small.height)
    seen = resized[..., 0].mean(axis=0)
    expected = 128 + slope * (np.arange(small.width) + 0.5 - small.K_33[0, 2]) / small.K_33[0, 0]
    px_per_level = small.K_33[0, 0] / slope
    assert abs((seen - expected).mean()) * px_per_level < 0.02
    assert np.polyfit(expected, seen, 1)[0] == pytest.approx(1, abs=0.001)


def test_small_photos_are_not_enlarged():
    camera = Camera("a", np.eye(4), centred_intrinsics(300.0, 400, 300), 400, 300)
    assert photos.resized_camera(camera, 480) is camera and photos.resized_camera(camera, 0) is camera


LENSES = {
    "SIMPLE_RADIAL": (300, 160, 120, -0.12),
    "RADIAL": (300, 160, 120, -0.12, 0.03),
    "OPENCV": (300, 310, 155, 125, -0.12, 0.03, 0.001, -0.002),
    "FULL_OPENCV": (300, 310, 155, 125, 0.12, 0.03, 0.001, -0.002, 0.01, 0.02, 0.01, 0.0),
    "OPENCV_FISHEYE": (150, 150, 160, 120, 0.01, -0.02, 0.003, 0.0),
    "SIMPLE_RADIAL_FISHEYE": (150, 160, 120, 0.0),
    "RADIAL_FISHEYE": (150, 160, 120, 0.01, 0.002),
    "FOV": (200, 200, 160, 120, 0.9),
    "THIN_PRISM_FISHEYE": (150, 150, 160, 120, 0.01, -0.02, 0.001, 0.001, 0.003, 0.0, 0.001, 0.001),
}


def ray_colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth colour of viewing rays (x, y, 1), uint8."""
    waves = np.stack((np.sin(9 * x), np.cos(8 * y), np.sin(6 * (x + y))), -1)
    return np.rint(127 + 90 * waves).astype(np.uint8)


@pytest.mark.parametrize("model", LENSES)
def test_every_lens_is_undistorted(model):
    """Colours tied to viewing rays: the photo sees them through the lens, the result must as its pinhole camera says."""
    distorted = pycolmap.Camera(model=model, width=320, height=240, params=list(LENSES[model]))
    columns, rows = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    rays_HW2 = distorted.cam_from_img(np.stack((columns, rows), -1).reshape(-1, 2)).reshape(240, 320, 2)
    photo = ray_colour(rays_HW2[..., 0], rays_HW2[..., 1])
    camera = Camera("a", np.eye(4), distorted.calibration_matrix(), 320, 240, Lens(model, LENSES[model]))
    image, pinhole = photos.undistorted(photo, camera)
    assert pinhole.lens is None and image.shape == photo.shape and (pinhole.width, pinhole.height) == (320, 240)
    assert np.allclose(pinhole.K_33, photos.pinhole_camera(camera).K_33)
    assert pinhole.K_33[0, 0] / pinhole.K_33[1, 1] == pytest.approx(camera.K_33[0, 0] / camera.K_33[1, 1]), "zoomed evenly"
    x = (np.arange(pinhole.width) + 0.5 - pinhole.K_33[0, 2]) / pinhole.K_33[0, 0]
    y = (np.arange(pinhole.height) + 0.5 - pinhole.K_33[1, 2]) / pinhole.K_33[1, 1]
    difference = np.abs(image.astype(int) - ray_colour(*np.meshgrid(x, y))).max(-1)
    assert np.percentile(difference, 99) <= 3, "lens and result disagree"
    assert (difference > 10).mean() < 1e-3, "the photo covers all of it"


def test_opencv_coefficients_of_a_cameras_json_mean_what_opencv_means():
    """The lens of `distortion` bends points as cv2.projectPoints does."""
    points_N3 = np.random.default_rng(0).uniform((-0.4, -0.3, 1), (0.4, 0.3, 1), (50, 3))
    for coefficients in (
        [-0.1],
        [-0.12, 0.03, 0.001, -0.002],
        [0.1, 0.02, 0.001, -0.002, 0.03],
        [0.1, 0.2, 0, 0, 0.1, 0.3, 0.2, 0.1],
    ):
        entry = {
            "file": "a.jpg",
            "width": 320,
            "height": 240,
            "focal_length_px": [300, 310],
            "principal_point_px": [155, 125],
        }
        camera = json_camera({**entry, "distortion": coefficients}, "a", np.eye(4))
        padded = np.array(coefficients + [0.0] * (4 - len(coefficients)))
        expected, _ = cv2.projectPoints(points_N3, np.zeros(3), np.zeros(3), camera.K_33, padded)
        seen = photos._colmap_camera(camera).img_from_cam(points_N3)
        assert np.allclose(seen, expected[:, 0], atol=1e-9), coefficients


@pytest.fixture
def flight(tmp_path, hills, hills_scene):
    """Ten rendered 'photos' of the hills with their cameras.json, poses in the CRS."""
    folder = tmp_path / "flight"
    (folder / "photos").mkdir(parents=True)
    K_33 = centred_intrinsics(200.0, 240, 160)
    entries = []
    for i in range(10):
        view = pose(-27 + 6 * i, 10 * np.sin(i), 50, 20 + i, -85, 0)
        rendered = Renderer(hills_scene).render(view, K_33, 240, 160)
        # A level off: a photo that is its render, to the bit, is refused.
        cv2.imwrite(str(folder / "photos" / f"P_{i:02d}.png"), rendered.rgb_HW3[..., ::-1] ^ 1)
        view[:3, 3] += hills_scene.origin_xyz
        entries.append({"file": f"photos/P_{i:02d}.png", "cam_to_world": view.tolist()})
    document = {"width": 240, "height": 160, "focal_length_px": 200.0, "photos": entries}
    (folder / "cameras.json").write_text(json.dumps(document))
    return folder


def run_photos(flight, hills, out, *more) -> int:
    cameras = ["--cameras", str(flight / "cameras.json")]
    output = ["--scene", "s", "--output_dir", str(out), "--height", "80", "--workers", "2"]
    return main(["photos", *cameras, *hills.arguments(), *output, *more])


def test_photo_sections(flight, hills, tmp_path, capsys):
    out = tmp_path / "datasets"
    assert run_photos(flight, hills, out) == 0
    scene_dir = out / "s"
    assert sorted(path.name for path in scene_dir.iterdir() if path.name != ".scene.json.lock") == sorted(
        ["scene.json", "s_drone_split.txt"] + [f"{p}_drone_{d}" for p in ("train", "val", "test") for d in ("real", "sim")]
    )
    found = {
        part: sorted(p.stem for p in (scene_dir / f"{part}_drone_real" / "rgb").iterdir())
        for part in ("train", "val", "test")
    }
    assert [len(names) for names in found.values()] == [4, 1, 5] and len(set(sum(found.values(), []))) == 10
    for part, names in found.items():
        for stem in names:
            real, sim = scene_dir / f"{part}_drone_real", scene_dir / f"{part}_drone_sim"
            for folder, suffix in (("init", "dat"), ("depth", "dat"), ("normal", "dat")):
                same = [torch.load(s / folder / f"{stem}.{suffix}", weights_only=True) for s in (real, sim)]
                assert torch.equal(*same)
            assert (real / "poses" / f"{stem}.txt").read_text() == (sim / "poses" / f"{stem}.txt").read_text()
            assert (real / "calibration" / f"{stem}.txt").read_text() == "100\n"
            images = [cv2.imread(str(s / "rgb" / f"{stem}.png")).astype(int) for s in (real, sim)]
            assert images[0].shape == (80, 120, 3)
            # The 'photo' is a render at twice the size: reduced, it must lie exactly on the render.
            assert np.abs(images[0] - images[1]).mean() < 2
            assert np.load(real / "semantics" / f"{stem}.npy").shape == (80, 120)

    before = (scene_dir / "train_drone_real" / "rgb").stat().st_mtime_ns
    assert run_photos(flight, hills, out) == 2
    assert "already there" in capsys.readouterr().err
    assert run_photos(flight, hills, out, "--resume") == 0
    assert (scene_dir / "train_drone_real" / "rgb").stat().st_mtime_ns == before
    assert run_photos(flight, hills, out, "--resume", "--height", "40") == 2
    assert "made with other settings (height)" in capsys.readouterr().err
    given = ["--split", "train=P_00,P_01,P_02,P_03,P_04,P_05,P_06", "test=P_07,P_08,P_09"]
    assert run_photos(flight, hills, out, *given) == 2
    assert "differs from the split record" in capsys.readouterr().err
    assert run_photos(flight, hills, out, *given, "--overwrite", "--height", "0") == 0
    assert len(list((scene_dir / "test_drone_real" / "rgb").iterdir())) == 3
    assert cv2.imread(str(scene_dir / "test_drone_sim" / "rgb" / "P_07.png")).shape == (160, 240, 3)


def test_bad_photo_input(flight, hills, tmp_path, capsys):
    out = tmp_path / "datasets"

    def refused(message, *more):
        assert run_photos(flight, hills, out, *more) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error
        assert not out.exists(), "something was left behind"

    original = json.loads((flight / "cameras.json").read_text())

    def cameras(**changes):
        (flight / "cameras.json").write_text(json.dumps({**original, **changes}))

    refused("no such folder", "--photos", str(tmp_path / "nowhere"))
    refused("no such file", "--split", str(tmp_path / "none.json"))
    refused("--height -3", "--height", "-3")
    cameras(width=250)
    refused("P_00.png is 240 x 160 px, its camera says 250 x 160")
    cameras(photos=original["photos"] + [{"file": "photos/lost.jpg", "cam_to_world": original["photos"][0]["cam_to_world"]}])
    refused("photo 'photos/lost.jpg' of the cameras file is not in")
    cameras(photos=original["photos"] + [{"file": "photos/p_00.jpg", "cam_to_world": original["photos"][0]["cam_to_world"]}])
    refused("two photos are called 'p_00'")
    cameras(photos=original["photos"] + [{**original["photos"][0], "file": "more/P_00.png"}])
    refused("photo 'more/P_00.png' of the cameras file is not in")
    refused("P_00.png is the one of two cameras", "--photos", str(flight / "photos"))
    cameras(photos=[{**original["photos"][0], "file": "photos/.P_00.png"}])
    refused("photo 'photos/.P_00.png' has a hidden name")
    cameras(distortion=[0.1] * 12)
    refused("'distortion' has 12 coefficients")
    cameras(focal_length_px=-3)
    refused("photos/P_00.png: 240 x 160 px with a focal length of -3 px")
    cameras(photos=original["photos"][:2])
    refused("2 image(s) are too few: train, val, test need at least one each")
    cameras(photos=[{"file": "photos/P_00.png", "cam_to_world": np.eye(3).tolist()}])
    refused("a pose is a 4 x 4 matrix")
    cameras(photos=[{"file": "photos/P_00.png", "cam_to_world": (2 * np.eye(4)).tolist()}])
    refused("photo 0 (photos/P_00.png): not a camera-to-world rigid transform")
    cameras(photos=[])
    refused("'photos' is empty")
    (flight / "cameras.json").write_text(json.dumps({k: v for k, v in original.items() if k != "focal_length_px"}))
    refused("entry 'focal_length_px' is missing")
    (flight / "cameras.json").write_text("[]")
    refused("expected a JSON object")
    moved = json.loads(json.dumps(original))
    moved["photos"][3]["cam_to_world"][0][3] += 5000
    (flight / "cameras.json").write_text(json.dumps(moved))
    refused("camera P_03 at [")
    cameras()
    photo = flight / "photos" / "P_04.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:100])
    refused("cannot decode image")
    photo.unlink()
    refused("photo 'photos/P_04.png' of the cameras file is not in")


def test_pose_files(tmp_path):
    K_33 = centred_intrinsics(100.0, 64, 48)
    with pytest.raises(ValueError, match="no \\*.txt pose files"):
        read_pose_folder(tmp_path, K_33, 64, 48)
    path = tmp_path / "a.txt"
    np.savetxt(path, np.eye(4))
    assert (read_pose_folder(tmp_path, K_33, 64, 48)[0].world_from_cam_44 == np.eye(4)).all()
    for rows, message in (
        (np.eye(4)[:3], "expected 4 rows of 4 numbers, found rows of \\[4, 4, 4\\]"),
        (np.ones((4, 4)), "not a camera-to-world"),
    ):
        np.savetxt(path, rows)
        with pytest.raises(ValueError, match=f"pose file .*a.txt.*{message}"):
            read_pose_folder(tmp_path, K_33, 64, 48)


def write_text_model(folder, cameras: str, *names: str):
    """A COLMAP text model: every image turned half about x, 5 m away, and the cameras 1, 2, ... in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "points3D.txt").write_text("")
    (folder / "cameras.txt").write_text("# cameras\n" + cameras)
    lines = [f"{k} 0 1 0 0 {k} 0 5 {k} {name}\n\n" for k, name in enumerate(names, 1)]
    (folder / "images.txt").write_text("# images\n" + "".join(lines), encoding="utf-8")
    return folder


def test_colmap_text_model(tmp_path):
    write_text_model(
        tmp_path, "1 SIMPLE_RADIAL 640 480 500 320 240 -0.1\n2 PINHOLE 320 200 500 510 161 99\n", "b.jpg", "a.jpg"
    )
    first, second = read_colmap(tmp_path)
    assert (first.stem, second.stem) == ("a", "b")
    assert first.lens is None and second.lens == Lens("SIMPLE_RADIAL", (500, 320, 240, -0.1))
    assert (first.width, first.height, second.width, second.height) == (320, 200, 640, 480)
    assert first.K_33[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == [500, 510, 161, 99]
    assert np.allclose(first.world_from_cam_44[:3, :3], np.diag([1, -1, -1])) and first.world_from_cam_44[2, 3] == 5
    assert first.world_from_cam_44[0, 3] == -2
    write_text_model(
        tmp_path, "1 OPENCV 640 480 500 500 320 240 0 0 0 0\n2 SIMPLE_FISHEYE 640 480 500 320 240\n", "b.jpg", "a.jpg"
    )
    fisheye, straight = read_colmap(tmp_path)
    assert straight.lens is None and fisheye.lens.model == "SIMPLE_FISHEYE", "a fisheye bends without any coefficient"
    write_text_model(tmp_path, "1 EQUIRECTANGULAR 640 320 640 320\n", "b.jpg")
    with pytest.raises(ValueError, match="camera of b.jpg: a EQUIRECTANGULAR picture has no pinhole image"):
        read_colmap(tmp_path)
    with pytest.raises(FileNotFoundError, match="no images.txt or images.bin"):
        read_colmap(tmp_path / "none")


def test_colmap_names_with_spaces_are_read_whole(tmp_path):
    names = ["flight 1/DJI (1).JPG", "flight 1/DJI (2).JPG", "ü/x.JPG"]
    text = write_text_model(tmp_path / "text", "".join(f"{k} PINHOLE 64 48 50 50 32 24\n" for k in (1, 2, 3)), *names)
    assert [camera.file for camera in read_colmap(text)] == names
    model = pycolmap.Reconstruction(str(text))
    for number, image in model.images.items():
        image.name = names[number - 1]
    (tmp_path / "binary").mkdir()
    model.write_binary(str(tmp_path / "binary"))
    assert [camera.file for camera in read_colmap(tmp_path / "binary")] == names
    # Some exporters leave the lines of key points out: pycolmap would read every second image only.
    (text / "images.txt").write_text((text / "images.txt").read_text().replace("\n\n", "\n"))
    with pytest.raises(ValueError, match="the line after the image 'flight 1/DJI .1..JPG' is another image"):
        read_colmap(text)


def test_a_lens_that_folds_is_refused():
    """At k1 = -4 the photo's corners are no images of any ray: no pinhole view can be filled."""
    lens = Lens("SIMPLE_RADIAL", (150.0, 160.0, 120.0, -4.0))
    camera = Camera("a", np.eye(4), centred_intrinsics(150.0, 320, 240), 320, 240, lens)
    with pytest.raises(ValueError, match="SIMPLE_RADIAL"):
        photos.undistorted(np.zeros((240, 320, 3), np.uint8), camera)


def test_one_file_name_in_several_folders():
    assert unique_stems(["a/x.JPG", "b/y.JPG"]) == ["x", "y"]
    assert unique_stems(["all/f1/x.JPG", "all/f2/x.JPG", "all/f2/y.JPG"]) == ["f1_x", "f2_x", "y"]
    assert unique_stems(["../f1/x.JPG", "../f2/x.JPG", "/f2/z/x.JPG"]) == ["f1_x", "f2_x", "f2_z_x"]
    for clash in (
        ["f1/x.JPG", "f1/x.png"],
        ["x.JPG", "X.JPG"],
        ["a/b_c.jpg", "a_b/c.jpg", "c.jpg", "b_c.jpg", "a/b/c.jpg"],
    ):
        with pytest.raises(ValueError, match="two photos are called"):
            unique_stems(clash)


def test_photos_of_two_flights_with_one_name(flight, hills, tmp_path):
    """Each photo keeps its own pose and pixels under the name of its folder."""
    document = json.loads((flight / "cameras.json").read_text())
    for folder, number in (("one", 0), ("two", 9)):
        (flight / folder).mkdir()
        (flight / "photos" / f"P_{number:02d}.png").rename(flight / folder / "DJI_0001.png")
        document["photos"][number]["file"] = f"{folder}/DJI_0001.png"
    (flight / "cameras.json").write_text(json.dumps(document))
    rest = ",".join(f"P_{k:02d}" for k in range(1, 9))
    words = ["--split", "train=two/DJI_0001.png", "val=one_DJI_0001", f"test={rest}"]
    assert run_photos(flight, hills, tmp_path / "out", *words) == 0
    for section, stem, number in (("train", "two_DJI_0001", 9), ("val", "one_DJI_0001", 0)):
        real, sim = (tmp_path / "out" / "s" / f"{section}_drone_{domain}" for domain in ("real", "sim"))
        images = [cv2.imread(str(folder / "rgb" / f"{stem}.png")).astype(int) for folder in (real, sim)]
        assert np.abs(images[0] - images[1]).mean() < 2
        x = np.loadtxt(real / "poses" / f"{stem}.txt")[0, 3]
        assert x == pytest.approx(-27 + 6 * number, abs=1e-6)


def test_every_photo_may_have_its_own_camera(flight, hills, tmp_path):
    """One photo of another size and another two focal lengths beside the rest."""
    document = json.loads((flight / "cameras.json").read_text())
    K_33 = np.array([[150.0, 0, 70], [0, 160.0, 40], [0, 0, 1]])
    scene = hills.open()
    view = np.array(document["photos"][0]["cam_to_world"])
    rendered = Renderer(scene).render(scene.to_world(view), K_33, 120, 90)
    cv2.imwrite(str(flight / "photos" / "P_00.png"), rendered.rgb_HW3[..., ::-1] ^ 1)
    document["photos"][0] |= {"width": 120, "height": 90, "focal_length_px": [150, 160], "principal_point_px": [70, 40]}
    (flight / "cameras.json").write_text(json.dumps(document))
    rest = ",".join(f"P_{k:02d}" for k in range(1, 10))
    assert run_photos(flight, hills, tmp_path / "out", "--height", "0", "--split", "train=P_00", f"test={rest}") == 0
    folder = tmp_path / "out" / "s"
    assert (folder / "train_drone_real" / "calibration" / "P_00.txt").read_text() == "150 160 70 40\n"
    images = [cv2.imread(str(folder / f"train_drone_{d}" / "rgb" / "P_00.png")).astype(int) for d in ("real", "sim")]
    assert images[0].shape == (90, 120, 3) and np.abs(images[0] - images[1]).max() <= 1


def turn(flight, tag: int) -> None:
    """Gives the first photo an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = tag
    with Image.open(flight / "photos" / "P_00.png") as image:
        image.load()
    image.save(flight / "photos" / "P_00.png", exif=exif)


def test_exif_orientation_is_named(flight, hills, tmp_path, caplog, capsys):
    caplog.set_level(logging.INFO)
    turn(flight, 3)
    stored = cv2.imread(str(flight / "photos" / "P_00.png"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert run_photos(flight, hills, tmp_path / "out", "--height", "0") == 0
    assert caplog.text.count("EXIF orientation 3 in 1 of 10 photos (such as P_00)") == 1
    made = next((tmp_path / "out" / "s").glob("*_drone_real/rgb/P_00.png"))
    assert np.array_equal(cv2.imread(str(made)), stored), "the stored pixels, unturned"
    turn(flight, 6)
    document = json.loads((flight / "cameras.json").read_text())
    document["photos"][0] |= {"width": 160, "height": 240}
    (flight / "cameras.json").write_text(json.dumps(document))
    assert run_photos(flight, hills, tmp_path / "other") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "P_00.png is 240 x 160 px, its camera says 160 x 240" in error and "EXIF orientation (6)" in error
    assert not (tmp_path / "other").exists()


def test_resume_names_the_input_that_changed(flight, hills, make_geodata, tmp_path, capsys):
    """The same names, other contents: refused; the same contents elsewhere, or touched: kept."""
    out = tmp_path / "datasets"
    geodata = Geodata(*(Path(shutil.copy(path, tmp_path)) for path in (hills.surface, hills.ortho, hills.landcover)))
    assert run_photos(flight, geodata, out) == 0

    def refused(*messages):
        before = (out / "s" / "train_drone_real" / "section.json").stat()
        assert run_photos(flight, geodata, out, "--resume") == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert all(message in error for message in (*messages, "use --overwrite")), error
        assert (out / "s" / "train_drone_real" / "section.json").stat() == before

    os.utime(geodata.surface)
    moved = Path(shutil.copytree(flight, tmp_path / "moved"))
    assert run_photos(moved, geodata, out, "--resume") == 0
    with rasterio.open(geodata.surface, "r+") as raster:
        raster.write(raster.read() + np.float32(1))
    refused("was made from another surface model (surface.tif)")
    shutil.copy(hills.surface, geodata.surface)
    assert run_photos(flight, geodata, out, "--resume") == 0
    with rasterio.open(geodata.ortho, "r+") as raster:
        raster.nodata = 7
    refused("from another orthophoto (ortho.tif)")
    shutil.copy(hills.ortho, geodata.ortho)
    photo = flight / "photos" / "P_03.png"
    photo.write_bytes((flight / "photos" / "P_04.png").read_bytes())
    refused("from other photos")
    shutil.copy(moved / "photos" / "P_03.png", photo)
    document = json.loads((flight / "cameras.json").read_text())
    document["photos"][2]["cam_to_world"][0][3] += 0.01
    (flight / "cameras.json").write_text(json.dumps(document))
    refused("from other cameras (cameras.json)")
    shutil.copy(moved / "cameras.json", flight / "cameras.json")
    assert run_photos(flight, geodata, out, "--resume", "--landcover_codes", "3=2") == 2
    assert "with other settings (landcover_codes)" in capsys.readouterr().err
    assert run_photos(flight, geodata, out, "--resume", "--origin", "1", "2", "3") == 2
    assert "was made with the origin [2600100.0, 1200100.0, 0.0]; use --overwrite" in capsys.readouterr().err
    image = next((out / "s" / "test_drone_sim" / "rgb").iterdir())
    image.rename(tmp_path / image.name)
    refused("test_drone_sim was made with 5 images, of which 4 are left")
    (tmp_path / image.name).rename(image)
    (out / "s" / "val_drone_sim" / "section.json").unlink()
    refused("val_drone_sim was made by an older version", "section.json")


def test_section_record(flight, hills, tmp_path):
    out = tmp_path / "datasets"
    assert run_photos(flight, hills, out) == 0
    record = json.loads((out / "s" / "val_drone_sim" / "section.json").read_text())
    scene = json.loads((out / "s" / "scene.json").read_text())
    assert record["images"] == len(record["settings"]["stems"]) == 1 and record["settings"]["height"] == 80
    assert record["inputs"]["surface"]["files"] == ["surface.tif"] and len(record["inputs"]["photos"]["files"]) == 10
    assert record["frame"] == {key: scene[key] for key in ("crs", "crs_code", "origin_xyz")}
    assert scene["crs_code"] == "EPSG:2056" and scene["origin_xyz"] == [2600000 + 100, 1200200 - 100, 0]
    assert scene["classes"]["6"] == "building" and "sections" not in scene
    assert str(tmp_path) not in json.dumps([record, scene]), "no path of this machine"


def test_an_input_that_changes_meanwhile_is_noticed(flight, hills, tmp_path, capsys, monkeypatch):
    write = sections.write_sample

    def slow_write(*arguments):
        write(*arguments)
        os.utime(flight / "photos" / "P_00.png", (1, 1))

    monkeypatch.setattr(sections, "write_sample", slow_write)
    assert run_photos(flight, hills, tmp_path / "out") == 2
    assert "P_00.png changed while it was in use" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_overwriting_keeps_a_recorded_split(flight, hills, tmp_path, caplog):
    out = tmp_path / "out"
    given = ["--split", "train=P_00,P_01,P_02,P_03,P_04,P_05,P_06", "test=P_07,P_08,P_09"]
    caplog.set_level(logging.INFO)
    assert run_photos(flight, hills, out, *given) == 0
    assert "the split leaves val empty" in caplog.text
    assert run_photos(flight, hills, out, "--overwrite", "--height", "40") == 0
    held_out = sorted(path.stem for path in (out / "s" / "test_drone_real" / "rgb").iterdir())
    assert held_out == ["P_07", "P_08", "P_09"], "another photo would be tested than the one held out"


def test_a_split_that_holds_out_what_was_drawn_around_is_told(flight, hills, tmp_path, caplog):
    views = ["sections", *hills.arguments(), "--around", str(flight / "cameras.json"), "--num_images", "4"]
    size = ["--width", "48", "--height", "32", "--focal", "40"]
    assert main([*views, *size, "--scene", "s", "--output_dir", str(tmp_path / "out")]) == 0
    assert "views are drawn around all 10 photos, so none of them may be tested on" in caplog.text
    assert run_photos(flight, hills, tmp_path / "out") == 0
    assert "train_sim was drawn around 6 photos that are held out now" in caplog.text


def test_brighton_beach_colmap_equals_cameras_json(brighton_beach):
    from_json = read_cameras_json(brighton_beach / "cameras.json")
    from_colmap = read_colmap(brighton_beach / "colmap")
    assert [camera.stem for camera in from_json] == [camera.stem for camera in from_colmap]
    for one, other in zip(from_json, from_colmap, strict=True):
        assert np.allclose(one.K_33, other.K_33) and np.allclose(one.world_from_cam_44, other.world_from_cam_44, atol=1e-4)


def test_brighton_beach_photos_lie_on_their_renders(brighton_beach):
    """Patches of open ground are found within half a pixel of where the render shows them."""
    geodata = brighton_beach / "geodata"
    scene = GeoScene.open(geodata / "dsm.tif", geodata / "ortho.tif", geodata / "landcover.tif")
    assert scene.origin_xyz == (0, 0, 0)
    shifts = []
    for camera in read_cameras_json(brighton_beach / "cameras.json"):
        if camera.stem in ("DJI_0026", "DJI_0034"):
            photo = photos.read_photo(brighton_beach / camera.file, camera)
            small = photos.resized_camera(camera, 480)
            view = Renderer(scene).render(small.world_from_cam_44, small.K_33, small.width, small.height)
            shifts += patch_shifts(photos.area_resized(photo, small.width, small.height), view)
    assert len(shifts) > 40 and np.median(np.linalg.norm(shifts, axis=1)) < 0.4


def patch_shifts(photo_HW3, view, size=48, reach=8) -> list[np.ndarray]:
    """Sub-pixel shifts of well-correlated 48 px patches on ground between a photo and its render."""
    detail = []
    for image in (photo_HW3, view.rgb_HW3):
        grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 0.8)
        detail.append(grey - cv2.GaussianBlur(grey, (0, 0), 6))
    shifts = []
    for r in range(12, photo_HW3.shape[0] - size - 12, 32):
        for c in range(12, photo_HW3.shape[1] - size - 12, 32):
            patch = detail[0][r : r + size, c : c + size]
            if (view.semantics_HW[r : r + size, c : c + size] == 2).mean() < 0.95 or patch.std() < 4:
                continue
            search = detail[1][r - reach : r + size + reach, c - reach : c + size + reach]
            score = cv2.matchTemplate(search, patch, cv2.TM_CCOEFF_NORMED)
            y, x = np.unravel_index(score.argmax(), score.shape)
            if score[y, x] > 0.6 and 0 < x < 2 * reach and 0 < y < 2 * reach:
                shifts.append(np.array([x + _peak(score[y, x - 1 : x + 2]), y + _peak(score[y - 1 : y + 2, x])]) - reach)
    return shifts


def _peak(triple: np.ndarray) -> float:
    left, middle, right = triple
    return 0.5 * (left - right) / (left - 2 * middle + right)
