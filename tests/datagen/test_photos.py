"""Real photos: resizing, undistortion, camera files, and the photo sections."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from datagen import photos
from datagen.__main__ import main
from datagen.cameras import Camera, centred_intrinsics, intrinsics, read_cameras_json, read_colmap, read_pose_folder
from datagen.render import Renderer
from datagen.scene import GeoScene

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


def test_undistortion_recovers_the_pinhole_image(hills_scene):
    """A pinhole render is warped by a lens model, written as a photo, and undistorted again."""
    camera = Camera("a", pose(0, 0, 60, 10, -85, 0), intrinsics(300.0, 302.0, 158.0, 122.0), 320, 240)
    coefficients = np.array([-0.12, 0.03, 0.001, -0.0008])
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    columns, rows = np.meshgrid(np.arange(320.0), np.arange(240.0))
    wide_K = centred_intrinsics(300.0, 480, 400)
    wide = Renderer(hills_scene).render(camera.world_from_cam_44, wide_K, 480, 400).rgb_HW3
    distorted_N12 = np.stack((columns, rows), -1).reshape(-1, 1, 2)
    ideal = cv2.undistortPoints(distorted_N12, camera.K_33 - half, coefficients, P=wide_K - half).reshape(240, 320, 2)
    photo = cv2.remap(wide, ideal.astype(np.float32), None, cv2.INTER_LINEAR)

    lens = replace(camera, distortion=tuple(coefficients))
    image, pinhole = photos.undistorted(photo, lens)
    assert pinhole.distortion == () and image.shape == photo.shape
    expected = Renderer(hills_scene).render(pinhole.world_from_cam_44, pinhole.K_33, 320, 240).rgb_HW3
    distance = np.abs(image.astype(int) - expected).mean()
    ignored = Renderer(hills_scene).render(camera.world_from_cam_44, camera.K_33, 320, 240).rgb_HW3
    assert distance < 1 and np.abs(photo.astype(int) - ignored).mean() > 3 * distance


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
        cv2.imwrite(str(folder / "photos" / f"P_{i:02d}.png"), rendered.rgb_HW3[..., ::-1])
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
    assert sorted(path.name for path in scene_dir.iterdir()) == sorted(
        ["scene.json", "s_drone_split.txt"]
        + [f"{p}_drone_{d}" for p in ("train", "val", "test") for d in ("real", "sim")]
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
    assert "made with other settings (image_height)" in capsys.readouterr().err
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
    cameras(
        photos=original["photos"] + [{"file": "photos/lost.jpg", "cam_to_world": original["photos"][0]["cam_to_world"]}]
    )
    refused("photo 'photos/lost.jpg' of the cameras file is not in")
    cameras(
        photos=original["photos"] + [{"file": "more/P_00.jpg", "cam_to_world": original["photos"][0]["cam_to_world"]}]
    )
    refused("two photos are called 'P_00'")
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
    refused("P_04.png: not a readable image")
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


def test_colmap_text_model(tmp_path):
    (tmp_path / "points3D.txt").write_text("")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 1 2 3 1 b.jpg\n\n2 0 1 0 0 0 0 5 2 a.jpg\n\n")
    (tmp_path / "cameras.txt").write_text(
        "1 SIMPLE_RADIAL 640 480 500 320 240 -0.1\n2 PINHOLE 640 480 500 510 321 239\n"
    )
    first, second = read_colmap(tmp_path)
    assert (first.stem, second.stem) == ("a", "b")
    assert first.distortion == () and second.distortion == (-0.1,)
    assert first.K_33[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == [500, 510, 321, 239]
    assert np.allclose(second.world_from_cam_44[:3, 3], [-1, -2, -3])
    assert np.allclose(first.world_from_cam_44[:3, :3], np.diag([1, -1, -1])) and first.world_from_cam_44[2, 3] == 5
    fisheye = "1 OPENCV_FISHEYE 640 480 500 500 320 240 0 0 0 0\n2 PINHOLE 640 480 500 510 321 239\n"
    (tmp_path / "cameras.txt").write_text(fisheye)
    with pytest.raises(ValueError, match="camera model OPENCV_FISHEYE of b.jpg is not supported"):
        read_colmap(tmp_path)
    with pytest.raises(FileNotFoundError, match="no images.txt or images.bin"):
        read_colmap(tmp_path / "none")


def test_brighton_beach_colmap_equals_cameras_json(brighton_beach):
    from_json = read_cameras_json(brighton_beach / "cameras.json")
    from_colmap = read_colmap(brighton_beach / "colmap")
    assert [camera.stem for camera in from_json] == [camera.stem for camera in from_colmap]
    for one, other in zip(from_json, from_colmap, strict=True):
        assert np.allclose(one.K_33, other.K_33) and np.allclose(
            one.world_from_cam_44, other.world_from_cam_44, atol=1e-4
        )


def test_brighton_beach_photos_lie_on_their_renders(brighton_beach):
    """Patches of open ground are found within half a pixel of where the render shows them."""
    geodata = brighton_beach / "geodata"
    scene = GeoScene.open(geodata / "dsm.tif", geodata / "ortho.tif", geodata / "landcover.tif")
    assert scene.origin_xyz == (0, 0, 0)
    shifts = []
    for camera in read_cameras_json(brighton_beach / "cameras.json"):
        if camera.stem in ("DJI_0026", "DJI_0034"):
            photo = photos.read_photo(photos.find_photo(brighton_beach, camera.file), camera)
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
                shifts.append(
                    np.array([x + _peak(score[y, x - 1 : x + 2]), y + _peak(score[y - 1 : y + 2, x])]) - reach
                )
    return shifts


def _peak(triple: np.ndarray) -> float:
    left, middle, right = triple
    return 0.5 * (left - right) / (left - 2 * middle + right)
