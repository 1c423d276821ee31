"""solve(): batches, intrinsics, masks, uncertainties, determinism, success, covariance."""

import numpy as np
import pytest
import torch

import dsacstar
from benchmarks.solver_views import make_view, pose_error


def solve(view, **arguments):
    return dsacstar.solve(view.coords_13hw, view.intrinsics, **arguments)[0]


def test_a_batch_is_its_images_and_threads_do_not_matter():
    views = [make_view(seed, 2, 0.3, height=30, width=45) for seed in range(5)]
    coords = np.concatenate([v.coords_13hw for v in views])
    answers = [
        dsacstar.solve(coords, views[0].intrinsics, options=dsacstar.RansacOptions(threads=threads), seed=7)
        for threads in (1, 2, 5)
    ]
    for view, *same in zip(views, *answers):
        assert all(np.array_equal(same[0].pose, other.pose) for other in same)
        assert all(np.array_equal(same[0].inlier_mask, other.inlier_mask) for other in same)
        assert pose_error(same[0].pose, view.world_from_cam_44)[0] < 2


def test_the_seed_chooses_the_hypotheses():
    view = make_view(3, 5, 0.6)
    once = dsacstar.RansacOptions(hypotheses=4, max_rounds=1)
    assert np.array_equal(solve(view, seed=1, options=once).pose, solve(view, seed=1, options=once).pose)
    assert not np.array_equal(solve(view, seed=1, options=once).pose, solve(view, seed=2, options=once).pose)


@pytest.mark.parametrize("form", ["4", "33", "B4", "B33", "list", "tensor"])
def test_every_form_of_intrinsics(form):
    view = make_view(0, 1, 0.1, height=30, width=45)
    fx, fy, cx, cy = view.intrinsics
    vector, matrix = np.array(view.intrinsics), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    given = {
        "4": vector,
        "33": matrix,
        "B4": vector[None],
        "B33": matrix[None],
        "list": view.intrinsics,
        "tensor": torch.from_numpy(matrix)[None],
    }[form]
    result = dsacstar.solve(torch.from_numpy(view.coords_13hw), given)[0]
    assert np.array_equal(result.pose, solve(view).pose)


def test_unequal_focal_lengths_and_an_offset_principal_point():
    view = make_view(1, 0, 0, height=30, width=45)
    rotation, centre = view.world_from_cam_44[:3, :3], view.world_from_cam_44[:3, 3:]
    fx, fy, cx, cy = 300.0, 420.0, 120.0, 150.0
    cols, rows = np.meshgrid(np.arange(45) * 8 + 4.0, np.arange(30) * 8 + 4.0)
    depth = np.random.default_rng(0).uniform(100, 200, cols.size)
    camera = np.stack([(cols.ravel() - cx) / fx * depth, (rows.ravel() - cy) / fy * depth, depth])
    coords = (rotation @ camera + centre).reshape(1, 3, 30, 45).astype(np.float32)
    result = dsacstar.solve(coords, [fx, fy, cx, cy])[0]
    assert pose_error(result.pose, view.world_from_cam_44)[0] < 1e-3
    assert result.inliers == 30 * 45 and result.inlier_mask.all()


def test_masked_and_not_finite_cells_do_not_count():
    view = make_view(2, 0.5, 0)
    coords, mask = view.coords_13hw.copy(), np.ones((1, 60, 90), bool)
    coords[..., :20, :], mask[:, :20] = -1.0, False
    coords[..., 20:25, :] = np.nan
    result = dsacstar.solve(coords, view.intrinsics, mask=mask)[0]
    assert result.success and pose_error(result.pose, view.world_from_cam_44)[0] < 0.5
    assert not result.inlier_mask[:25].any() and result.inlier_mask[25:].mean() > 0.9
    assert not dsacstar.solve(coords, view.intrinsics, mask=np.zeros_like(mask))[0].success


def test_true_uncertainties_help_and_reach_the_bound():
    plain, weighted, normalised = [], [], []
    for seed in range(30):
        view = make_view(seed, 5, 0.8)
        result = solve(view, sigma=view.sigma_1hw)
        plain.append(pose_error(solve(view).pose, view.world_from_cam_44)[0])
        weighted.append(pose_error(result.pose, view.world_from_cam_44)[0])
        offset = result.pose[:3, 3] - view.world_from_cam_44[:3, 3]
        normalised.append(offset @ np.linalg.solve(result.covariance[3:, 3:], offset))
        assert np.linalg.eigvalsh(result.covariance).min() > 0
    assert np.median(weighted) < 0.95 * np.median(plain)
    # The reported covariance explains the errors: a chi-square variable with 3 degrees of freedom has mean 3.
    assert 1.5 < np.mean(normalised) < 5.0


def test_wrongly_scaled_and_overconfident_uncertainties_do_no_harm():
    errors = {"none": [], "scaled": [], "overconfident": []}
    for seed in range(15):
        view = make_view(seed, 3, 0.3)
        overconfident = view.sigma_1hw.copy()
        overconfident[:, ::7, ::7] = 1e-4  # certain and, for the outliers among them, wrong
        for name, sigma in (("none", None), ("scaled", 0.01 * view.sigma_1hw), ("overconfident", overconfident)):
            errors[name].append(pose_error(solve(view, sigma=sigma).pose, view.world_from_cam_44)[0])
    assert np.median(errors["scaled"]) < 1.05 * np.median(errors["none"])
    assert np.median(errors["overconfident"]) < 1.5 * np.median(errors["none"])


def test_a_cluster_of_equal_wrong_coordinates_does_not_draw_the_camera_in():
    for seed in range(10):
        view = make_view(seed, 2, 0)
        coords = view.coords_13hw.copy()
        coords[:, :, np.random.default_rng(seed).random((60, 90)) < 0.4] = -1
        assert pose_error(dsacstar.solve(coords, view.intrinsics)[0].pose, view.world_from_cam_44)[0] < 1.5


DEGENERATE = {
    "nan": lambda rng, shape: np.full(shape, np.nan),
    "inf": lambda rng, shape: np.full(shape, np.inf),
    "huge": lambda rng, shape: rng.choice([-3e38, 3e38], shape),
    "equal": lambda rng, shape: np.full(shape, 7.0),
    "line": lambda rng, shape: np.broadcast_to(np.arange(shape[2] * shape[3]).reshape(shape[2:]), shape),
    "outliers": lambda rng, shape: rng.uniform(-100, 100, shape),
    "gaussian": lambda rng, shape: 60 * rng.standard_normal(shape),
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (1, 1), (1, 3), (8, 12), (60, 90)])
def test_no_answer_is_said_so(name, size):
    coords = DEGENERATE[name](np.random.default_rng(0), (1, 3, *size)).astype(np.float32)
    result = dsacstar.solve(coords, [480, 480, 360, 240])[0]
    assert not result.success and result.confidence < 0.5 and np.isfinite(result.pose).all()
    assert result.inlier_mask.shape == size and result.seconds < 5
    assert result.inliers == result.inlier_mask.sum() <= 0.5 * np.prod(size)


def test_planar_and_behind():
    view = make_view(4, 0, 0, relief_m=0.0)
    assert pose_error(solve(view).pose, view.world_from_cam_44)[0] < 0.01
    # A point reflection through the centre puts every point behind the true camera: whatever comes out is finite.
    behind = 2 * view.world_from_cam_44[:3, 3].reshape(1, 3, 1, 1) - view.coords_13hw
    assert np.isfinite(dsacstar.solve(behind.astype(np.float32), view.intrinsics)[0].pose).all()


def test_far_origin():
    """Coordinates as large as ECEF: only their own float32 rounding (0.25 m) remains."""
    view = make_view(5, 0, 0)
    shift = np.array([4.3e6, 5.0e5, 4.6e6])
    result = dsacstar.solve((view.coords_13hw + shift.reshape(1, 3, 1, 1)).astype(np.float32), view.intrinsics)[0]
    truth = view.world_from_cam_44.copy()
    truth[:3, 3] += shift
    assert pose_error(result.pose, truth)[0] < 0.25


def test_an_empty_batch():
    assert dsacstar.solve(np.zeros((0, 3, 4, 4), np.float32), [1, 1, 0, 0]) == []
