"""forward_rgb and forward_rgbd against synthetic truth."""

import numpy as np
import pytest

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
