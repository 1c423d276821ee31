"""Labels, poses and pixels stay together under every augmentation."""

import pytest
import torch

from dataloader.augmentation import AugmentationOptions, draw_augmentation
from dataloader.prepare import collate, prepare_for_evaluation, prepare_for_training
from dataloader.preprocessing import Preprocessing
from dataloader.section import SectionDataset
from geometry.cameras import project
from geometry.grid import cell_centres
from geometry.poses import invert_pose, transform_points

PREPROCESSING = Preprocessing(64)
STILL = dict(scale_range=(1.0, 1.0), max_angle=0.0, jitter=0.0)


def trained(raw, preprocessing, task, options, *, images_seen=0, seed=0, epoch=0, stride=8):
    draws = draw_augmentation(options, seed=seed, epoch=epoch, images_seen=images_seen, indices=raw.indices)
    return prepare_for_training(raw, preprocessing, task, options, draws, stride)


def raw_batch(section, task="coord", image_height=64):
    dataset = SectionDataset([section], task, image_height)
    return collate([dataset[i] for i in range(len(dataset))])


def reprojection_px(batch):
    """Distance [B, N] between projected labels and their cell centres, and the depths."""
    h, w = batch.labels_BChw.shape[2:]
    p_cam = transform_points(invert_pose(batch.world_from_cam_B44), batch.labels_BChw.flatten(2))
    xy, depth = project(p_cam, batch.K_B33)
    return torch.linalg.norm(xy - cell_centres(h, w).flatten(1), dim=1), depth


@pytest.mark.parametrize("calibration", ["", "60 70 45 30"])
@pytest.mark.parametrize("shift, tilt", [(0.0, 0.0), (0.3, 0.0), (0.0, 15.0), (0.1, 5.0)])
@pytest.mark.parametrize("seed", range(5))
def test_augmented_coordinates_reproject_onto_their_cells(plane_section, seed, shift, tilt, calibration):
    raw = raw_batch(plane_section(2, calibration=calibration))
    batch = trained(
        raw, PREPROCESSING, "coord", AugmentationOptions(max_shift=shift, max_tilt=tilt), seed=seed
    )
    error_BN, depth_BN = reprojection_px(batch)
    valid_BN = batch.valid_B1hw.flatten(1)
    assert valid_BN.float().mean() > 0.4
    assert error_BN[valid_BN].max() < 0.05
    # On the ground plane z = 0.1 x, not just anywhere along the ray.
    x, _, z = batch.labels_BChw.flatten(2).unbind(1)
    off_plane_m = (z - 0.1 * x).abs()[valid_BN]
    assert off_plane_m.median() < 0.02
    assert off_plane_m.max() < 3.0  # nearest-depth fallback at the border of the map


@pytest.mark.parametrize("tilt", [0.0, 8.0])
def test_augmented_image_shows_what_the_augmented_pose_sees(plane_section, tilt):
    from tests.conftest import _plane_colour

    raw = raw_batch(plane_section(1, height=128, width=192, focal=128.0), image_height=128)
    identity = Preprocessing(128, rgb_mean=(0, 0, 0), rgb_std=(1, 1, 1))
    options = AugmentationOptions(scale_range=(1.2, 1.2), jitter=0, max_shift=0.2, max_tilt=tilt)
    batch = trained(raw, identity, "coord", options, seed=3)
    inner = (slice(1, -1), slice(1, -1))
    points_3N = batch.labels_BChw[0][(slice(None), *inner)].flatten(1)
    valid_N = batch.valid_B1hw[0, 0][inner].flatten()
    expected = torch.from_numpy(_plane_colour(points_3N.numpy()).T / 255.0)
    # A cell centre lies between four pixels: compare with their mean.
    between_3HW = torch.nn.functional.avg_pool2d(batch.images_B3HW, 2, 1)[0]
    h, w = batch.labels_BChw.shape[2:]
    seen = between_3HW[:, 3::8, 3::8][:, 1 : h - 1, 1 : w - 1].flatten(1)
    difference = (seen - expected).abs()[:, valid_N]
    assert difference.mean() < 0.02


def test_augmented_depths_are_those_of_the_augmented_coordinates(plane_section):
    section, options = plane_section(2), AugmentationOptions(max_tilt=10.0)
    depth, coords = (
        trained(raw_batch(section, task), PREPROCESSING, task, options, seed=4)
        for task in ("depth", "coord")
    )
    _, expected_BN = reprojection_px(coords)
    assert torch.equal(depth.valid_B1hw, coords.valid_B1hw) and depth.valid_B1hw.float().mean() > 0.4
    torch.testing.assert_close(
        depth.labels_BChw.flatten(1)[depth.valid_B1hw.flatten(1)], expected_BN[depth.valid_B1hw.flatten(1)], rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("tilt", [0.0, 12.0])
def test_augmented_normals_turn_with_the_camera(plane_section, tilt):
    raw, options = raw_batch(plane_section(2), task="normal"), AugmentationOptions(max_tilt=tilt)
    batch = trained(raw, PREPROCESSING, "normal", options, seed=1)
    world = torch.einsum("bij,bjhw->bihw", batch.world_from_cam_B44[:, :3, :3], batch.labels_BChw)
    expected = torch.tensor([-0.1, 0, 1.0]) / torch.tensor(1.01).sqrt()
    errors = (world - expected[:, None, None]).abs().amax(1, keepdim=True)[batch.valid_B1hw]
    assert errors.max() < 1e-5


def test_nodata_stays_invalid(plane_section):
    raw = raw_batch(plane_section(2, sky_rows=3))
    batch = prepare_for_evaluation(raw, PREPROCESSING, "coord")
    assert not batch.valid_B1hw[:, :, :3].any() and batch.valid_B1hw[:, :, 3:].all()
    augmented = trained(raw, PREPROCESSING, "coord", AugmentationOptions(), seed=0)
    x, _, z = augmented.labels_BChw.unbind(1)
    assert ((z - 0.1 * x).abs()[augmented.valid_B1hw[:, 0]] < 3.0).all()


def test_without_augmentation_training_and_evaluation_see_the_same(plane_section):
    raw = raw_batch(plane_section(2))
    still = AugmentationOptions(**STILL)
    augmented = trained(raw, PREPROCESSING, "coord", still)
    evaluated = prepare_for_evaluation(raw, PREPROCESSING, "coord")
    assert torch.allclose(augmented.images_B3HW, evaluated.images_B3HW, atol=1e-4)
    assert torch.equal(augmented.valid_B1hw, evaluated.valid_B1hw)
    assert torch.allclose(augmented.labels_BChw, evaluated.labels_BChw, atol=1e-2)
    assert torch.allclose(augmented.world_from_cam_B44, evaluated.world_from_cam_B44)


def test_loading_at_another_height_moves_intrinsics_and_labels(plane_section):
    batch = prepare_for_evaluation(raw_batch(plane_section(2), image_height=40), Preprocessing(40), "coord")
    assert batch.images_B3HW.shape[2:] == (40, 60) and batch.labels_BChw.shape[2:] == (5, 8)
    error_BN, _ = reprojection_px(batch)
    assert error_BN[batch.valid_B1hw.flatten(1)].max() < 0.05
    assert batch.K_B33[0, 0, 0] == pytest.approx(40.0)


def test_semantics_follow_the_image(plane_section):
    raw = raw_batch(plane_section(1), task="semantics")
    batch = trained(
        raw, PREPROCESSING, "semantics", AugmentationOptions(), seed=2
    )
    assert batch.labels_BChw.shape[1:] == batch.images_B3HW.shape[2:]
    assert set(batch.labels_BChw.unique().tolist()) == {0, 1, 4}


def test_shading_is_smooth_and_different_in_every_image_and_channel(plane_section):
    raw = raw_batch(plane_section(2))
    raw.images_BHW3.fill_(100)
    identity = Preprocessing(64, rgb_mean=(0, 0, 0), rgb_std=(1, 1, 1))
    options = AugmentationOptions(**STILL, shading=0.2)
    gain = trained(raw, identity, "coord", options, seed=5).images_B3HW * 2.55
    assert (gain - 1).abs().max() <= 0.3 and gain.std(dim=(2, 3)).min() > 0.03
    assert gain.diff(dim=2).abs().max() < 0.04 and gain.diff(dim=3).abs().max() < 0.04
    assert (gain[0] - gain[1]).abs().mean() > 0.03 and (gain[:, 0] - gain[:, 1]).abs().mean() > 0.01
    # What it does not touch, and what grey input makes of it.
    plain = trained(raw, identity, "coord", AugmentationOptions(**STILL), seed=5)
    assert torch.allclose(plain.images_B3HW * 2.55, torch.ones(()), atol=1e-5)
    grey = Preprocessing(64, grayscale=True, rgb_mean=(0.4,), rgb_std=(0.2,))
    assert trained(raw, grey, "coord", options, seed=5).images_B3HW.shape[1] == 1


def test_grey_input_has_one_channel(plane_section):
    grey = Preprocessing(64, True, (0.4308,), (0.1724,))
    batch = trained(
        raw_batch(plane_section(2)), grey, "coord", AugmentationOptions(), seed=2
    )
    assert batch.images_B3HW.shape[1] == 1 and torch.isfinite(batch.images_B3HW).all()
