"""Presets, Latin hypercube, views around a flight, rejection."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datagen import sampling
from datagen.cameras import Camera, centred_intrinsics
from datagen.render import Renderer
from geometry.attitude import yaw_pitch_roll_from_enu_camera

from .synthetic import LEFT, TOP, plane_height
from .test_labels import pose

SIZE, K_33 = (120, 80), centred_intrinsics(120.0, 120, 80)
CENTRE_X, CENTRE_Y = LEFT + 100, TOP - 100


def preset_document(**changes) -> dict:
    document = {
        "nbImages": 20,
        "xRange": [CENTRE_X - 30, CENTRE_X + 30],
        "yRange": [CENTRE_Y - 20, CENTRE_Y + 20],
        "hRange": [30, 50],
        "heightReference": "ground",
        "yawRange": [10, 80],
        "pitchRange": [-90, -60],
        "rollRange": [-5, 5],
    }
    return {key: value for key, value in {**document, **changes}.items() if value is not None}


@pytest.fixture
def write_preset(tmp_path):
    def write(**changes):
        path = tmp_path / "preset.json"
        path.write_text(json.dumps(preset_document(**changes)))
        return path

    return write


@pytest.fixture(scope="module")
def plane_renderer(make_geodata):
    return Renderer(make_geodata(height=plane_height).open())


def sample(renderer, preset, *, seed=0, count=None, min_valid=0.6):
    propose = sampling.preset_proposal(preset, renderer.scene)
    return sampling.sample_views(propose, renderer, K_33, SIZE, count or preset.count, min_valid=min_valid, seed=seed)


def test_latin_hypercube_fills_every_slice_once():
    points = sampling.latin_hypercube(17, 4, np.random.default_rng(3))
    assert (np.sort(np.floor(points * 17), axis=0) == np.arange(17)[:, None]).all()
    assert np.abs(np.corrcoef(points.T) - np.eye(4)).max() < 0.8


def test_preset_views_lie_in_the_ranges(plane_renderer, write_preset):
    poses, rejected = sample(plane_renderer, sampling.read_preset(write_preset()))
    assert poses.shape == (20, 4, 4) and rejected >= 0
    x, y, z = poses[:, :3, 3].T
    assert (np.abs(x) <= 30).all() and (np.abs(y) <= 20).all()
    above_ground = z - plane_height(x, y)
    assert (above_ground >= 29.99).all() and (above_ground <= 50.01).all()
    yaw, pitch, roll = np.transpose([yaw_pitch_roll_from_enu_camera(pose_44[:3, :3]) for pose_44 in poses])
    assert (yaw >= 10).all() and (yaw <= 80).all() and (pitch <= -60).all() and (np.abs(roll) <= 5.001).all()
    if rejected == 0:
        assert len(set(np.floor(above_ground - 30).astype(int))) == 20, "one view per metre of the height range"


def test_ellipsoid_heights_are_absolute(plane_renderer, write_preset):
    origin_z = plane_renderer.scene.origin_xyz[2]
    path = write_preset(heightReference="ellipsoid", hRange=[origin_z + 60, origin_z + 61])
    poses, _ = sample(plane_renderer, sampling.read_preset(path))
    assert (np.abs(poses[:, 2, 3] - 60.5) <= 0.5).all()


def test_longitude_and_latitude(plane_renderer, write_preset):
    from rasterio.crs import CRS
    from rasterio.warp import transform

    lon, lat = transform(CRS.from_epsg(2056), CRS.from_epsg(4326), [CENTRE_X - 25, CENTRE_X + 25], [CENTRE_Y - 5] * 2)
    path = write_preset(xRange=None, yRange=None, lonRange=lon, latRange=[lat[0], lat[0]])
    poses, _ = sample(plane_renderer, sampling.read_preset(path))
    assert (np.abs(poses[:, 0, 3]) < 25.1).all() and np.ptp(poses[:, 0, 3]) > 30
    assert np.allclose(poses[:, 1, 3], -5, atol=0.5)


def test_same_seed_same_views(plane_renderer, write_preset):
    preset = sampling.read_preset(write_preset())
    first, again, other = (sample(plane_renderer, preset, seed=seed)[0] for seed in (5, 5, 6))
    assert (first == again).all() and not np.allclose(first, other)


def test_views_off_the_data_are_drawn_again(plane_renderer, write_preset):
    preset = sampling.read_preset(write_preset(xRange=[CENTRE_X, CENTRE_X + 140]))
    poses, rejected = sample(plane_renderer, preset, min_valid=0.9)
    assert len(poses) == 20 and rejected > 5
    fractions = [plane_renderer.visible_fraction(pose_44, K_33, *SIZE) for pose_44 in poses]
    assert min(fractions) >= 0.9


def test_views_below_or_on_the_surface_are_drawn_again(plane_renderer, write_preset):
    preset = sampling.read_preset(write_preset(hRange=[-10, 10], pitchRange=[-90, -80]))
    poses, rejected = sample(plane_renderer, preset)
    clearances = poses[:, 2, 3] - plane_height(poses[:, 0, 3], poses[:, 1, 3])
    assert clearances.min() >= sampling.MIN_CLEARANCE - 0.01 and rejected > 10


def test_hopeless_ranges_are_an_error(plane_renderer, write_preset):
    for changes in ({"xRange": [CENTRE_X + 1000, CENTRE_X + 1100]}, {"pitchRange": [60, 80]}):
        with pytest.raises(ValueError, match="only 0 of .* views .* check the ranges"):
            sample(plane_renderer, sampling.read_preset(write_preset(**changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heightReference": None}, "heightReference is None; choose from"),
        ({"heightReference": "sea"}, "heightReference is 'sea'"),
        ({"xRange": None}, "either lonRange and latRange or xRange and yRange"),
        ({"lonRange": [1, 2], "latRange": [1, 2]}, "either lonRange"),
        ({"hRange": None}, "hRange is missing"),
        ({"hRange": [50, 30]}, "hRange must be .*low <= high"),
        ({"yawRange": 3}, "yawRange must be"),
        ({"nbImages": 0}, "nbImages must be a positive"),
        ({"nbImages": "many"}, "nbImages must be a positive"),
        ({"pitchrange": [0, 1]}, "unknown entries \\['pitchrange'\\]"),
    ],
)
def test_preset_problems_are_named(write_preset, changes, message):
    with pytest.raises(ValueError, match=message):
        sampling.read_preset(write_preset(**changes))


def test_preset_that_is_not_json(tmp_path):
    path = tmp_path / "preset.json"
    with pytest.raises(FileNotFoundError, match="preset .*no such file"):
        sampling.read_preset(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        sampling.read_preset(path)


@pytest.fixture
def flight():
    """An L of nadir cameras at 50 to 54 m, flown north and south."""
    stations = [(-30, -30), (0, -30), (30, -30), (30, 0), (30, 30), (29, 29)]
    return [
        Camera(f"c{i}", pose(x, y, 50 + i % 3 * 2, 5 if i % 2 else 185, -90, 0), K_33, *SIZE)
        for i, (x, y) in enumerate(stations)
    ]


def test_views_around_a_flight_stay_within_the_margins(plane_renderer, flight):
    margins = sampling.FlightMargins(position=4, height=3, yaw_deg=10, tilt_deg=2)
    poses, rejected = sampling.sample_views(
        sampling.flight_proposal(flight, margins), plane_renderer, K_33, SIZE, 200, min_valid=0.5, seed=1
    )
    x, y, z = poses[:, :3, 3].T
    assert (z >= 47).all() and (z <= 57).all() and np.ptp(z) > 8
    # The hull's long edge runs from (-30, -30) to (30, 30): nothing far north-west of it.
    assert ((y - x) / np.sqrt(2) <= 4.001).all() and (x >= -34).all() and rejected > 50
    assert ((y - x) > 0).any() and (x > 30).any(), "the margin is used"
    heading = np.rad2deg(np.arctan2(-poses[:, 0, 1], -poses[:, 1, 1])) % 360
    off = np.abs((heading[:, None] - [5, 185] + 180) % 360 - 180).min(axis=1)
    # A tilt of 2 degrees hardly turns the image of a nadir camera.
    assert off.max() <= 10.2 and (heading < 90).any() and (heading > 90).any()
    tilt = np.rad2deg(np.arccos(np.clip(-poses[:, 2, 2], -1, 1)))
    assert 1 < tilt.max() <= 2 * np.sqrt(2) + 0.01


def test_any_heading_around_a_flight_on_a_line(plane_renderer, flight):
    margins = sampling.FlightMargins(yaw_deg=180)
    poses, _ = sampling.sample_views(
        sampling.flight_proposal(flight[:3], margins), plane_renderer, K_33, SIZE, 60, min_valid=0.5, seed=1
    )
    heading = np.rad2deg(np.arctan2(-poses[:, 0, 1], -poses[:, 1, 1])) % 360
    assert (np.histogram(heading, bins=6, range=(0, 360))[0] > 2).all()
    assert (np.abs(poses[:, 1, 3] + 30) <= 10).all()


def test_given_cameras_are_checked(plane_renderer):
    def camera(name, *view):
        return [Camera(name, pose(*view), K_33, *SIZE)]

    sampling.check_cameras(camera("fine", 0, 0, 50, 0, -90, 0), plane_renderer)
    with pytest.raises(ValueError, match=r"camera deep at .* is 8\.0 m below the surface"):
        sampling.check_cameras(camera("deep", 0, 0, -8, 0, -90, 0), plane_renderer)
    with pytest.raises(ValueError, match="camera far at .* sees none of the surface"):
        sampling.check_cameras(camera("far", 900, 0, 50, 0, -90, 0), plane_renderer)
    with pytest.raises(ValueError, match="camera up at .* sees none of the surface"):
        sampling.check_cameras(camera("up", 0, 0, 50, 0, 60, 0), plane_renderer)
