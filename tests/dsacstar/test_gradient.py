"""backward_rgb, backward_rgbd and PoseLoss against finite differences and by their contracts."""

import logging

import numpy as np
import pytest
import torch

import dsacstar
from benchmarks.solver_gradient import loss_rgb, loss_rgbd, relative_errors
from benchmarks.solver_views import make_view


@pytest.mark.parametrize("loss", [loss_rgb, loss_rgbd])
@pytest.mark.parametrize(("noise_m", "outlier_share"), [(0.5, 0.0), (1.0, 0.3)])
def test_gradient_matches_finite_differences(loss, noise_m, outlier_share):
    errors = relative_errors(loss, problems=5, directions=3, noise_m=noise_m, outlier_share=outlier_share)
    # Measured medians are below 1e-6; a single flip of a sample's acceptance may spoil a quotient.
    assert np.median(errors) < 1e-5 and (errors < 1e-3).mean() > 0.9


def test_gradient_of_the_softmax_matches_too():
    """inlier_alpha = 1: many hypotheses share the expectation, so the scores' gradient is a large part."""

    def loss(view, coords, gradient, seed, truth):
        return dsacstar.backward_rgb(
            coords, gradient, truth, 16, 10, view.focal_px, view.cx, view.cy, 1, 1, 100, 1, 100, view.subsampling, seed
        )

    errors = relative_errors(loss, problems=5, directions=3, noise_m=1.0, outlier_share=0.2)
    assert np.median(errors) < 1e-4


def test_a_clamped_loss_is_the_root_and_keeps_its_gradient():
    view = make_view(0, 1.0, 0.1, height=15, width=22, subsampling=32)
    far = view.world_from_cam_44.copy()
    far[:3, 3] += 500

    def call(soft_clamp, gradient):
        return dsacstar.backward_rgb(
            view.coords_13hw,
            gradient,
            far,
            16,
            10,
            view.focal_px,
            view.cx,
            view.cy,
            0,
            1,
            soft_clamp,
            1e4,
            100,
            view.subsampling,
            3,
        )

    plain, clamped = np.zeros(view.coords_13hw.shape), np.zeros(view.coords_13hw.shape)
    loss = call(1e9, plain)
    assert 700 < loss < 1100
    assert call(100, clamped) == pytest.approx(np.sqrt(100 * loss), rel=1e-3)
    assert np.linalg.norm(clamped) == pytest.approx(0.5 * np.sqrt(100 / loss) * np.linalg.norm(plain), rel=0.05)


def test_gradients_accumulate_and_the_seed_counts():
    view = make_view(1, 1.0, 0.3, height=15, width=22, subsampling=32)
    once, twice = np.zeros(view.coords_13hw.shape, np.float32), np.ones(view.coords_13hw.shape, np.float32)
    loss = loss_rgb(view, view.coords_13hw, once, 5, view.world_from_cam_44)
    again = loss_rgb(view, view.coords_13hw, twice, 5, view.world_from_cam_44)
    assert loss == again and np.allclose(twice - 1, once, atol=1e-6) and np.abs(once).max() > 0
    assert loss != loss_rgb(view, view.coords_13hw, twice, 6, view.world_from_cam_44)


def test_no_valid_hypothesis_has_no_gradient(caplog):
    for coords in (np.full((1, 3, 6, 9), np.nan), np.full((1, 3, 6, 9), 3.0), np.zeros((1, 3, 1, 1))):
        gradient = np.zeros(coords.shape, np.float32)
        with caplog.at_level(logging.WARNING, logger="dsacstar"):
            loss = dsacstar.backward_rgb(
                coords.astype(np.float32), gradient, np.eye(4), 8, 10, 100, 36, 24, 1, 1, 100, 100, 100, 8, 0
            )
        assert loss == 0 and not gradient.any() and "no valid hypothesis" in caplog.text


def test_invalid_cells_get_no_gradient():
    view = make_view(2, 1.0, 0.0, height=15, width=22, subsampling=32)
    coords = view.coords_13hw.copy()
    coords[..., :5, :] = np.nan
    gradient = np.zeros(coords.shape)
    assert loss_rgb(view, coords, gradient, 0, view.world_from_cam_44) > 0
    assert np.isfinite(gradient).all() and not gradient[..., :5, :].any() and gradient[..., 5:, :].any()


def test_pose_loss_trains_coordinates_end_to_end():
    views = [make_view(seed, 2.0, 0.1, height=15, width=22, subsampling=32) for seed in range(2)]
    coords = torch.from_numpy(np.concatenate([v.coords_13hw for v in views])).requires_grad_()
    truth = torch.from_numpy(np.stack([v.world_from_cam_44 for v in views]))
    options = dsacstar.LossOptions(hypotheses=16, subsampling=32)
    optimiser = torch.optim.Adam([coords], lr=0.05)
    losses = []
    for step in range(25):
        loss_B = dsacstar.PoseLoss.apply(coords, truth, views[0].intrinsics, options, step)
        assert loss_B.shape == (2,) and loss_B.dtype == coords.dtype
        optimiser.zero_grad()
        loss_B.sum().backward()
        assert torch.isfinite(coords.grad).all()
        optimiser.step()
        losses.append(loss_B.sum().item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_pose_loss_scales_with_the_incoming_gradient():
    view = make_view(3, 1.0, 0.1, height=15, width=22, subsampling=32)
    expected = np.zeros(view.coords_13hw.shape)
    loss_rgb(view, view.coords_13hw, expected, 9, view.world_from_cam_44)
    coords = torch.from_numpy(view.coords_13hw).requires_grad_()
    options = dsacstar.LossOptions(hypotheses=16, subsampling=32)
    (3 * dsacstar.PoseLoss.apply(coords, view.world_from_cam_44[None], view.intrinsics, options, 9)).sum().backward()
    assert np.allclose(coords.grad.numpy(), 3 * expected, rtol=1e-4, atol=1e-6)
