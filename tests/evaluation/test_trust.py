"""Intervals, groups and distributions against numbers worked out by hand, and the file that an evaluation leaves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.coord import CoordResult
from evaluation.options import parse_options
from evaluation.refined import RefinedPose
from evaluation.run import evaluate
from evaluation.trust import (
    ImageRecord,
    Interval,
    TrustFigures,
    bootstrapped,
    cdf,
    dominant_class,
    figures,
    groups,
    learn_calibration,
    share,
)
from geometry.attitude import enu_from_camera
from localization.calibration import calibration_of
from localization.refinement import Refinement
from localization.solving import EstimatedPose, SolverOptions
from tests.evaluation.conftest import make_run, subject

INF = float("inf")
NAME = "ckpt_iter_0000004.net"


def result(error_m=1.0, *, stem="val/a", pitch=-90.0, distance=80.0, success=True, confidence=0.9) -> CoordResult:
    """A 2 x 3 grid whose labelled points lie `distance` before the camera; one cell has no label."""
    true_44 = np.eye(4)
    true_44[:3, :3] = enu_from_camera(0.0, pitch, 0.0)
    coords_3hw = np.broadcast_to((true_44[:3, 2] * distance)[:, None, None], (3, 2, 3)).astype(np.float32)
    valid_hw = np.ones((2, 3), bool)
    valid_hw[0, 0] = False
    pose_44 = true_44.copy()
    pose_44[0, 3] += error_m
    covariance_66 = np.diag([1e-4] * 3 + [1.0] * 3)
    pose = EstimatedPose(pose_44 if success else np.eye(4), success, 3, 40.0, confidence, covariance_66, 0.01)
    errors = (error_m, 0.0) if success else (INF, INF)
    sigma_hw = np.full((2, 3), 0.5, np.float32)
    return CoordResult(
        stem, np.zeros((16, 24, 3), np.uint8), coords_3hw + 1, coords_3hw, valid_hw, sigma_hw, pose, true_44, *errors
    )


def test_the_record_of_an_image():
    record = ImageRecord.of(result(2.0, pitch=-40.0), None)
    assert (record.section, record.stem, record.inlier_share, record.sigma_m) == ("val", "a", 0.5, 0.5)
    assert record.distance_m == pytest.approx(80, rel=1e-6) and record.pitch_deg == pytest.approx(-40)
    assert record.coord_error_median_m == pytest.approx(np.sqrt(3), rel=1e-5)
    np.testing.assert_allclose(record.sample.position_error_3, [2, 0, 0])
    content = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert content["world_from_cam"][0][3] == 2.0 and content["verdict"] is None
    failed = ImageRecord.of(result(success=False), None).to_json()
    assert failed["world_from_cam"] is None and failed["position_error_m"] is None and failed["world_from_cam_true"]


def test_rotation_error_is_in_the_cameras_axes():
    plain = result()
    c, s = np.cos(0.1), np.sin(0.1)
    turned_44 = plain.pose_true_44.copy()
    turned_44[:3, :3] = turned_44[:3, :3] @ [[1, 0, 0], [0, c, -s], [0, s, c]]
    record = ImageRecord.of(replace(plain, pose=replace(plain.pose, world_from_cam_44=turned_44)), None)
    np.testing.assert_allclose(record.sample.rotation_error_3, [0.1, 0, 0], atol=1e-12)


def test_shares_know_how_little_nine_images_say():
    """Wilson's interval of 9 in 9 by its formula: n / (n + z^2) to 1."""
    found = share(9, 9)
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(9 / (9 + 1.959964**2), abs=1e-6), 1.0)


def test_bootstrap_of_a_median():
    values = np.random.default_rng(0).exponential(size=400)
    found = bootstrapped(values)
    assert found.value == np.median(values) and found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(400), rel=0.4)  # asymptotic: 1 / (2 f sqrt(n))
    assert bootstrapped(values) == found
    assert bootstrapped([1.0]) == Interval(1.0, None, None)
    assert bootstrapped([1.0, 2.0, INF, INF, INF]).value == INF
    assert bootstrapped([1.0, INF]).value == INF


def test_figures_count_failures_as_infinitely_wrong():
    records = [ImageRecord.of(r, None) for r in (result(0.5), result(2.0), result(7.0), result(success=False))]
    found = figures(records)
    assert found["position_error_median_m"].value == 4.5 and found["failures"].value == 0.25
    assert [found["within"][f"{bound}m"].value for bound in (1, 3, 5, 10, 20)] == [0.25, 0.5, 0.5, 0.75, 0.75]
    assert cdf([r.position_error_m for r in records]) == {"error": [0.5, 2.0, 7.0], "share": [0.25, 0.5, 0.75]}


def test_groups_by_distance_pitch_and_class():
    near, far = result(1.0, distance=40.0, pitch=-80.0), result(9.0, distance=120.0, pitch=-30.0)
    records = [replace(ImageRecord.of(r, None), surface=name) for r, name in ((far, "water"), (near, "ground"))]
    found = groups(records)
    assert list(found["distance_m"]) == ["0 to 50", "100 to 200"] and list(found["pitch_deg"]) == [
        "-90 to -75",
        "-45 to -15",
    ]
    assert found["distance_m"]["100 to 200"]["position_error_median_m"].value == 9.0
    assert found["class"]["ground"]["images"] == 1 and set(found["class"]) == {"ground", "water"}


def test_the_class_that_most_pixels_show(tmp_path):
    codes = np.full((4, 4), 9, np.uint8)
    codes[:2, :3], codes[2, :3] = 2, 1  # nine pixels of ground, by two codes
    np.save(tmp_path / "a.npy", codes)
    assert dominant_class(tmp_path / "a.npy") == "ground"
    assert dominant_class(tmp_path / "b.npy") is None and dominant_class(None) is None


def test_what_a_calibration_says_is_in_the_records(tmp_path):
    gathered = TrustFigures()
    for index in range(40):
        gathered.add(result(0.2 + 0.05 * index, stem=f"val/{index}"), tmp_path / "rgb/a.png")
    weights = tmp_path / "model.net"
    weights.write_bytes(b"w")
    calibration = learn_calibration(gathered, subject(weights), None)
    assert calibration.bound_m == 4.0 and 4.0 in calibration.bounds_m and calibration.photos == 40  # 5 % of 80 m
    gathered.judge_by(calibration)
    content = json.loads(json.dumps(gathered.to_json(), allow_nan=False))
    held = content["normalised_squared_error"]
    assert held.keys() == {"as_given", "calibrated"} and held["as_given"]["mean"] > 0 and held["calibrated"]["median"] > 0
    assert content["reliability"]["photos"] == 40 and content["reliability"]["verdicts"] == {"ok": [40, 1.0]}
    image = content["images"][3]
    assert image["verdict"] == "ok" and image["probability"] == image["probabilities"]["4m"] > 0.5
    assert learn_calibration(gathered, subject(weights), 0.5).bound_m == 0.5
    silent = TrustFigures()
    silent.add(replace(result(), pose=EstimatedPose(np.eye(4), True, None)), tmp_path / "rgb/a.png")
    with pytest.raises(ValueError, match="calibrate with --solver dsacstar"):
        learn_calibration(silent, subject(weights), None)


def test_an_evaluation_calibrates_and_another_obeys(tmp_path, plane_section):
    """Random weights: no pose is right, and the test section is told so."""
    for name in ("val_sim", "test_drone_sim"):
        plane_section(4, f"scene/{name}")
    make_run(tmp_path / "run")

    def run(section, *more):
        arguments = ["scene", "--task", "coord", "--network_in", tmp_path / "run", "--datasets_dir", tmp_path]
        evaluate(parse_options([str(a) for a in (*arguments, "--section", section, *more)]), torch.device("cpu"))
        return json.loads((tmp_path / f"run/{section}_{NAME}_metrics.json").read_text())

    before = run("test_drone_sim")
    assert before["calibration"] is None and before["images"][0]["verdict"] is None
    assert before["figures"]["images"] == 4 and before["section"] == "test_drone_sim" and before["weights_fingerprint"]
    assert {image["surface"] for image in before["images"]} <= {"ground", "water"}
    learned = run("val_sim", "--calibrate", "--error_bound", "2")
    assert learned["calibration"]["bound_m"] == 2.0 and learned["calibration"]["source"]["section"] == "val_sim"
    assert calibration_of(tmp_path / "run" / NAME).bound_m == 2.0
    after = run("test_drone_sim")
    assert after["calibration"] == learned["calibration"] and after["reliability"]["photos"] == 4
    assert all(image["verdict"] in ("failed", "doubtful") for image in after["images"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "depth", "--calibrate", "--section", "val_sim"], "one section of the coord task"),
        (["--task", "coord", "--calibrate"], "one section of the coord task"),
        (["--task", "coord", "--calibrate", "--section", "test_drone_real"], "name a validation section"),
        (["--task", "coord", "--error_bound", "-1"], "--error_bound must be positive"),
    ],
)
def test_flags_that_make_no_sense(arguments, said):
    with pytest.raises(ValueError, match=said):
        parse_options(["scene", *arguments])


def test_the_solver_says_what_it_knows(plane_section):
    """Confidence and covariance come from the solver through the evaluation."""
    from localization.solving import solve_poses

    rays = np.stack(np.meshgrid(np.arange(12) * 8 + 4.0, np.arange(8) * 8 + 4.0))
    depth = 60 + 10 * np.sin(rays[0] / 9) * np.cos(rays[1] / 7)
    points = np.stack(((rays[0] - 48) / 64 * depth, (rays[1] - 32) / 64 * depth, depth))
    noisy = torch.from_numpy(points + np.random.default_rng(0).normal(0, 0.1, points.shape)).float()[None]
    K_133 = torch.tensor([[[64.0, 0, 48], [0, 64, 32], [0, 0, 1]]])
    (pose,) = solve_poses(noisy, None, K_133, SolverOptions(), stride=8)
    assert pose.success and pose.confidence > 0.8 and pose.covariance_66.shape == (6, 6) and pose.score > 0
    assert np.sqrt(np.trace(pose.covariance_66[3:, 3:])) == pytest.approx(
        np.linalg.norm(pose.world_from_cam_44[:3, 3]), rel=5
    )
    (published,) = solve_poses(noisy, None, K_133, SolverOptions("published"), stride=8)
    assert published.confidence is None and published.covariance_66 is None


def test_reprojection_errors_are_of_the_pose():
    """Points on the rays of their cells have none; a pose off by 1 m moves points 80 m away by f / 80 px."""
    from evaluation.html_report import reprojection_error

    K_33 = np.array([[64.0, 0, 48], [0, 64, 32], [0, 0, 1]])
    columns, rows = np.meshgrid(np.arange(12) * 8 + 4.0, np.arange(8) * 8 + 4.0)
    coords_3hw = np.stack(((columns - 48) / 64 * 80, (rows - 32) / 64 * 80, np.full((8, 12), 80.0)))
    np.testing.assert_allclose(reprojection_error(coords_3hw, np.eye(4), K_33, 64, 96), 0, atol=1e-9)
    moved_44 = np.eye(4)
    moved_44[0, 3] = 1.0
    np.testing.assert_allclose(reprojection_error(coords_3hw, moved_44, K_33, 64, 96), 0.8)
    assert np.isinf(reprojection_error(-coords_3hw, np.eye(4), K_33, 64, 96)).all()


def test_the_report_of_an_evaluation(tmp_path, plane_section):
    plane_section(3, "scene/val_sim")
    make_run(tmp_path / "run")
    arguments = ["scene", "--task", "coord", "--network_in", tmp_path / "run", "--datasets_dir", tmp_path]
    arguments += ["--section", "val_sim", "--report", tmp_path / "pages/report.html"]
    evaluate(parse_options([str(a) for a in arguments]), torch.device("cpu"))
    text = (tmp_path / "pages/report.html").read_text()
    assert text.count("<section") == 6 and text.count('class="true"') == 3  # all three are among the worst ten
    assert "Without --surface and --ortho there are no renders" in text and "median position error" in text
    assert "predicted sigma" in text and "view_002" in text and text.count('class="curve"') == 2


def test_report_flags_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="--report shows one section"):
        parse_options(["scene", "--task", "coord", "--report", "a.html"])
    with pytest.raises(ValueError, match="--surface and --ortho go together"):
        parse_options(["scene", "--task", "coord", "--surface", "a.tif"])


def test_a_refined_pose_is_a_success_whatever_the_coarse_one_was():
    coarse = ImageRecord.of(result(9.0, success=False), None)
    covariance_66 = np.diag([1e-6] * 3 + [1e-4] * 3)
    found = Refinement(True, "", np.eye(4), covariance_66, 0.99, 0.8, 0.7, 0.1, 0.2, 0.9, 4, 0.5, 0.005)
    refined = coarse.refined(RefinedPose(found, 0.25, 0.1), None)
    assert not coarse.success and refined.success and refined.stage == "refined"
    assert (refined.position_error_m, refined.rotation_error_deg, refined.inlier_share) == (0.25, 0.1, 0.8)
    assert (refined.confidence, refined.score, refined.seconds, refined.inliers) == (0.99, 0.7, 0.5, None)
    np.testing.assert_array_equal(refined.covariance_66, covariance_66)
    assert refined.map_m == refined.sample.map_m == 0.005
    refused = replace(found, accepted=False, reason="the patches held out are no nearer")
    assert coarse.refined(RefinedPose(refused, 9.0, 1.0), None) is coarse
