"""Closed-form values, gradients against finite differences, range rules and masks of the four losses."""

from __future__ import annotations

import argparse
import dataclasses
import math

import pytest
import torch

from dataloader.batch import Batch
from geometry.cameras import intrinsics_matrix, pixel_rays
from geometry.grid import cell_centres
from geometry.poses import transform_points
from loss import LossOptions, loss_for
from loss.normal import angles_from_logits, normal_from_logits
from records.options import add_options, options_from

OPTIONS = LossOptions()
H_CELLS, W_CELLS = 4, 6


def make_batch(labels, valid, *, K=(300.0, 320.0, 25.0, 14.0), dtype=torch.float32):
    """One image; the camera sits at (5, -7, 60) turned by 0.3 rad about its x axis."""
    c, s = math.cos(0.3), math.sin(0.3)
    pose = torch.tensor([[1.0, 0, 0, 5], [0, c, -s, -7], [0, s, c, 60], [0, 0, 0, 1]], dtype=dtype)
    image = torch.zeros(1, 3, 8 * H_CELLS, 8 * W_CELLS)
    return Batch(
        images_B3HW=image,
        K_B33=intrinsics_matrix(*K).to(dtype)[None],
        stems=("section/a",),
        labels_BChw=labels,
        valid_B1hw=valid,
        world_from_cam_B44=pose[None],
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


@pytest.mark.parametrize(("sigma_m", "expected"), [(1e-12, math.log(1e-7) + 0.5), (1e-5, math.log(1e-5) + 0.5)])
def test_uncertainties_and_squares_are_at_least_1e_7(sigma_m, expected):
    """A perfect prediction costs 1e-7 / (2 * 1e-7) beside the logarithm: both squares are clamped, each on its own."""
    labels = torch.full((1, 1, H_CELLS, W_CELLS), 100.0, dtype=torch.float64)
    batch = make_batch(labels, torch.ones_like(labels, dtype=torch.bool), dtype=torch.float64)
    result = loss_for("depth")(labels, torch.full_like(labels, sigma_m), batch, OPTIONS)
    assert result.total.item() == pytest.approx(expected, rel=1e-9)


# ---- one cell on the optical axis: every rule at its very threshold, in exact numbers


def one_cell(prediction, *, label=(0.0, 0.0, 10.0), valid=True):
    """Coordinates of one cell that looks along the optical axis of a camera at the origin, f = 64 px."""
    batch = Batch(
        images_B3HW=torch.zeros(1, 3, 8, 8),
        K_B33=intrinsics_matrix(64.0, 64.0, 4.0, 4.0)[None],
        stems=("s/a",),
        labels_BChw=torch.tensor(label, dtype=torch.float64).view(1, 3, 1, 1),
        valid_B1hw=torch.full((1, 1, 1, 1), valid),
        world_from_cam_B44=torch.eye(4, dtype=torch.float64)[None],
    )
    return torch.tensor(prediction, dtype=torch.float64).view(1, 3, 1, 1).requires_grad_(), batch


@pytest.mark.parametrize(
    ("prediction", "name", "threshold"),
    [
        ((0.0, 0.0, 14.0), "inittolerance", 4.0),  # 4 m behind the label
        ((0.0, 0.0, 7.0), "inittolerance", 3.0),
        ((5.0, 0.0, 10.0), "hardclamp", 32.0),  # 64 * 5 / 10 px beside the centre
        ((0.0, -5.0, 10.0), "hardclamp", 32.0),
    ],
)
def test_upper_thresholds_include_themselves(prediction, name, threshold):
    coords, batch = one_cell(prediction)
    assert loss_for("coord")(coords, None, batch, LossOptions(**{name: threshold})).valid_rate == 1
    assert loss_for("coord")(coords, None, batch, LossOptions(**{name: threshold - 1e-6})).valid_rate == 0


def test_the_least_depth_is_in_range():
    coords, batch = one_cell((0.0, 0.0, 0.5))
    assert loss_for("coord")(coords, None, batch, LossOptions(mindepth=0.5)).valid_rate == 1
    assert loss_for("coord")(coords, None, batch, LossOptions(mindepth=0.5 + 1e-6)).valid_rate == 0


def test_without_a_label_no_distance_is_too_far():
    coords, batch = one_cell((0.0, 0.0, 500.0), valid=False)
    assert loss_for("coord")(coords, None, batch, OPTIONS).valid_rate == 1
    coords, batch = one_cell((0.0, 0.0, 500.0))
    assert loss_for("coord")(coords, None, batch, OPTIONS).valid_rate == 0


@pytest.mark.parametrize(("x_m", "slope"), [(2.5, 1.0), (6.25, 1.0), (10.0, 0.5 * math.sqrt(40 / 64)), (25.0, 0.25)])
def test_the_reprojection_pulls_less_beyond_the_soft_clamp(x_m, slope):
    """d/dr of r, and of sqrt(s r) beyond s = 40 px; r = 6.4 x, so dr/dx = 6.4. The unlabelled cell feels nothing else."""
    coords, batch = one_cell((x_m, 0.0, 10.0), valid=False)
    loss_for("coord")(coords, None, batch, LossOptions(softclamp=40.0)).total.backward()
    assert coords.grad[0, 0].item() == pytest.approx(6.4 * slope)
    assert coords.grad[0, 2].item() == pytest.approx(-6.4 * slope * x_m / 10)


def test_the_label_pulls_with_unit_force_and_beside_it_the_reprojection():
    coords, batch = one_cell((3.0, 0.0, 14.0))
    total = loss_for("coord")(coords, None, batch, LossOptions(hardclamp=1e-3)).total  # out of range: the label alone
    assert total.item() == pytest.approx(5.0)
    total.backward()
    torch.testing.assert_close(coords.grad.flatten(), torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64))


@pytest.mark.parametrize("task, dimensions", [("coord", 3), ("depth", 1), ("normal", 2)])
def test_the_likelihood_counts_each_dimension_and_its_gradients_are_those_of_a_gaussian(task, dimensions):
    """n ln s + e^2 / (2 s^2): zero slope in s where e^2 = n s^2, and e / s^2 in e."""
    if task == "coord":
        prediction, batch = one_cell((0.0, 0.0, 14.0))
        options = LossOptions(inittolerance=1.0)
    else:
        labels = torch.full((1, 1, 1, 1), 10.0, dtype=torch.float64)
        if task == "normal":
            labels = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
        batch = make_batch(labels, torch.ones(1, 1, 1, 1, dtype=torch.bool), dtype=torch.float64)
        prediction = labels + 4 if task == "depth" else logits_of(0.0, 0.4)
        prediction, options = prediction.clone().requires_grad_(), OPTIONS
    error = 0.4 if task == "normal" else 4.0
    for s in (error / math.sqrt(dimensions), 0.5, 3.0):
        sigma = torch.full((1, 1, 1, 1), s, dtype=torch.float64, requires_grad=True)
        prediction.grad = None
        result = loss_for(task)(prediction, sigma, batch, options)
        assert result.total.item() == pytest.approx(dimensions * math.log(s) + error**2 / (2 * s * s), rel=1e-5)
        result.total.backward()
        assert sigma.grad.item() == pytest.approx(dimensions / s - error**2 / s**3, rel=1e-5, abs=1e-5)
        if task != "normal":
            assert prediction.grad[0, -1].item() == pytest.approx(error / s**2)


def test_variances_squares_and_logarithms_are_clamped_at_their_floor():
    prediction = torch.full((1, 1, 1, 1), 10.0, dtype=torch.float64)
    batch = make_batch(prediction, torch.ones(1, 1, 1, 1, dtype=torch.bool), dtype=torch.float64)
    sigma = torch.full((1, 1, 1, 1), 1e-12, dtype=torch.float64)
    exact = loss_for("depth")(prediction, sigma, batch, OPTIONS).total.item()
    assert exact == pytest.approx(math.log(1e-7) + 1e-7 / 2e-7)
    off = loss_for("depth")(prediction + 1, sigma, batch, OPTIONS).total.item()
    assert off == pytest.approx(math.log(1e-7) + 1 / 2e-7)
    # Of the standard deviation itself the logarithm is taken, down to 1e-7; its square is not let below 1e-7.
    between = loss_for("depth")(prediction + 1, torch.full_like(sigma, 1e-5), batch, OPTIONS).total.item()
    assert between == pytest.approx(math.log(1e-5) + 1 / 2e-7)
    wide = loss_for("depth")(prediction, torch.full_like(sigma, 2.0), batch, OPTIONS).total.item()
    assert wide == pytest.approx(math.log(2.0) + 1e-7 / 8, rel=1e-12)


def test_each_image_has_its_own_camera():
    """Two images of different pose and intrinsics: predictions right for the one are wrong for the other."""
    batch = coord_batch(dtype=torch.float64)
    other_pose = batch.world_from_cam_B44.clone()
    other_pose[:, :3, 3] += torch.tensor([10.0, -4.0, 3.0])
    other = dataclasses.replace(
        batch, world_from_cam_B44=other_pose, K_B33=intrinsics_matrix(200.0, 250.0, 20.0, 18.0)[None]
    )
    predictions = torch.cat((coords_at(batch, 80.0, (3.0, 4.0)), coords_at(other, 80.0, (-12.0, 0.0))))
    both = Batch(
        images_B3HW=batch.images_B3HW.repeat(2, 1, 1, 1),
        K_B33=torch.cat((batch.K_B33, other.K_B33)),
        stems=("s/a", "s/b"),
        labels_BChw=predictions,
        valid_B1hw=batch.valid_B1hw.repeat(2, 1, 1, 1),
        world_from_cam_B44=torch.cat((batch.world_from_cam_B44, other.world_from_cam_B44)),
    )
    result = loss_for("coord")(predictions, None, both, OPTIONS)
    assert result.total.item() == pytest.approx((5 + 12) / 2, rel=1e-6) and result.valid_rate == 1


@pytest.mark.parametrize("stride", [8, 1])
def test_cells_look_through_the_centres_of_their_stride(stride):
    batch = dataclasses.replace(coord_batch(dtype=torch.float64), stride=stride)
    centres = cell_centres(H_CELLS, W_CELLS, stride, dtype=torch.float64)
    assert centres[:, 1, 2].tolist() == [2.5 * stride, 1.5 * stride]
    p_cam = pixel_rays(batch.K_B33, centres.flatten(1) + torch.tensor([[0.0], [7.0]])) * 100.0
    coords = transform_points(batch.world_from_cam_B44, p_cam).reshape(1, 3, H_CELLS, W_CELLS)
    batch.labels_BChw.copy_(coords)
    result = loss_for("coord")(coords, None, batch, OPTIONS)
    assert result.total.item() == pytest.approx(7.0, rel=1e-6)
    assert result.regression["reprojection"].item() == pytest.approx(7.0, rel=1e-6)


# ---- depth


def test_depth_thresholds_include_themselves_and_need_a_label():
    labels = torch.full((1, 1, 1, 1), 10.0)
    batch = make_batch(labels, torch.ones(1, 1, 1, 1, dtype=torch.bool))

    def rate(prediction, **options):
        return loss_for("depth")(torch.full_like(labels, prediction), None, batch, LossOptions(**options)).valid_rate.item()

    assert rate(14.0, hardclamp=4.0) == 1 and rate(6.0, hardclamp=4.0) == 1 and rate(14.0, hardclamp=3.99) == 0
    assert rate(0.5, mindepth=0.5) == 1 and rate(0.5, mindepth=0.51) == 0
    batch = make_batch(labels, torch.zeros(1, 1, 1, 1, dtype=torch.bool))
    result = loss_for("depth")(labels, None, batch, OPTIONS)
    assert result.valid_rate == 0 and result.total == 0 and result.regression["depth"] == 0


def test_depth_errors_out_of_range_still_pull_on_the_prediction():
    labels = torch.full((1, 1, 1, 2), 10.0)
    batch = make_batch(labels, torch.ones(1, 1, 1, 2, dtype=torch.bool))
    prediction = torch.tensor([[[[500.0, 4.0]]]], requires_grad=True)
    result = loss_for("depth")(prediction, None, batch, LossOptions(hardclamp=1.0))
    assert result.valid_rate == 0 and result.total.item() == pytest.approx((490 + 6) / 2)
    result.total.backward()
    assert prediction.grad.flatten().tolist() == [0.5, -0.5]


# ---- normals


def logits_of(azimuth, elevation):
    """What the network would have to say, [1, 2, 1, 1] float64."""
    share_2 = (torch.tensor([azimuth, elevation], dtype=torch.float64) / math.pi + 1) / 2
    return torch.logit(share_2).view(1, 2, 1, 1)


@pytest.mark.parametrize(
    "azimuth, elevation, error", [(0.3, 0.0, 0.6), (-0.3, 0.0, 0.6), (0.0, 0.3, 0.3), (0.0, -0.3, 0.3), (-0.2, 0.1, 0.5)]
)
def test_the_azimuth_counts_twice_and_the_elevation_once(azimuth, elevation, error):
    labels = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    batch = make_batch(labels, torch.ones(1, 1, 1, 1, dtype=torch.bool), dtype=torch.float64)
    result = loss_for("normal")(logits_of(azimuth, elevation), None, batch, OPTIONS)
    assert result.total.item() == pytest.approx(error) and result.regression["normal"].item() == pytest.approx(error)
    assert result.valid_rate == 1


def test_normals_are_in_range_up_to_the_angle_between_the_vectors():
    """Two azimuths 0.5 rad apart at an elevation of 60 degrees are 14.2 degrees apart, not 28.6."""
    elevation = math.radians(60)
    labels = torch.tensor([math.cos(elevation), 0.0, math.sin(elevation)], dtype=torch.float64).view(1, 3, 1, 1)
    batch = make_batch(labels, torch.ones(1, 1, 1, 1, dtype=torch.bool), dtype=torch.float64)
    prediction = logits_of(0.5, elevation)
    angle_deg = math.degrees(math.acos(math.cos(elevation) ** 2 * math.cos(0.5) + math.sin(elevation) ** 2))
    assert angle_deg == pytest.approx(14.2, abs=0.1)
    for hardclamp, rate in ((angle_deg + 0.01, 1), (angle_deg - 0.01, 0)):
        result = loss_for("normal")(prediction, None, batch, LossOptions(hardclamp=hardclamp))
        assert result.valid_rate == rate and result.total.item() == pytest.approx(1.0)
        assert result.regression["normal_angle_deg"].item() == pytest.approx(angle_deg)


def test_angles_stay_inside_their_open_interval():
    angles = angles_from_logits(torch.tensor([-1e30, -20.0, 0.0, 20.0, 1e30]).view(1, 1, 1, 5).repeat(1, 2, 1, 1))
    assert (angles.abs() < math.pi).all() and angles[0, 0, 0, 2] == 0
    assert angles[0, 0, 0, 0].item() == pytest.approx(-math.pi * (1 - 2e-7), abs=4e-7)
    normals = normal_from_logits(torch.randn(2, 2, 3, 3))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(2, 3, 3))


# ---- semantics


def test_every_pixel_counts_alike_in_the_cross_entropy():
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 6, 3, 4, dtype=torch.float64), torch.randint(0, 6, (2, 3, 4))
    batch = make_batch(labels, torch.zeros(2, 1, 3, 4, dtype=torch.bool))
    result = loss_for("semantics")(logits, None, batch, OPTIONS)
    by_hand, right = [], []
    for b in range(2):
        for i in range(3):
            for j in range(4):
                scores, label = logits[b, :, i, j], labels[b, i, j]
                by_hand.append(math.log(scores.exp().sum()) - scores[label].item())
                right.append(bool(scores.argmax() == label))
    assert result.total.item() == pytest.approx(sum(by_hand) / 24)
    assert result.valid_rate.item() == pytest.approx(sum(right) / 24) and 0 < sum(right) < 24
    assert result.regression == {}


def test_the_thresholds_are_flags():
    parser = argparse.ArgumentParser()
    add_options(parser, LossOptions)
    assert options_from(LossOptions, parser.parse_args([])) == LossOptions(50.0, 0.1, 100.0, 1000.0)
    long = ["--inittolerance", "1", "--mindepth", "2", "--softclamp", "3", "--hardclamp", "4"]
    for words in (long, ["-itol", "1", "-mind", "2", "-sc", "3", "-hc", "4"]):
        assert options_from(LossOptions, parser.parse_args(words)) == LossOptions(1.0, 2.0, 3.0, 4.0)
    for name in ("inittolerance", "mindepth", "softclamp", "hardclamp"):
        for bad in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"--{name} must be positive"):
                LossOptions(**{name: bad})


def test_logged_values_carry_no_gradient():
    batch = coord_batch()
    prediction = (batch.labels_BChw + 1).requires_grad_()
    result = loss_for("coord")(prediction, None, batch, OPTIONS)
    assert result.total.requires_grad and not any(value.requires_grad for value in result.regression.values())


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
