"""Photos with poses from other programs: each form gives the poses and lenses that its program meant."""

from __future__ import annotations

import json
import logging
import shutil

import cv2
import numpy as np
import pycolmap
import pyproj
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from datagen import nerfstudio, photos, pose_lists
from datagen.__main__ import main
from datagen.cameras import Lens, centred_intrinsics
from datagen.flights import converted_with_north, lonlat_of_ecef
from datagen.frames import declared
from datagen.photo_metadata import read_metadata
from datagen.render import Renderer
from geometry.attitude import enu_from_camera

from .test_labels import pose

WIDTH, HEIGHT, FOCAL = 240, 160, 200.0
ANGLES = [(20.0 + i, -85.0, 0.0) for i in range(5)]
PLACES = [(-12.0 + 6 * i, 5.0 * np.sin(i), 50.0) for i in range(5)]
LV95 = declared("EPSG:2056")


@pytest.fixture(scope="module")
def flight(tmp_path_factory, hills_scene):
    """Folder of five photos images/P_i.jpg of the hills, and their poses in EPSG:2056."""
    folder = tmp_path_factory.mktemp("flight")
    (folder / "images").mkdir()
    poses = []
    for i, (place, angles) in enumerate(zip(PLACES, ANGLES)):
        view = pose(*place, *angles)
        rgb = Renderer(hills_scene).render(view, centred_intrinsics(FOCAL, WIDTH, HEIGHT), WIDTH, HEIGHT).rgb_HW3
        cv2.imwrite(str(folder / "images" / f"P_{i}.jpg"), rgb[..., ::-1])
        view[:3, 3] += hills_scene.origin_xyz
        poses.append(view)
    return folder, poses


@pytest.fixture
def write(flight, hills, tmp_path):
    """Runs the photos command on a source and returns (exit code, poses as stored by stem, in the CRS)."""

    def run(*source):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        words = ["photos", *hills.arguments(), *map(str, source), "--height", "80", "--scene", "s"]
        code = main([*words, "--output_dir", str(tmp_path / "out")])
        files = sorted((tmp_path / "out" / "s").glob("*_drone_real/poses/*.txt"), key=lambda p: p.stem)
        return code, {path.stem: np.loadtxt(path) for path in files}

    return run


def assert_poses(stored, poses, origin, position_m=1e-5, rotation=1e-7):
    assert sorted(stored) == [f"P_{i}" for i in range(len(poses))]
    for found, expected in zip((stored[stem] for stem in sorted(stored)), poses):
        assert np.allclose(found[:3, 3] + origin, expected[:3, 3], atol=position_m)
        assert np.allclose(found[:3, :3], expected[:3, :3], atol=rotation)


def real_agrees_with_render(scene_dir):
    """The photos are renders: stored beside their pairs they must be equal."""
    for real in scene_dir.glob("*_drone_real/rgb/*.png"):
        sim = real.parents[2] / real.parents[1].name.replace("real", "sim") / "rgb" / real.name
        assert np.abs(cv2.imread(str(real)).astype(int) - cv2.imread(str(sim)).astype(int)).mean() < 3


def test_nerfstudio(flight, write, hills_scene, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder, poses = flight
    # What ns-process-data does to a COLMAP model: other world axes, and OpenGL cameras.
    applied = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0.0], [0, 0, 0, 1]])
    frames = [
        {"file_path": f"images/P_{i}.jpg", "transform_matrix": (applied @ p @ np.diag([1, -1, -1, 1])).tolist()}
        for i, p in enumerate(poses)
    ]
    document = {"camera_model": "OPENCV", "w": WIDTH, "h": HEIGHT, "fl_x": FOCAL, "fl_y": FOCAL, "cx": 120, "cy": 80}
    document |= {"applied_transform": applied[:3].tolist(), "frames": frames}
    path = folder / "transforms.json"
    path.write_text(json.dumps(document))
    code, stored = write("--nerfstudio", path)
    assert code == 0 and "; the labels lie 0.0" in caplog.text
    assert_poses(stored, poses, hills_scene.origin_xyz)
    real_agrees_with_render(tmp_path / "out" / "s")

    def read(**changes):
        path.write_text(json.dumps({**document, **changes}))
        return nerfstudio.read_transforms(path)

    assert read(k1=-0.1, p2=0.01)[0].lens == Lens("OPENCV", (FOCAL, FOCAL, 120, 80, -0.1, 0, 0, 0.01))
    assert read(k1=-0.1, k3=0.02)[0].lens.model == "FULL_OPENCV"
    assert read(camera_model="OPENCV_FISHEYE", k4=0.5)[0].lens == Lens(
        "OPENCV_FISHEYE", (FOCAL, FOCAL, 120, 80, 0, 0, 0, 0.5)
    )
    own = [{**frames[0], "fl_x": 300.0}, *frames[1:]]
    assert [camera.K_33[0, 0] for camera in read(frames=own)] == [300, 200, 200, 200, 200]
    angle = {key: document[key] for key in ("w", "h", "frames", "applied_transform")} | {
        "camera_angle_x": 2 * np.arctan(0.6)
    }
    path.write_text(json.dumps(angle))
    assert nerfstudio.read_transforms(path)[0].K_33[0, 0] == pytest.approx(FOCAL)
    for changes, message in (
        ({"camera_model": "EQUIRECTANGULAR"}, "camera model 'EQUIRECTANGULAR' is not one of"),
        ({"frames": []}, "'frames' is empty"),
        ({"applied_transform": (2 * applied[:3]).tolist()}, "not rigid: the poses are no longer in metres"),
        ({"fl_x": -1}, "frame images/P_0.jpg: 240 x 160 px with focal lengths -1"),
        ({"frames": [{"file_path": "a.jpg"}]}, "entry 'transform_matrix' is missing"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read(**changes)
        assert str(error.value).count(str(path)) == 1


def odm_project(folder, poses, crs, *, named=True):
    """Project files of poses in crs: rotation vectors world to camera, centres, geographic positions."""
    to_lonlat = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
    features = []
    for i, p in enumerate(poses):
        properties = {
            "filename": f"P_{i}.jpg", "focal": FOCAL / WIDTH, "width": 120, "height": 80,
            "translation": p[:3, 3].tolist(), "rotation": Rotation.from_matrix(p[:3, :3].T).as_rotvec().tolist(),
        }  # fmt: skip
        properties |= {"camera": "b"} if named else {}
        lonlat = [*to_lonlat.transform(*p[:2, 3]), p[2, 3]]
        features.append({"type": "Feature", "properties": properties, "geometry": {"type": "Point", "coordinates": lonlat}})
    (folder / "odm_report").mkdir(exist_ok=True)
    (folder / "odm_report" / "shots.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    lens = {"projection_type": "brown", "width": 120, "height": 80, "focal_x": FOCAL / WIDTH, "focal_y": FOCAL / WIDTH}
    other = {"projection_type": "perspective", "width": 90, "height": 60, "focal": 0.7}
    (folder / "cameras.json").write_text(json.dumps({"a": other, "b": lens}))


def test_opendronemap_in_its_own_utm_zone(flight, write, hills_scene, hills, tmp_path, capsys):
    """The same cameras stated in UTM: positions and the turn between the two grids are undone."""
    folder, poses = flight
    utm = declared("EPSG:32632")
    xy, north = converted_with_north(np.stack([p[:2, 3] for p in poses]), LV95, utm)
    stated = []
    for p, xy_2, (e, n) in zip(poses, xy, north):
        q = p.copy()
        q[:2, 3] = xy_2
        q[:3, :3] = np.array([[n, e, 0], [-e, n, 0], [0, 0, 1]]) @ p[:3, :3]
        stated.append(q)
    # At 7.4 degrees east the grids differ by 1.1 degrees; UTM counts metres of 0.9997.
    assert np.degrees(np.arctan2(*north[0])) == pytest.approx(1.13, abs=0.1)
    odm_project(folder, stated, utm)
    code, stored = write("--odm", folder)
    assert code == 0
    assert_poses(stored, poses, hills_scene.origin_xyz, position_m=2e-3, rotation=1e-6)
    real_agrees_with_render(tmp_path / "out" / "s")
    odm_project(folder, stated, utm, named=False)
    assert write("--odm", folder)[0] == 0, "the camera is found by size and focal length"
    moved = [p + np.array([[0, 0, 0, 30.0]] + 3 * [[0] * 4]) for p in stated]
    odm_project(folder, moved, utm)
    shots = folder / "odm_report" / "shots.geojson"
    document = json.loads(shots.read_text())
    for feature, p in zip(document["features"], stated):
        feature["properties"]["translation"] = p[:3, 3].tolist()
    shots.write_text(json.dumps(document))
    assert write("--odm", folder) == (2, {})
    assert "translations and geographic positions are 30.0 m apart in EPSG:32632" in capsys.readouterr().err
    shots.unlink()
    assert write("--odm", folder) == (2, {})
    assert "neither odm_report/shots.geojson nor shots.geojson there" in capsys.readouterr().err


def test_opensfm_lenses(flight, tmp_path):
    """Normalised by the longer side, centred on the photo; distortion as OpenCV's."""
    from datagen.opendronemap import _optics

    brown = {"projection_type": "brown", "focal_x": 0.8, "focal_y": 0.81, "c_x": 0.01, "c_y": -0.02, "k1": -0.1, "p1": 0.001}
    K_33, lens = _optics(brown, 4000, 3000, "x")
    assert K_33[[0, 1, 0, 1], [0, 1, 2, 2]].tolist() == pytest.approx([3200, 3240, 2040, 1420])
    assert lens.model == "OPENCV" and lens.parameters[4:] == (-0.1, 0, 0.001, 0)
    K_33, lens = _optics({"projection_type": "fisheye", "focal": 0.5, "k1": 0.1, "k2": 0.02}, 3000, 4000, "x")
    assert K_33[0, 0] == 2000 and lens == Lens("OPENCV_FISHEYE", (2000, 2000, 1500, 2000, 0.1, 0.02, 0, 0))
    with pytest.raises(ValueError, match="projection type 'spherical' is not known"):
        _optics({"projection_type": "spherical", "focal": 0.5}, 400, 300, "x")
    with pytest.raises(ValueError, match="photo of 300 x 400 px, its camera is of 4 x 3"):
        _optics({"focal": 0.5, "width": 4, "height": 3}, 300, 400, "x")


def test_geo_txt_and_csv(flight, write, hills_scene, tmp_path, capsys):
    """Longitude, latitude and angles from true north: the grid's convergence is applied."""
    folder, poses = flight
    lonlat, north = converted_with_north(np.stack([p[:2, 3] for p in poses]), LV95, declared("EPSG:4326"))
    _, true_north = converted_with_north(lonlat, declared("EPSG:4326"), LV95)
    convergence = np.degrees(np.arctan2(true_north[:, 0], true_north[:, 1]))
    rows = [
        [f"P_{i}.jpg", f"{lonlat[i, 0]:.10f}", f"{lonlat[i, 1]:.10f}", f"{p[2, 3]:.4f}", f"{a[0] - c:.9f}", *map(str, a[1:])]
        for i, (p, a, c) in enumerate(zip(poses, ANGLES, convergence))
    ]
    geo = folder / "images" / "geo.txt"
    geo.write_text("\n".join(["EPSG:4326", *(" ".join([*row, "0.1", "0.2"]) for row in rows)]))
    code, stored = write("--geo_txt", geo, "--intrinsics", FOCAL)
    assert code == 0
    assert_poses(stored, poses, hills_scene.origin_xyz, position_m=2e-3, rotation=1e-6)
    table = tmp_path / "poses.csv"
    table.write_text("\n".join(["image,Longitude,lat,alt (m),Yaw,pitch,roll", *(",".join(row) for row in rows)]))
    code, again = write("--geo_txt", table, "--photos", folder / "images", "--intrinsics", FOCAL)
    assert code == 0 and all(np.array_equal(again[stem], stored[stem]) for stem in stored)

    def refused(message, text, *more):
        table.write_text(text)
        assert write("--geo_txt", table, "--photos", folder / "images", *more) == (2, {})
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error

    line = " ".join(rows[0])
    refused("P_0.jpg does not tell its focal length (EXIF, XMP): give --intrinsics", f"EPSG:4326\n{line}")
    refused("positions only; views need yaw, pitch and roll", "EPSG:4326\nP_0.jpg 7.4 46.9 500", "--intrinsics", "200")
    refused("positions only", "EPSG:4326\nP_0.jpg 7.4 46.9 500 0 0 0", "--intrinsics", "200")
    refused("first line is neither column names nor a CRS", f"hello\n{line}", "--intrinsics", "200")
    refused("'P_0.jpg' is listed twice", f"EPSG:4326\n{line}\n{line}", "--intrinsics", "200")
    refused("are the two exchanged?", "EPSG:4326\nP_0.jpg 46.9 107.4 500 1 -85 0", "--intrinsics", "200")
    refused("no column for roll", "image,lon,lat,h,yaw,pitch\nP_0.jpg,7,46,500,1,2", "--intrinsics", "200")
    refused("line 2: expected numbers, found", "image,lon,lat,h\nP_0.jpg,7,46,high", "--intrinsics", "200")
    refused("photo 'Q.jpg' of the cameras file is not in", "EPSG:4326\nQ.jpg 7.4 46.9 500 1 -85 0", "--intrinsics", "200")
    refused("takes a focal length, or fx fy cx cy, not 2 numbers", f"EPSG:4326\n{line}", "--intrinsics", "200", "200")


def test_utm_line_of_a_geo_txt(tmp_path):
    path = tmp_path / "geo.txt"
    path.write_text("WGS84 UTM 32N\na.jpg 380000 5190000 500\n\n# remark\nb.jpg\t380010\t5190000\t500\n")
    listed = pose_lists.read_pose_list(path)
    assert listed.crs.to_epsg() == 32632 and listed.names == ["a.jpg", "b.jpg"] and listed.angles_N3 is None


def test_earth_centred_list_with_names(tmp_path, hills_scene):
    """float64 all the way: a position comes back to a tenth of a millimetre."""
    lonlat, _ = converted_with_north(np.array([[2_600_000.0, 1_200_100.0]]), LV95, declared("EPSG:4326"))
    to_ecef = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    xyz = to_ecef.transform(*lonlat[0], 543.21)
    np.save(tmp_path / "EPFL_poses.npy", [[*xyz, 10, -80, 2], [*xyz, 20, -90, 0]])
    assert pose_lists.read_pose_list(tmp_path / "EPFL_poses.npy").names == ["EPFL_00000", "EPFL_00001"]
    (tmp_path / "EPFL_pic_names.csv").write_text("one,two")
    listed = pose_lists.read_pose_list(tmp_path / "EPFL_poses.npy")
    assert listed.names == ["one", "two"] and np.allclose(lonlat_of_ecef([xyz])[0, :2], lonlat[0], atol=1e-11)
    one = listed.flight().in_crs(LV95)[0]
    assert np.allclose(one.world_from_cam_44[:3, 3], [2_600_000, 1_200_100, 543.21], atol=1e-4)
    _, north = converted_with_north(lonlat, declared("EPSG:4326"), LV95)
    expected = enu_from_camera(10 + np.degrees(np.arctan2(*north[0])), -80, 2)
    assert np.allclose(one.world_from_cam_44[:3, :3], expected, atol=1e-9)
    (tmp_path / "EPFL_pic_names.csv").write_text("one")
    with pytest.raises(ValueError, match="1 names for 2 poses"):
        pose_lists.read_pose_list(tmp_path / "EPFL_poses.npy")
    for values, message in (
        (np.zeros((3, 6)), "0 m from the Earth's centre are not earth-centred"),
        (np.float32([[*xyz, 0, 0, 0]]), "float32 cannot hold earth-centred positions"),
        (np.zeros((3, 4)), r"expected finite numbers \[n, 6\], found \(3, 4\)"),
    ):
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(ValueError, match=message):
            pose_lists.read_pose_list(tmp_path / "x.npy")


def dji_photo(path, size=(400, 300), *, gps=True, xmp="", focal_35=None):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8))
    exif = Image.Exif()
    if gps:
        exif.get_ifd(0x8825).update({1: "N", 2: (46.0, 30.0, 36.0), 3: "W", 4: (6.0, 15.0, 18.0), 5: b"\x00", 6: 512.5})
    if focal_35:
        exif.get_ifd(0x8769)[0xA405] = focal_35
    image.save(path, exif=exif, xmp=xmp.encode() if xmp else None)
    return path


def test_what_a_photo_says_of_itself(tmp_path):
    attributes = (
        'drone-dji:AbsoluteAltitude="+498.70" drone-dji:GimbalYawDegree="-12.50" drone-dji:GimbalPitchDegree="-89.90" '
        'drone-dji:GimbalRollDegree="+0.00" drone-dji:CalibratedFocalLength="3666.67" '
        'drone-dji:CalibratedOpticalCenterX="2000.0"'
    )
    said = read_metadata(dji_photo(tmp_path / "a.jpg", xmp=f"<x:xmpmeta><rdf:Description {attributes}/></x:xmpmeta>"))
    assert said.lon_lat_height == pytest.approx((-6.255, 46.51, 498.7)) and said.yaw_pitch_roll_deg == (-12.5, -89.9, 0)
    assert said.focal_px == pytest.approx(366.667), "the entry is of the whole sensor, 4000 px wide"
    elements = "".join(
        f"<drone-dji:Gimbal{axis}Degree>{value}</drone-dji:Gimbal{axis}Degree>"
        for axis, value in (("Yaw", 30), ("Pitch", -90), ("Roll", 180))
    )
    said = read_metadata(dji_photo(tmp_path / "b.jpg", xmp=elements, focal_35=24))
    assert said.lon_lat_height == pytest.approx((-6.255, 46.51, 512.5)) and said.yaw_pitch_roll_deg == (210, -90, 0)
    assert said.focal_px == pytest.approx(24 / 43.2666 * 500) and "guess" in said.focal_source
    said = read_metadata(dji_photo(tmp_path / "c.jpg", gps=False))
    assert (said.lon_lat_height, said.yaw_pitch_roll_deg, said.focal_px) == (None, None, None)
    (tmp_path / "d.jpg").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="d.jpg: not a readable image"):
        read_metadata(tmp_path / "d.jpg")


def test_colmap_binary_gives_the_same_as_cameras_json(flight, write, hills_scene, tmp_path):
    folder, poses = flight
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=WIDTH, height=HEIGHT, params=[FOCAL, FOCAL, 120, 80], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for i, p in enumerate(poses):
        cam_from_world = np.linalg.inv(p)[:3]
        image = pycolmap.Image(name=f"P_{i}.jpg", camera_id=1, image_id=i + 1)
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(cam_from_world[:, :3].copy()), cam_from_world[:, 3].copy())
        model.add_image_with_trivial_frame(image, rigid)
    (tmp_path / "model").mkdir()
    model.write_binary(str(tmp_path / "model"))
    code, stored = write("--colmap", tmp_path / "model", "--photos", folder / "images")
    assert code == 0
    assert_poses(stored, poses, hills_scene.origin_xyz)
    assert photos.find_photo(folder, "images/P_0.jpg").is_file()
