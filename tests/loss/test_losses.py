"""Closed-form values, gradients against finite differences, range rules and masks of the four losses."""

from __future__ import annotations

import math

import pytest
import torch

from dataloader.batch import Batch
from geometry.cameras import intrinsics_matrix, pixel_rays
from geometry.grid import cell_centres
from geometry.poses import transform_points
from loss import LossOptions, loss_for
from loss.normal import angles_from_logits, normal_from_logits

OPTIONS = LossOptions()
H_CELLS, W_CELLS = 4, 6


def make_batch(labels, valid, *, K=(300.0, 320.0, 25.0, 14.0), dtype=torch.float32):
    """One image; the camera sits at (5, -7, 60) turned by 0.3 rad about its x axis."""
    c, s = math.cos(0.3), math.sin(0.3)
    pose = torch.tensor([[1.0, 0, 0, 5], [0, c, -s, -7], [0, s, c, 60], [0, 0, 0, 1]], dtype=dtype)
    image = torch.zeros(1, 3, 8 * H_CELLS, 8 * W_CELLS)
    return Batch(
        images_B3HW=image, K_B33=intrinsics_matrix(*K).to(dtype)[None], stems=("section/a",), labels_BChw=labels,
        valid_B1hw=valid, world_from_cam_B44=pose[None],
    )


def coords_at(batch, depth_m, shift_px=(0.0, 0.0)):
    """Scene coordinates seen at the cell centres shifted by `shift_px`, at one depth."""
    target = cell_centres(H_CELLS, W_CELLS, dtype=batch.K_B33.dtype).flatten(1)
    target = target + torch.tensor(shift_px, dtype=target.dtype)[:, None]
    p_cam = pixel_rays(batch.K_B33, target) * depth_m
    return transform_points(batch.world_from_cam_B44, p_cam).reshape(1, 3, H_CELLS, W_CELLS)


def coord_batch(depth_m=100.0, dtype=torch.float32, valid_share=None):
    valid = torch.ones(1, 1, H_CELLS, W_CELLS, dtype=torch.bool)
    batch = make_batch(torch.zeros(1, 3, H_CELLS, W_CELLS, dtype=dtype), valid, dtype=dtype)
    batch.labels_BChw.copy_(coords_at(batch, depth_m))
    if valid_share is not None:
        valid[..., valid_share:] = False
    return batch


def test_perfect_coordinates_cost_nothing_without_uncertainty():
    batch = coord_batch(dtype=torch.float64)
    result = loss_for("coord")(batch.labels_BChw.clone(), None, batch, OPTIONS)
    assert result.total < 1e-6 and result.valid_rate == 1


@pytest.mark.parametrize(("shift_px", "term_px"), [(30.0, 30.0), (400.0, math.sqrt(100 * 400.0))])
def test_coord_loss_is_distance_plus_softly_clamped_reprojection(shift_px, term_px):
    batch = coord_batch(depth_m=30.0, dtype=torch.float64)
    prediction = coords_at(batch, 30.0, (shift_px, 0.0))
    distance = shift_px / 300.0 * 30.0
    result = loss_for("coord")(prediction, None, batch, OPTIONS)
    assert result.total.item() == pytest.approx(distance + term_px, rel=1e-6)
    assert result.regression["coord"].item() == pytest.approx(distance, rel=1e-6)
    assert result.regression["reprojection"].item() == pytest.approx(shift_px, rel=1e-6)
    sigma = torch.full((1, 1, H_CELLS, W_CELLS), 2.5, dtype=torch.float64)
    result = loss_for("coord")(prediction, sigma, batch, OPTIONS)
    assert result.total.item() == pytest.approx(3 * math.log(2.5) + distance**2 / (2 * 2.5**2) + term_px, rel=1e-6)


@pytest.mark.parametrize(
    ("depth_m", "shift_px", "options"),
    [
        (0.05, 0.0, OPTIONS),  # in front, but nearer than mindepth
        (-100.0, 0.0, OPTIONS),  # behind the camera
        (151.0, 0.0, LossOptions(inittolerance=1.0)),  # far from its label
        (100.0, 1001.0, LossOptions(inittolerance=1e6)),  # beyond the hard clamp
    ],
)
def test_coordinates_out_of_range_only_feel_their_label(depth_m, shift_px, options):
    batch = coord_batch(dtype=torch.float64)
    prediction = coords_at(batch, depth_m, (shift_px, 0.0))
    distance = (prediction - batch.labels_BChw).norm(dim=1).mean()
    result = loss_for("coord")(prediction, None, batch, options)
    assert result.valid_rate == 0 and result.regression["reprojection"] == 0
    torch.testing.assert_close(result.total, distance)


def test_unlabelled_cells_feel_the_reprojection_only():
    batch = coord_batch(dtype=torch.float64, valid_share=2)
    batch.labels_BChw[..., 2:] = float("nan")
    prediction = coords_at(batch, 100.0, (0.0, 16.0)).requires_grad_()
    result = loss_for("coord")(prediction, None, batch, OPTIONS)
    assert result.total.item() == pytest.approx(16 + 16 / 320 * 100 * 2 / W_CELLS, rel=1e-6)
    assert result.valid_rate == 1
    result.total.backward()
    assert torch.isfinite(prediction.grad).all() and (prediction.grad[..., 3:].abs().sum(1) > 0).all()


def test_no_label_and_nothing_in_range_is_a_finite_zero():
    batch = coord_batch(valid_share=0)
    prediction = coords_at(batch, -5.0).requires_grad_()
    result = loss_for("coord")(prediction, torch.ones(1, 1, H_CELLS, W_CELLS), batch, OPTIONS)
    assert result.total == 0 and result.valid_rate == 0
    result.total.backward()
    assert (prediction.grad == 0).all()


def test_the_principal_point_and_both_focal_lengths_count():
    batch = coord_batch(dtype=torch.float64)
    moved = make_batch(batch.labels_BChw, batch.valid_B1hw, K=(300.0, 320.0, 30.0, 14.0), dtype=torch.float64)
    assert loss_for("coord")(batch.labels_BChw, None, moved, OPTIONS).total.item() == pytest.approx(5.0, abs=1e-6)
    stretched = make_batch(batch.labels_BChw, batch.valid_B1hw, K=(300.0, 352.0, 25.0, 14.0), dtype=torch.float64)
    rows_px = (torch.arange(H_CELLS, dtype=torch.float64) * 8 + 4 - 14).abs()
    assert loss_for("coord")(batch.labels_BChw, None, stretched, OPTIONS).total.item() == pytest.approx(
        0.1 * rows_px.mean().item(), rel=1e-6
    )


def test_depth_loss_in_closed_form():
    labels = torch.full((1, 1, H_CELLS, W_CELLS), 100.0)
    valid = torch.ones_like(labels, dtype=torch.bool)
    valid[..., 3:] = False
    labels[..., 3:] = float("nan")
    batch = make_batch(labels, valid)
    prediction = torch.full_like(labels, 104.0)
    prediction[..., 0] = 120.0
    result = loss_for("depth")(prediction, None, batch, LossOptions(hardclamp=10))
    assert result.total.item() == pytest.approx((20 + 4 + 4) / 6)
    assert result.valid_rate.item() == pytest.approx(2 / 6)
    assert result.regression["depth"].item() == pytest.approx(28 / 3)
    sigma = torch.full_like(labels, 3.0)
    result = loss_for("depth")(prediction, sigma, batch, LossOptions(hardclamp=10))
    assert result.total.item() == pytest.approx((3 * math.log(3.0) + (400 + 16 + 16) / 18) / 6)


def test_normal_logits_invert_the_networks_mean():
    for angle in (-3.0, -0.7943, 0.0, 2.5):
        share = (angle / math.pi + 1) / 2
        logit = torch.tensor([[[[math.log(share / (1 - share))]], [[0.0]]]])
        assert angles_from_logits(logit)[0, 0].item() == pytest.approx(angle, abs=1e-5)


def test_normal_loss_goes_the_short_way_round():
    def logit(angle):
        share = (angle / math.pi + 1) / 2
        return math.log(share / (1 - share))

    azimuth, elevation = 3.1, -0.4
    true_azimuth = -3.0
    labels = torch.tensor(
        [
            math.cos(elevation) * math.cos(true_azimuth),
            math.cos(elevation) * math.sin(true_azimuth),
            math.sin(elevation),
        ]
    )
    labels = labels.view(1, 3, 1, 1).repeat(1, 1, H_CELLS, W_CELLS)
    valid = torch.ones(1, 1, H_CELLS, W_CELLS, dtype=torch.bool)
    valid[..., 3:] = False
    labels[..., 3:] = float("nan")
    batch = make_batch(labels, valid)
    prediction = torch.tensor([logit(azimuth), logit(elevation - 0.2)]).view(1, 2, 1, 1)
    prediction = prediction.repeat(1, 1, H_CELLS, W_CELLS).requires_grad_()
    error = 2 * (2 * math.pi - 6.1) + 0.2
    result = loss_for("normal")(prediction, None, batch, LossOptions(hardclamp=30))
    assert result.total.item() == pytest.approx(error / 2, rel=1e-4)
    assert result.regression["normal"].item() == pytest.approx(error, rel=1e-4)
    true, predicted = labels[0, :, 0, 0], normal_from_logits(prediction)[0, :, 0, 0]
    angle_deg = math.degrees(math.acos((true * predicted).sum().item()))
    assert result.regression["normal_angle_deg"].item() == pytest.approx(angle_deg, rel=1e-3)
    assert result.valid_rate.item() == pytest.approx(0.5)
    assert loss_for("normal")(prediction, None, batch, LossOptions(hardclamp=1)).valid_rate == 0
    sigma = torch.full((1, 1, H_CELLS, W_CELLS), 0.5)
    mle = loss_for("normal")(prediction, sigma, batch, OPTIONS)
    assert mle.total.item() == pytest.approx((2 * math.log(0.5) + error**2 / 0.5) / 2, rel=1e-4)
    mle.total.backward()
    assert torch.isfinite(prediction.grad).all() and (prediction.grad[..., 3:] == 0).all()


def test_semantics_loss_is_the_cross_entropy_and_reports_accuracy():
    labels = torch.randint(0, 6, (1, 8, 10))
    logits = torch.zeros(1, 6, 8, 10)
    batch = make_batch(labels, torch.ones(1, 1, 8, 10, dtype=torch.bool))
    assert loss_for("semantics")(logits, None, batch, OPTIONS).total.item() == pytest.approx(math.log(6))
    logits.scatter_(1, labels[:, None], 100.0)
    result = loss_for("semantics")(logits, None, batch, OPTIONS)
    assert result.total < 1e-6 and result.valid_rate == 1
    with pytest.raises(ValueError, match="uncertainty"):
        loss_for("semantics")(logits, torch.ones(1, 1, 8, 10), batch, OPTIONS)


@pytest.mark.parametrize("uncertain", [False, True])
@pytest.mark.parametrize("task", ["coord", "depth", "normal"])
def test_gradients_match_finite_differences(task, uncertain):
    torch.manual_seed(3)
    shape = (1, 1, H_CELLS, W_CELLS)
    if task == "coord":
        batch = coord_batch(dtype=torch.float64, valid_share=4)
        prediction = coords_at(batch, 90.0, (20.0, -9.0)) + torch.randn(1, 3, H_CELLS, W_CELLS, dtype=torch.float64)
        prediction[..., 0] = coords_at(batch, 90.0, (250.0, 0.0))[..., 0]  # beyond the soft clamp
    elif task == "depth":
        batch = make_batch(100 + torch.rand(shape, dtype=torch.float64), torch.rand(shape) > 0.3)
        prediction = batch.labels_BChw + 5 * torch.randn(shape, dtype=torch.float64)
    else:
        labels = normal_from_logits(torch.randn(1, 2, H_CELLS, W_CELLS, dtype=torch.float64))
        batch = make_batch(labels, torch.rand(shape) > 0.3)
        prediction = torch.randn(1, 2, H_CELLS, W_CELLS, dtype=torch.float64)
    inputs = [prediction.requires_grad_()]
    if uncertain:
        inputs.append((1 + torch.rand(shape, dtype=torch.float64)).requires_grad_())

    def total(prediction, sigma=None):
        return loss_for(task)(prediction, sigma, batch, OPTIONS).total

    assert torch.autograd.gradcheck(total, inputs, eps=1e-6, atol=1e-6)


def test_tiny_uncertainties_and_errors_stay_finite():
    batch = coord_batch()
    prediction = batch.labels_BChw.clone().requires_grad_()
    sigma = torch.full((1, 1, H_CELLS, W_CELLS), 1e-12).requires_grad_()
    total = loss_for("coord")(prediction, sigma, batch, OPTIONS).total
    total.backward()
    assert torch.isfinite(total) and torch.isfinite(prediction.grad).all() and torch.isfinite(sigma.grad).all()


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match=r"'pose'.*coord"):
        loss_for("pose")
    with pytest.raises(ValueError, match="softclamp"):
        LossOptions(softclamp=0)
    batch = coord_batch()
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 5\)"):
        loss_for("coord")(batch.labels_BChw[..., :5], None, batch, OPTIONS)
    with pytest.raises(ValueError, match="uncertainty"):
        loss_for("coord")(batch.labels_BChw, torch.ones(1, 3, 4, 6), batch, OPTIONS)
