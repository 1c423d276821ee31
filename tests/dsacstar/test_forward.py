"""forward_rgb and forward_rgbd against synthetic truth."""

import logging

import numpy as np
import pytest
import torch

import dsacstar
from benchmarks.solver_views import make_view, pose_error


def forward_rgb(view, out, **changes):
    arguments = dict(hypotheses=64, threshold_px=10, inlier_alpha=100, max_reprojection_px=100) | changes
    return dsacstar.forward_rgb(
        view.coords_13hw,
        out,
        arguments["hypotheses"],
        arguments["threshold_px"],
        view.focal_px,
        view.cx,
        view.cy,
        arguments["inlier_alpha"],
        arguments["max_reprojection_px"],
        view.subsampling,
    )


@pytest.mark.parametrize(
    ("noise_m", "outlier_share", "limit_m", "limit_deg"),
    [(0.0, 0.0, 1e-3, 1e-3), (1.0, 0.1, 0.5, 0.2), (3.0, 0.3, 1.5, 0.5), (5.0, 0.6, 4.0, 1.0)],
)
def test_forward_rgb_finds_the_pose(noise_m, outlier_share, limit_m, limit_deg):
    for seed in range(5):
        view = make_view(seed, noise_m, outlier_share)
        out = np.zeros((4, 4), np.float64)
        assert forward_rgb(view, out) is True
        metres, degrees = pose_error(out, view.world_from_cam_44)
        assert metres < limit_m and degrees < limit_deg


def rgbd_coordinates(view):
    pose = view.world_from_cam_44
    camera = pose[:3, :3].T @ (view.truth_3N - pose[:3, 3:])
    return camera.reshape(view.coords_13hw.shape).astype(np.float32)


def test_forward_rgbd_finds_the_pose_and_skips_missing_measurements():
    for seed in range(5):
        view = make_view(seed, 0.3, 0.3)
        camera = rgbd_coordinates(view)
        camera[:, :, ::3] = 0
        out = torch.zeros(4, 4)
        assert dsacstar.forward_rgbd(torch.from_numpy(view.coords_13hw), torch.from_numpy(camera), out, 64, 100, 100, 1000)
        metres, degrees = pose_error(out.numpy(), view.world_from_cam_44)
        assert metres < 0.2 and degrees < 0.1
    camera[:] = 0
    assert not dsacstar.forward_rgbd(view.coords_13hw, camera, out, 64, 100, 100, 1000)
    assert torch.equal(out, torch.eye(4))


def test_the_published_functions_are_deterministic():
    view = make_view(0, 5.0, 0.8)
    first, second = np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)
    forward_rgb(view, first), forward_rgb(view, second)
    assert np.array_equal(first, second)


def test_no_pose_gives_the_identity_and_a_warning(caplog):
    view = make_view(0, 0, 0, height=8, width=9)
    view.coords_13hw[:] = 3
    out = np.zeros((4, 4), np.float32)
    with caplog.at_level(logging.WARNING, logger="dsacstar"):
        assert forward_rgb(view, out) is False
    assert np.array_equal(out, np.eye(4)) and "no pose found" in caplog.text


def test_fuzz_of_the_python_face():
    """Random shapes, values and options end with a finite pose or the identity."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        shape = (1, 3, *rng.integers(0, 25, 2))
        coords = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 8)).astype(np.float32)
        coords[rng.random(shape) < rng.choice([0, 0.2, 1], p=[0.7, 0.2, 0.1])] = rng.choice([np.nan, np.inf, -np.inf, 0])
        out = np.full((4, 4), np.nan, np.float64)
        threshold = 10 ** rng.uniform(-3, 3)
        clamp = threshold * 10 ** rng.uniform(0, 3)
        found = dsacstar.forward_rgb(
            coords, out, int(rng.integers(1, 100)), threshold, 10 ** rng.uniform(0, 3), 30, 20, 100, clamp, 8
        )
        assert np.isfinite(out).all() and (found or np.array_equal(out, np.eye(4)))
