"""Generated flights whose answers have known errors: smoothing gains where frames are hard, and harms nowhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from geometry.attitude import enu_from_camera
from localization.answer import Answer
from localization.smoothing import STAGE, smooth

GOOD = np.diag([np.deg2rad(0.5) ** 2] * 3 + [0.8**2, 0.8**2, 0.4**2])


def flight(lines: int = 3, per_line: int = 14, *, seed: int = 0) -> list[np.ndarray]:
    """True poses of parallel flight lines, 10 m a second, with a turn in place between them and a little unsteadiness."""
    rng = np.random.default_rng(seed)
    poses = []
    for line in range(lines):
        heading = 90.0 if line % 2 == 0 else 270.0
        for step in range(per_line):
            along = step if line % 2 == 0 else per_line - 1 - step
            pose_44 = np.eye(4)
            pose_44[:3, :3] = enu_from_camera(heading + rng.normal(0, 1.0), -80 + rng.normal(0, 0.3), rng.normal(0, 0.3))
            pose_44[:3, 3] = [10 * along + rng.normal(0, 0.15), 40 * line + rng.normal(0, 0.15), 100 + rng.normal(0, 0.1)]
            poses.append(pose_44)
    return poses


def answered(poses, *, hard=0.0, wrong=0.0, seed=0) -> list[Answer]:
    """Answers drawn by their covariances; hard ones five times as uncertain, wrong ones 60 m off and as sure as the rest."""
    rng = np.random.default_rng(seed + 100)
    answers = []
    for index, true_44 in enumerate(poses):
        covariance_66 = GOOD * (25.0 if rng.random() < hard else 1.0)
        error_6 = rng.multivariate_normal(np.zeros(6), covariance_66)
        pose_44 = true_44.copy()
        pose_44[:3, :3] = pose_44[:3, :3] @ Rotation.from_rotvec(error_6[:3]).as_matrix()
        pose_44[:3, 3] += error_6[3:] + (60.0 * rng.choice([-1, 1], 3) if rng.random() < wrong else 0.0)
        answers.append(
            Answer(f"{index}", pose_44, np.eye(3), (720, 480), "ok", 0.9, covariance_66, 0.8, 1.0, None, "coarse", 0.1,
                   time_s=float(index))
        )  # fmt: skip
    return answers


def errors(answers, poses) -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees."""
    metres = [np.linalg.norm(a.world_from_cam_44[:3, 3] - p[:3, 3]) for a, p in zip(answers, poses, strict=True)]
    turns = [a.world_from_cam_44[:3, :3].T @ p[:3, :3] for a, p in zip(answers, poses, strict=True)]
    return np.array(metres), np.rad2deg(Rotation.from_matrix(turns).magnitude())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("hard", "wrong"), [(0.0, 0.0), (0.5, 0.0), (0.5, 0.1)])
def test_the_median_never_gets_worse_and_hard_flights_gain(seed, hard, wrong):
    poses = flight(seed=seed)
    answers = answered(poses, hard=hard, wrong=wrong, seed=seed)
    before, after = errors(answers, poses), errors(smooth(answers), poses)
    assert np.median(after[0]) <= np.median(before[0]) and np.median(after[1]) <= np.median(before[1])
    if hard:
        assert np.median(after[0]) < 0.75 * np.median(before[0])
        assert np.quantile(after[0], 0.9) < 0.75 * np.quantile(before[0], 0.9)
    if wrong:
        # A wrong answer at the very end of a line can only be guessed from one side.
        assert before[0].max() > 90 and after[0].max() < 35


def test_photos_that_are_no_track_stay_as_they_are():
    rng = np.random.default_rng(0)
    poses = flight()
    for pose_44 in poses:
        pose_44[:3, 3] = rng.uniform(-200, 200, 3)
        pose_44[:3, :3] = enu_from_camera(rng.uniform(-180, 180), rng.uniform(-90, -30), 0)
    answers = answered(poses)
    before, after = errors(answers, poses)[0], errors(smooth(answers), poses)[0]
    assert np.median(after) < 1.02 * np.median(before) and np.abs(after - before).max() < 0.2


def test_a_covariance_comes_out_that_is_smaller_and_true():
    """Mahalanobis distances of the smoothed centres are those of normal errors, to a factor."""
    distances = []
    for seed in range(2):
        poses = flight(2, seed=seed)
        answers = answered(poses, hard=0.5, seed=seed)
        for before, after, true_44 in zip(answers, smooth(answers), poses, strict=True):
            error_3 = after.world_from_cam_44[:3, 3] - true_44[:3, 3]
            C_33 = after.covariance_66[3:, 3:]
            assert np.trace(C_33) < 1.5 * np.trace(before.covariance_66[3:, 3:])
            distances.append(error_3 @ np.linalg.inv(C_33) @ error_3)
    assert 0.4 < np.median(distances) / 2.366 < 2.5


def test_a_photo_without_a_pose_is_filled_in_between_but_not_beyond():
    poses = flight(lines=1)
    answers = answered(poses)
    for index in (0, 6):
        answers[index] = replace(
            answers[index], verdict="failed", world_from_cam_44=np.eye(4), covariance_66=np.full((6, 6), np.inf)
        )
    found = smooth(list(reversed(answers)))[::-1]  # the order given is kept
    assert [a.name for a in found] == [a.name for a in answers]
    assert errors(found, poses)[0][6] < 2 and (found[6].verdict, found[6].stage) == ("doubtful", STAGE)
    assert np.trace(found[6].covariance_66[3:, 3:]) > np.trace(found[5].covariance_66[3:, 3:])
    assert found[0] == answers[0] and found[1].stage == STAGE and found[1].verdict == "ok"


def test_what_cannot_be_smoothed():
    answers = answered(flight(lines=1))
    assert smooth(answers[:3]) == answers[:3]
    with pytest.raises(ValueError, match="1 have none, such as 4"):
        smooth([*answers[:4], replace(answers[4], time_s=None)])
    with pytest.raises(ValueError, match="0 and 1 were taken at the same time"):
        smooth([answers[0], replace(answers[1], time_s=0.0), *answers[2:]])
