"""Views from published presets, random walks, pose lists and flights that are flown again."""

from __future__ import annotations

import json
import logging

import numpy as np
import pyproj
import pytest

from datagen import random_walk, sampling
from datagen.__main__ import main
from datagen.flights import converted_with_north
from datagen.frames import WGS84, declared
from datagen.render import Renderer
from geometry.attitude import enu_from_camera, yaw_pitch_roll_from_enu_camera

from .synthetic import LEFT, TOP, plane_height, write_raster
from .test_labels import pose
from .test_photo_sources import dji_photo

LV95 = declared("EPSG:2056")
CENTRE = np.array([[LEFT + 100, TOP - 100]])
# The four published files: three of single views, one of walks (in three sizes, over any of the ranges).
EPFL = {
    "nbImages": 15000, "lonRange": [6.561020, 6.577407], "latRange": [46.518102, 46.521380], "hRange": [500, 600],
    "yawRange": [0, 360], "pitchRange": [-90, -30], "rollRange": [-15, 15],
}  # fmt: skip
COMBALLAZ = {
    **EPFL, "nbImages": 30000, "lonRange": [7.065, 7.077], "latRange": [46.3705, 46.3825], "hRange": [100, 200],
    "pitchRange": [-90, -45], "heightRef": "PROJ_DIR/data/dtm.tif",
}  # fmt: skip
DEMO = {
    **EPFL, "nbImages": 3, "lonRange": [6.539770, 6.551614], "latRange": [46.525280, 46.542231], "hRange": [600, 700],
    "pitchRange": [-90, -60],
}  # fmt: skip
WALK = {key: value for key, value in EPFL.items() if key != "nbImages"} | {
    "nbSeq": 15, "seqLen": 1000, "maxTransVel": [30, 30, 5], "maxRotVel": [5, 2, 1],
}  # fmt: skip


def lonlat(xy_N2):
    return converted_with_north(np.asarray(xy_N2, float), LV95, WGS84)[0]


def box(reach_m: float) -> dict:
    """Ranges about the synthetic scene's centre."""
    corners = lonlat(CENTRE + np.array([[-reach_m, -reach_m], [reach_m, reach_m]]))
    return {"lonRange": corners[:, 0].tolist(), "latRange": corners[:, 1].tolist()}


@pytest.fixture
def project(tmp_path):
    """A published project's folder; writes presets into it."""
    (tmp_path / "scripts" / "presets").mkdir(parents=True)
    (tmp_path / "data").mkdir()

    def write(document, name="p.json"):
        path = tmp_path / "scripts" / "presets" / name
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.fixture(scope="module")
def plane(make_geodata):
    return make_geodata(height=plane_height)


def test_the_published_files_are_accepted(project, tmp_path):
    """Values of topo_datagen.md; without heightRef, heights are ellipsoidal."""
    epfl = sampling.read_preset(project(EPFL))
    assert (epfl.count, epfl.geographic, epfl.height_reference, epfl.height_file) == (15000, True, "ellipsoid", None)
    assert epfl.horizontal == ((6.561020, 6.577407), (46.518102, 46.521380)) and epfl.roll == (-15, 15)
    demo = sampling.read_preset(project(DEMO))
    assert (demo.count, demo.height_reference, demo.height, demo.pitch) == (3, "ellipsoid", (600, 700), (-90, -60))
    assert demo.horizontal == ((6.539770, 6.551614), (46.525280, 46.542231))
    with pytest.raises(FileNotFoundError, match=r"heightRef PROJ_DIR/data/dtm.tif: no such file, looked in .*scripts"):
        sampling.read_preset(project(COMBALLAZ))
    (tmp_path / "data" / "dtm.tif").write_bytes(b"")
    comballaz = sampling.read_preset(project(COMBALLAZ))
    assert comballaz.height_file == tmp_path / "data" / "dtm.tif" and comballaz.height == (100, 200)
    assert comballaz.count == 30000 and comballaz.pitch == (-90, -45) and comballaz.yaw == (0, 360)
    walk = sampling.read_preset(project(WALK))
    assert walk.count == 15000 and walk.walk == sampling.WalkLimits(15, 1000, (30, 30, 5), (5, 2, 1))
    above = sampling.read_preset(project({**WALK, "nbSeq": 30, "heightRef": COMBALLAZ["heightRef"]}))
    assert above.walk.count == 30 and above.height_file == comballaz.height_file
    assert sampling.read_preset(project({**WALK, "nbSeq": 2, "seqLen": 50})).count == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nbImages": 3}, "random walks take nbSeq, seqLen, maxTransVel, maxRotVel, all of them, and no nbImages"),
        ({"maxRotVel": None}, "all of them"),
        ({"maxRotVel": [1, 2]}, "maxRotVel must be three positive numbers"),
        ({"maxTransVel": [1, 2, 0]}, "maxTransVel must be three positive numbers"),
        ({"seqLen": 0}, "seqLen must be a positive whole number, found 0"),
        ({"heightRef": 3}, "heightRef is the path of a terrain model"),
        ({"heightRef": "a.tif", "heightReference": "ground"}, "stands instead of heightReference"),
    ],
)
def test_damaged_walks_are_named(project, changes, message):
    document = {key: value for key, value in {**WALK, **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        sampling.read_preset(project(document))


def test_heights_above_a_terrain_model(project, tmp_path, plane):
    """Nearest cell of a model in another CRS and coarser cells: 300 m in the west, 400 m in the east."""
    steps = np.where(np.arange(20)[None] < 10, 300.0, 400.0).astype(np.float32) * np.ones((20, 1), np.float32)
    write_raster(tmp_path / "data" / "dtm.tif", steps, 10.0)
    document = {**COMBALLAZ, **box(60), "nbImages": 40, "hRange": [20, 30]}
    scene = plane.open()
    preset = sampling.read_preset(project(document))
    poses = sampling.preset_proposal(preset, scene)(200, np.random.default_rng(0))
    x, z = poses[:, 0, 3] + scene.origin_xyz[0] - LEFT, poses[:, 2, 3] + scene.origin_xyz[2]
    above = z - np.where(x < 100, 300, 400)
    assert (above >= 20).all() and (above <= 30).all() and (x < 100).any() and (x > 100).any()
    off = np.array([1000.0])
    assert np.isnan(sampling.ground_under(preset, scene)(off, off)).all()


def test_random_walks_keep_their_limits(plane, project):
    """Every step within maxTransVel and maxRotVel, every view within the ranges; the walks get about and are smooth."""
    limits = {"nbSeq": 4, "seqLen": 300, "maxTransVel": [6, 5, 2], "maxRotVel": [5, 2, 1]}
    document = {**WALK, **limits, "lonRange": None, "latRange": None, "hRange": [40, 90], "pitchRange": [-90, -40]}
    document |= {"xRange": [LEFT + 20, LEFT + 180], "yRange": [TOP - 170, TOP - 30], "heightReference": "ellipsoid"}
    document = {key: value for key, value in document.items() if value is not None}
    preset, scene = sampling.read_preset(project(document)), plane.open()
    walks = random_walk.walks(preset, scene, 2021)
    assert [walk.shape for walk in walks] == [(300, 4, 4)] * 4
    for walk in walks:
        place = walk[:, :3, 3] + scene.origin_xyz
        step = np.abs(np.diff(place, axis=0))
        assert (step <= np.array([6, 5, 2]) + 1e-9).all() and (step.max(axis=0) > [1.5, 1.2, 0.5]).all()
        assert (place >= [LEFT + 20, TOP - 170, 40 - 1e-6]).all() and (place <= [LEFT + 180, TOP - 30, 90 + 1e-6]).all()
        yaw, pitch, roll = np.transpose([yaw_pitch_roll_from_enu_camera(p[:3, :3]) for p in walk])
        assert (pitch >= -90 - 1e-6).all() and (pitch <= -40 + 1e-6).all() and (np.abs(roll) <= 15 + 1e-6).all()
        turn = (np.diff(yaw) + 180) % 360 - 180
        # Yaw is not told from roll straight down.
        sure = pitch[:-1] > -88
        assert (np.abs(turn[sure & (pitch[1:] > -88)]) <= 5 + 1e-6).all() and (np.abs(np.diff(pitch)) <= 2 + 1e-6).all()
        assert np.ptp(place[:, :2], axis=0).min() > 50
        # The jitter of single steps is gone: half of the random step would be 0.75 m to either side.
        assert np.median(np.abs(np.diff(place[:, 0], n=2))) < 0.6
    again = random_walk.walks(preset, scene, 2021)
    assert all(np.array_equal(a, b) for a, b in zip(walks, again)) and not np.allclose(
        walks[0], random_walk.walks(preset, scene, 7)[0]
    )


def sections(tmp_path, geodata, *words) -> int:
    image = ["--width", "60", "--height", "40", "--focal", "50", "--scene", "s", "--workers", "1"]
    return main(["sections", *geodata.arguments(), *map(str, words), *image, "--output_dir", str(tmp_path / "out")])


def test_a_preset_of_walks_becomes_sections(tmp_path, plane, project, capsys):
    document = {**WALK, **box(50), "nbSeq": 2, "seqLen": 10, "hRange": [60, 90], "pitchRange": [-90, -80]}
    path = project(document)
    assert sections(tmp_path, plane, "--preset", path, "--num_images", "5") == 2
    assert "a preset of random walks says nbSeq and seqLen" in capsys.readouterr().err
    assert sections(tmp_path, plane, "--preset", path, "--min_valid", "0.3") == 0
    stems = sorted(p.stem for p in (tmp_path / "out" / "s").glob("*_sim/rgb/*.png"))
    assert 10 < len(stems) <= 20 and stems[0].startswith("s_seq_00_0") and stems[-1].startswith("s_seq_01_00")
    made = json.loads((tmp_path / "out" / "s" / "train_sim" / "section.json").read_text())
    assert made["rejected"] + len(stems) == 20


def test_pose_lists_become_views(tmp_path, plane):
    """CSV in degrees and earth-centred .npy give the same view, turned from true to grid north."""
    (lon, lat), height = lonlat(CENTRE + [[5, 8]])[0], 70.0
    (tmp_path / "list.csv").write_text(
        f"name,lon,lat,height,yaw,pitch,roll\nfirst,{lon:.11f},{lat:.11f},{height},30,-80,0\n"
    )
    assert sections(tmp_path, plane, "--poses", tmp_path / "list.csv", "--section", "csv", "--height_offset", "2") == 0
    to_ecef = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    np.save(tmp_path / "X_poses.npy", np.array([[*to_ecef.transform(lon, lat, height + 2), 30, -80, 0]]))
    (tmp_path / "X_pic_names.csv").write_text("first")
    assert sections(tmp_path, plane, "--poses", tmp_path / "X_poses.npy", "--section", "npy") == 0
    found = [np.loadtxt(tmp_path / "out" / "s" / name / "poses" / "first.txt") for name in ("csv", "npy")]
    assert np.allclose(*found, atol=1e-4)
    _, north = converted_with_north(np.array([[lon, lat]]), WGS84, LV95)
    convergence = np.degrees(np.arctan2(*north[0]))
    origin = plane.open().origin_xyz
    assert np.allclose(found[0][:3, 3] + origin, [*(CENTRE[0] + [5, 8]), 72], atol=1e-3)
    assert np.allclose(found[0][:3, :3], enu_from_camera(30 + convergence, -80, 0), atol=1e-6)


def test_flights_are_flown_again_where_the_photos_say(tmp_path, hills, caplog, capsys, monkeypatch):
    """Position and attitude of EXIF and XMP; the recorded split holds photos out."""
    caplog.set_level(logging.INFO)
    from datagen import flights
    from datagen.photo_metadata import PhotoMetadata

    folder = tmp_path / "flight"
    folder.mkdir()
    places = lonlat(CENTRE + np.array([[-10.0, 0], [0, 5], [10, 0]]))
    said = {}
    for i, (lon, lat) in enumerate(places):
        dji_photo(folder / f"D_{i}.jpg", size=(32, 24))
        said[f"D_{i}.jpg"] = PhotoMetadata(32, 24, (lon, lat, 55.0), (15.0, -88.0, 0.0), None, "")
    dji_photo(folder / "D_9.jpg", size=(32, 24))
    said["D_9.jpg"] = PhotoMetadata(32, 24, None, None, None, "")
    monkeypatch.setattr(flights, "read_metadata", lambda path: said[path.name])
    assert sections(tmp_path, hills, "--flight", folder, "--section", "again") == 0
    assert "1 of 4 photos hold no position or attitude and are left out, such as D_9.jpg" in caplog.text
    found = [np.loadtxt(p) for p in sorted((tmp_path / "out" / "s" / "again" / "poses").iterdir())]
    origin = hills.open().origin_xyz
    assert np.allclose(
        [p[:3, 3] + origin for p in found], [[*(CENTRE[0] + d), 55] for d in ([-10, 0], [0, 5], [10, 0])], atol=1e-3
    )
    split = ["--split", "train=D_0", "test=D_1,D_2"]
    assert sections(tmp_path, hills, "--flight", folder, "--section", "train_again", *split) == 0
    assert [p.stem for p in (tmp_path / "out" / "s" / "train_again" / "rgb").iterdir()] == ["D_0"]
    said.update(dict.fromkeys(said, PhotoMetadata(32, 24, None, None, None, "")))
    assert sections(tmp_path, hills, "--flight", folder, "--section", "none") == 2
    assert "none of 4 photos holds a position (EXIF) and an attitude (XMP)" in capsys.readouterr().err


def test_the_world_frame_is_reached_in_float64(hills):
    """1e-6 m of a coordinate of 2.6 million survive until the origin is subtracted; float32 would keep 0.25 m."""
    scene = hills.open()
    moved = pose(1e-6, 2e-6, 50, 0, -90, 0)
    moved[:3, 3] += scene.origin_xyz
    assert np.allclose(scene.to_world(moved)[:3, 3], [1e-6, 2e-6, 50], atol=1e-9, rtol=0)
    view = Renderer(scene).render(
        scene.to_world(moved), np.diag([50.0, 50, 1]) + np.array([[0, 0, 32], [0, 0, 24], [0, 0, 0]]), 64, 48
    )
    # The cell centres of a nadir view are where pose and calibration see them, to float32 of local coordinates.
    column, row = 3, 2
    x = view.coords_3hw[0, row, column]
    assert abs(x - (column * 8 + 4 - 32) / 50 * view.depth_hw[row, column]) < 2e-5
