"""Places, attitudes and ground points of known cameras."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest

from exports import Georeference, footprint, locate
from geometry.attitude import enu_from_camera

from .conftest import failed_answer, make_answer, make_scene


def test_positions_are_those_of_the_projection(flat_frame):
    georeference = Georeference(flat_frame)
    lon, lat, height = georeference.lonlat_height(np.array([10.0, -20.0, 30.0]))[0]
    expected = pyproj.Proj("EPSG:32632")(600_010.0, 5_136_980.0, inverse=True)
    assert (lon, lat) == pytest.approx(expected, abs=1e-10) and height == 530.0
    np.testing.assert_allclose(georeference.local(lon, lat, height), [10, -20, 30], atol=1e-6)


@pytest.mark.parametrize("east", [600_000.0, 400_000.0])
def test_yaw_counts_from_true_north(flat_frame, east):
    """100 km from the central meridian the grid's north is 0.95 deg off, to the east of true north in the east."""
    frame = {**flat_frame, "origin_xyz": [east, 5_137_000.0, 0.0]}
    georeference = Georeference(frame)
    pose_44 = make_answer(yaw=0.0, pitch=-45.0, roll=5.0).world_from_cam_44
    pose = georeference.pose(pose_44)
    convergence = pyproj.Proj("EPSG:32632").get_factors(pose.longitude_deg, pose.latitude_deg).meridian_convergence
    assert abs(convergence) > 0.9 and np.sign(convergence) == np.sign(east - 500_000)
    assert (pose.yaw_deg + 180) % 360 - 180 == pytest.approx(convergence, abs=1e-4)
    assert (pose.pitch_deg, pose.roll_deg) == pytest.approx((-45, 5), abs=1e-6)


def test_a_point_ahead_lies_in_the_direction_of_the_yaw(flat_frame):
    """Independent of conventions: the geodesic from the camera to what it looks at has the yaw as its azimuth."""
    georeference = Georeference(flat_frame)
    pose_44 = make_answer(yaw=70.0, pitch=-30.0).world_from_cam_44
    ahead_3 = pose_44[:3, 3] + 100 * pose_44[:3, 2]
    (lon_0, lat_0, _), (lon_1, lat_1, _) = georeference.lonlat_height(np.stack((pose_44[:3, 3], ahead_3)))
    azimuth, _, _ = pyproj.Geod(ellps="WGS84").inv(lon_0, lat_0, lon_1, lat_1)
    assert georeference.pose(pose_44).yaw_deg == pytest.approx(azimuth, abs=2e-3)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({}, "names no CRS"),
        ({"crs": "EPSG:32632"}, "names no CRS and origin"),
        ({"crs": "nonsense", "origin_xyz": [0, 0, 0]}, "not understood"),
        ({"crs": 'LOCAL_CS["local",UNIT["metre",1]]', "origin_xyz": [0, 0, 0]}, "local frame"),
    ],
)
def test_frames_without_a_place_are_refused(frame, said):
    with pytest.raises(ValueError, match=said):
        Georeference(frame)


def test_a_pixel_of_a_nadir_photo(flat):
    """100 m above the ground at f = 500 px a pixel is 0.2 m; the image's top is north."""
    found = locate(make_answer(), (300.0, 200.0), flat)
    np.testing.assert_allclose(found.world_3, [0, 0, 0], atol=1e-4)
    found = locate(make_answer(), (400.0, 100.0), flat)
    np.testing.assert_allclose(found.world_3, [20, 20, 0], atol=1e-4)
    assert found.height_m == pytest.approx(500.0, abs=1e-3)
    assert found.distance_m == pytest.approx(np.sqrt(100**2 + 2 * 20**2), abs=1e-3)
    expected = pyproj.Proj("EPSG:32632")(600_020.0, 5_137_020.0, inverse=True)
    assert (found.longitude_deg, found.latitude_deg) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("xy", [(300.0, 200.0), (520.0, 350.0)])
def test_the_spread_of_a_ground_point_is_that_of_perturbed_poses(flat, xy):
    answer = make_answer(yaw=30.0, pitch=-55.0, position=(0.0, -40.0, 100.0))
    rng = np.random.default_rng(0)
    points = []
    for vector, shift in zip(rng.normal(0, 1e-2, (2000, 3)), rng.normal(0, [0.2, 0.3, 0.5], (2000, 3)), strict=True):
        angle = np.linalg.norm(vector)
        x, y, z = vector / angle
        k_33 = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        pose_44 = answer.world_from_cam_44.copy()
        pose_44[:3, :3] = pose_44[:3, :3] @ (np.eye(3) + np.sin(angle) * k_33 + (1 - np.cos(angle)) * k_33 @ k_33)
        pose_44[:3, 3] += shift
        ray_3 = pose_44[:3, :3] @ [(xy[0] - 300) / 500, (xy[1] - 200) / 500, 1]
        points.append((pose_44[:3, 3] - ray_3 * pose_44[2, 3] / ray_3[2])[:2])
    sampled = np.sqrt(np.trace(np.cov(np.array(points).T)))
    assert locate(answer, xy, flat).sigma_m == pytest.approx(sampled, rel=0.06)
    unknown = make_answer(covariance_66=np.full((6, 6), np.inf))
    assert locate(unknown, xy, flat).sigma_m is None


def test_pixels_without_a_place_are_refused(flat):
    with pytest.raises(ValueError, match="not in a.jpg, which has 600 x 400"):
        locate(make_answer(), (601.0, 10.0), flat)
    with pytest.raises(ValueError, match="no pose"):
        locate(failed_answer(), (1.0, 1.0), flat)
    with pytest.raises(ValueError, match="no part of the surface"):
        locate(make_answer(pitch=0.0), (300.0, 10.0), flat)


def test_a_local_scene_gives_local_places():
    surface = make_scene(code='LOCAL_CS["local",UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["E",EAST],AXIS["N",NORTH]]')
    found = locate(make_answer(), (400.0, 100.0), surface)
    assert found.longitude_deg is None and found.height_m == pytest.approx(500.0, abs=1e-3)


def test_the_footprint_of_a_nadir_photo_is_its_frame(flat):
    outline_N3 = footprint(make_answer(), flat)
    assert outline_N3[:, 0].min() == pytest.approx(-60, abs=1e-3) and outline_N3[:, 0].max() == pytest.approx(60, abs=1e-3)
    assert outline_N3[:, 1].min() == pytest.approx(-40, abs=1e-3) and outline_N3[:, 1].max() == pytest.approx(40, abs=1e-3)


def test_an_oblique_footprint_is_a_trapezoid(flat):
    """Looking north, 45 deg down from 50 m: the lower border is hit at 50 tan(45 - atan(0.4)) north of the camera."""
    outline_N3 = footprint(make_answer(pitch=-45.0, position=(0.0, -100.0, 50.0)), flat)
    edges = [50 * np.tan(np.deg2rad(45) + sign * np.arctan(0.4)) - 100 for sign in (-1, 1)]
    assert outline_N3[:, 1].min() == pytest.approx(edges[0], abs=1e-2)
    assert outline_N3[:, 1].max() == pytest.approx(edges[1], abs=1e-2)
    upper, lower = (np.ptp(outline_N3[np.abs(outline_N3[:, 1] - edge) < 0.1, 0]) for edge in edges[::-1])
    assert upper / lower == pytest.approx((edges[1] + 100) / (edges[0] + 100) * _slant(edges), rel=0.02)


def _slant(edges) -> float:
    """Ratio of distances along the optical axis over that of distances on the ground."""
    depth = [np.hypot(50, edge + 100) * np.cos(np.arctan(0.4)) for edge in edges]
    return depth[1] / depth[0] / ((edges[1] + 100) / (edges[0] + 100))


def test_a_footprint_ends_at_the_border_of_the_data(flat):
    outline_N3 = footprint(make_answer(pitch=-20.0, position=(0.0, 0.0, 100.0)), flat)
    assert 199 < outline_N3[:, 1].max() <= 199.5 + 1e-6  # the mesh ends at the centres of the last cells
    assert footprint(make_answer(pitch=60.0), flat) is None


def test_a_hill_shortens_the_footprint():
    surface = make_scene(lambda x, y: 30.0 * (y > 20))
    outline_N3 = footprint(make_answer(), surface)
    assert outline_N3[:, 1].max() == pytest.approx(40 * 0.7, abs=0.05)
    assert outline_N3[:, 1].min() == pytest.approx(-40, abs=1e-3)


def test_axes_of_the_answers(flat):
    """The fixture's world is east, north, up, so its attitude is the one that it was made of."""
    assert np.allclose(make_answer(yaw=20, pitch=-50, roll=3).world_from_cam_44[:3, :3], enu_from_camera(20, -50, 3))
