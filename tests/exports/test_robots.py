"""Logs for robots, read back by the libraries that robots read them with."""

from __future__ import annotations

import importlib.util
import json
import math
import sys

import numpy as np
import pyproj
import pytest
from scipy.spatial.transform import Rotation

from exports import write_all
from exports.__main__ import main
from exports.covariances import position_then_rotation, upper_triangle
from exports.georeference import Georeference
from exports.mavlink import write_mavlink
from exports.ros import CAMERA_FRAME, FIX_TOPIC, MAP_FRAME, ODOMETRY_TOPIC, UNKNOWN_VARIANCE, write_ros_bag
from geometry.attitude import ned_from_body

from .conftest import failed_answer, make_answer

# Correlated and different in every axis.
COVARIANCE = np.diag([1e-4, 4e-4, 9e-4, 0.04, 0.09, 0.25])
COVARIANCE[0, 3] = COVARIANCE[3, 0] = 1e-3
UNKNOWN = np.full((6, 6), np.inf)


@pytest.fixture
def answers():
    first = make_answer(
        "a", yaw=30, pitch=-70, roll=4, position=(10, 20, 100), covariance_66=COVARIANCE, time_s=1.7e9 + 0.25
    )
    return [first, failed_answer(), make_answer("b", covariance_66=UNKNOWN, time_s=1.7e9, confidence=0.2)]


def sampled(answer, count=20_000):
    """Poses drawn by an answer's covariance: rotations [N, 3, 3] and centres [N, 3]."""
    error_N6 = np.random.default_rng(0).multivariate_normal(np.zeros(6), answer.covariance_66, count)
    turns = Rotation.from_rotvec(error_N6[:, :3]).as_matrix()
    return answer.world_from_cam_44[:3, :3] @ turns, answer.world_from_cam_44[:3, 3] + error_N6[:, 3:]


def test_covariance_about_fixed_axes_is_that_of_drawn_poses(answers):
    """ROS wants rotations about the map's axes, applied from the left."""
    R_33 = answers[0].world_from_cam_44[:3, :3]
    R_N33, c_N3 = sampled(answers[0])
    left_N3 = Rotation.from_matrix(R_N33 @ R_33.T).as_rotvec()
    expected_66 = np.cov(np.concatenate((c_N3, left_N3), 1).T)
    found_66 = position_then_rotation(COVARIANCE, np.eye(3), R_33)
    np.testing.assert_allclose(found_66[:3, :3], expected_66[:3, :3], atol=0.006)
    np.testing.assert_allclose(found_66[3:, 3:], expected_66[3:, 3:], atol=3e-5)
    np.testing.assert_allclose(found_66[:3, 3:], expected_66[:3, 3:], atol=2e-4)


def test_upper_triangle_by_rows():
    matrix_66 = np.arange(36.0).reshape(6, 6)
    assert upper_triangle(matrix_66)[:7] == [0, 1, 2, 3, 4, 5, 7] and len(upper_triangle(matrix_66)) == 21


def read_bag(folder):
    rosbags = pytest.importorskip("rosbags.rosbag2", reason="the optional package rosbags is not installed")
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    found = {}
    with rosbags.Reader(folder) as bag:
        for connection, stamp_ns, data in bag.messages():
            found.setdefault(connection.topic, []).append((stamp_ns, store.deserialize_cdr(data, connection.msgtype)))
    return found


def test_ros_bag(answers, flat_frame, tmp_path):
    pytest.importorskip("rosbags", reason="the optional package rosbags is not installed")
    georeference = Georeference(flat_frame)
    write_ros_bag(answers, georeference, tmp_path / "bags/flight")
    found = read_bag(tmp_path / "bags/flight")
    assert set(found) == {ODOMETRY_TOPIC, FIX_TOPIC} and len(found[ODOMETRY_TOPIC]) == 2  # by time, without the failed one
    (first_ns, vague), (second_ns, odometry) = found[ODOMETRY_TOPIC]
    assert (first_ns, second_ns) == (1_700_000_000 * 10**9, 1_700_000_000 * 10**9 + 250_000_000)
    assert (odometry.header.stamp.sec, odometry.header.stamp.nanosec) == (1_700_000_000, 250_000_000)
    assert (odometry.header.frame_id, odometry.child_frame_id) == (MAP_FRAME, CAMERA_FRAME)
    pose, q = odometry.pose.pose, odometry.pose.pose.orientation
    assert (pose.position.x, pose.position.y, pose.position.z) == (10, 20, 100)
    R_33 = answers[0].world_from_cam_44[:3, :3]
    np.testing.assert_allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), R_33, atol=1e-12)
    expected_66 = position_then_rotation(COVARIANCE, np.eye(3), R_33)
    np.testing.assert_allclose(odometry.pose.covariance.reshape(6, 6), expected_66)
    np.testing.assert_allclose(vague.pose.covariance.reshape(6, 6), np.eye(6) * UNKNOWN_VARIANCE)
    _, fix = found[FIX_TOPIC][1]
    assert (fix.longitude, fix.latitude) == pytest.approx(
        pyproj.Proj("EPSG:32632")(600_010, 5_137_020, inverse=True), abs=1e-9
    )
    assert math.isnan(fix.altitude) and fix.position_covariance_type == fix.COVARIANCE_TYPE_KNOWN
    # 0.95 deg of convergence turn 0.04 m2 east and 0.09 m2 north a little.
    turn = np.deg2rad(pyproj.Proj("EPSG:32632").get_factors(fix.longitude, fix.latitude).meridian_convergence)
    assert fix.position_covariance[1] == pytest.approx((0.09 - 0.04) * np.sin(turn) * np.cos(turn), rel=1e-3)
    assert found[FIX_TOPIC][0][1].position_covariance_type == 0
    with pytest.raises(FileExistsError, match="already there"):
        write_ros_bag(answers, georeference, tmp_path / "bags/flight")
    assert {p.name for p in (tmp_path / "bags").iterdir()} == {"flight"}


def test_ros_bag_without_a_place_on_earth(answers, tmp_path):
    pytest.importorskip("rosbags", reason="the optional package rosbags is not installed")
    write_ros_bag(answers, None, tmp_path / "flight")
    assert set(read_bag(tmp_path / "flight")) == {ODOMETRY_TOPIC}


def read_tlog(path):
    pytest.importorskip("pymavlink", reason="the optional package pymavlink is not installed")
    from pymavlink import mavutil

    log = mavutil.mavlink_connection(str(path), dialect="common")
    found = {}
    while (message := log.recv_match(blocking=False)) is not None:
        found.setdefault(message.get_type(), []).append(message)
    return found


def test_mavlink_log(answers, flat_frame, tmp_path):
    pytest.importorskip("pymavlink", reason="the optional package pymavlink is not installed")
    georeference = Georeference(flat_frame, datum="WGS 84", ellipsoidal=True)
    write_mavlink(answers, georeference, tmp_path / "flight.tlog")
    found = read_tlog(tmp_path / "flight.tlog")
    assert {name: len(messages) for name, messages in found.items()} == {
        "GLOBAL_POSITION_SENSOR": 2, "ODOMETRY": 2, "VISION_POSITION_ESTIMATE": 2,
    }  # fmt: skip
    place = found["GLOBAL_POSITION_SENSOR"][1]
    assert place.source == 2 and place.time_usec == 1_700_000_000_250_000  # 2: GLOBAL_POSITION_SRC_VISION
    lon, lat = pyproj.Proj("EPSG:32632")(600_010, 5_137_020, inverse=True)
    assert (place.lon, place.lat) == (round(lon * 1e7), round(lat * 1e7))
    assert place.alt_ellipsoid == pytest.approx(600) and math.isnan(place.alt)
    assert (place.eph, place.epv) == pytest.approx((np.sqrt(0.13), 0.5)) and math.isnan(
        found["GLOBAL_POSITION_SENSOR"][0].eph
    )
    odometry = found["ODOMETRY"][1]
    assert (odometry.frame_id, odometry.child_frame_id, odometry.estimator_type, odometry.quality) == (1, 12, 2, 90)
    turn = np.deg2rad(
        pyproj.Proj("EPSG:32632").get_factors(*georeference.lonlat_height(np.zeros(3))[0][:2]).meridian_convergence
    )
    north, east = 20 * np.cos(turn) - 10 * np.sin(turn), 10 * np.cos(turn) + 20 * np.sin(turn)
    assert (odometry.x, odometry.y, odometry.z) == pytest.approx((north, east, -100), abs=1e-3)
    w, x, y, z = odometry.q
    expected_33 = ned_from_body(30 + np.rad2deg(turn), -70, 4)
    np.testing.assert_allclose(Rotation.from_quat([x, y, z, w]).as_matrix(), expected_33, atol=1e-5)
    # Rotation about the optical axis, 9e-4, is about the body's x; about the image's x, 1e-4, its y.
    triangle = np.zeros((6, 6))
    triangle[np.triu_indices(6)] = odometry.pose_covariance
    assert np.diag(triangle)[2:] == pytest.approx([0.25, 9e-4, 1e-4, 4e-4])
    assert math.isnan(found["ODOMETRY"][0].pose_covariance[0]) and math.isnan(odometry.vx)
    estimate = found["VISION_POSITION_ESTIMATE"][1]
    assert (estimate.roll, estimate.pitch, estimate.yaw) == pytest.approx(np.deg2rad([4, -70, 30]) + [0, 0, turn], abs=1e-5)
    assert list(estimate.covariance) == list(odometry.pose_covariance)


def test_unknown_datums_and_places_are_not_guessed(answers, flat_frame, tmp_path):
    pytest.importorskip("pymavlink", reason="the optional package pymavlink is not installed")
    write_mavlink(answers, Georeference(flat_frame), tmp_path / "a.tlog")
    place = read_tlog(tmp_path / "a.tlog")["GLOBAL_POSITION_SENSOR"][0]
    assert math.isnan(place.alt) and math.isnan(place.alt_ellipsoid)
    write_mavlink(answers, None, tmp_path / "b.tlog")
    found = read_tlog(tmp_path / "b.tlog")
    assert "GLOBAL_POSITION_SENSOR" not in found and found["ODOMETRY"][0].frame_id == 20  # MAV_FRAME_LOCAL_FRD


@pytest.mark.parametrize("write", [write_ros_bag, write_mavlink])
def test_nothing_to_write_is_said(write, tmp_path):
    pytest.importorskip("rosbags" if write is write_ros_bag else "pymavlink", reason="an optional package is not installed")
    with pytest.raises(ValueError, match="no photo has a pose"):
        write([failed_answer()], None, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(answers, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "pymavlink.dialects.v20", None)
    with pytest.raises(ValueError, match="optional package rosbags"):
        write_ros_bag(answers, None, tmp_path / "x")
    with pytest.raises(ValueError, match="optional package pymavlink"):
        write_mavlink(answers, None, tmp_path / "x")


def test_the_command_converts_what_localisation_wrote(answers, flat_frame, tmp_path, monkeypatch, capsys):
    pytest.importorskip("rosbags", reason="the optional package rosbags is not installed")
    pytest.importorskip("pymavlink", reason="the optional package pymavlink is not installed")
    write_all(answers, flat_frame, tmp_path)

    def convert(*arguments) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["exports", *map(str, arguments)])
        return main(), capsys.readouterr().err

    given = tmp_path / "answers.json"
    assert convert(given, "--ros2", tmp_path / "bag", "--mavlink", tmp_path / "log.tlog")[0] == 0
    odometry = read_bag(tmp_path / "bag")[ODOMETRY_TOPIC][1][1]
    assert odometry.pose.pose.position.x == pytest.approx(10) and len(read_tlog(tmp_path / "log.tlog")["ODOMETRY"]) == 2
    code, said = convert(given, "--ros2", tmp_path / "bag")
    assert code == 2 and "error: already there" in said
    (tmp_path / "other.json").write_text(json.dumps({"answers": []}))
    code, said = convert(tmp_path / "other.json", "--mavlink", tmp_path / "b.tlog")
    assert code == 2 and "other.json holds no answers of a localisation" in said
    code, said = convert(given)
    assert code == 2 and "say what to write: --ros2" in said
