"""Every SIMD variant that this CPU can run, forced, gives the same answers up to rounding."""

import numpy as np
import pytest

import dsacstar
from benchmarks.solver_families import FAMILIES
from benchmarks.solver_views import pose_error
from dsacstar import _core


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def variant(request):
    usual = dsacstar.instruction_set()
    if not _core.force_instruction_set(request.param):
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    assert _core.force_instruction_set(usual)


@pytest.mark.parametrize("family, residual", [
    ("1 m / 10 %", "metric"), ("5 m / 60 %", "metric"), ("14x21, clean", "metric"), ("pixel noise 1 px, 30 %", "pixel"),
])  # fmt: skip
def test_a_forced_variant_answers_alike(variant, family, residual):
    assert dsacstar.instruction_set() == variant
    problem = FAMILIES[family].make(1)
    options = dsacstar.RansacOptions(threads=1, residual=residual)
    result = dsacstar.solve(problem.coords_3hw[None], problem.intrinsics, options=options)[0]
    truth = problem.right_poses[0]
    spread_m = np.sqrt(np.trace(result.covariance[3:, 3:]))
    assert result.success and pose_error(result.pose, truth)[0] < 4 * spread_m
    _core.force_instruction_set("baseline")
    usual = dsacstar.solve(problem.coords_3hw[None], problem.intrinsics, options=options)[0]
    assert pose_error(result.pose, usual.pose)[0] < 0.1 * spread_m
    assert abs(result.inliers - usual.inliers) < 0.02 * problem.wrong_hw.size


def test_depth_images_too(variant):
    problem = FAMILIES["1 m / 10 %"].make(2)
    truth = problem.right_poses[0]
    camera_3N = truth[:3, :3].T @ (problem.truth_3hw.reshape(3, -1) - truth[:3, 3:])
    measured_13hw = camera_3N.reshape(1, *problem.coords_3hw.shape).astype(np.float32)
    options = dsacstar.RansacOptions(threshold_px=500, max_reprojection_px=5000, threads=1)
    result = dsacstar.solve(problem.coords_3hw[None], camera_coords_B3hw=measured_13hw, options=options)[0]
    assert result.success and pose_error(result.pose, truth)[0] < 0.2


def test_an_unknown_variant_is_refused():
    usual = dsacstar.instruction_set()
    assert not _core.force_instruction_set("sse9") and dsacstar.instruction_set() == usual
