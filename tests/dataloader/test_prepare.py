"""Labels, poses and pixels stay together under every augmentation, at every stride."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from dataloader.augmentation import AugmentationOptions, Draws, draw_augmentation
from dataloader.prepare import collate, collate_views, prepare_for_evaluation, prepare_for_training, prepare_views
from dataloader.preprocessing import Preprocessing
from dataloader.resampling import CameraChange, Plane
from dataloader.sampler import RunBatchSampler
from dataloader.section import SectionDataset, ViewDataset
from geometry.cameras import intrinsics_matrix, project
from geometry.grid import cell_centres
from geometry.poses import invert_pose, rotation_xy, rotation_z, transform_points
from loss import LossOptions, loss_for
from tasks import TASKS
from tests.conftest import _plane_colour

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
    return torch.linalg.norm(xy - cell_centres(h, w, batch.stride).flatten(1), dim=1), depth


def stated(*, scale=0.0, roll=0.0, tilt=(0.0, 0.0), shift=(0.0, 0.0), jitter=None, count=1):
    """Draws of known value."""
    tilt_2, shift_2 = (torch.tensor(v, dtype=torch.float64) for v in (tilt, shift))
    return Draws(scale, roll, tilt_2, shift_2, torch.zeros(count, 5) if jitter is None else torch.tensor(jitter), None)


@pytest.mark.parametrize("stored, stride", [(8, 8), (1, 8), (1, 1)])
@pytest.mark.parametrize("calibration", ["", "60 70 45 30"])
@pytest.mark.parametrize("shift, tilt", [(0.0, 0.0), (0.3, 0.0), (0.0, 15.0), (0.1, 5.0)])
@pytest.mark.parametrize("seed", range(3))
def test_augmented_coordinates_reproject_onto_their_cells(plane_section, seed, shift, tilt, calibration, stored, stride):
    raw = raw_batch(plane_section(2, calibration=calibration, stride=stored))
    options = AugmentationOptions(max_shift=shift, max_tilt=tilt)
    batch = trained(raw, PREPROCESSING, "coord", options, seed=seed, stride=stride)
    cells = [-(-pixels // stride) for pixels in batch.images_B3HW.shape[2:]]
    assert batch.stride == stride and list(batch.labels_BChw.shape) == [2, 3, *cells]
    error_BN, _ = reprojection_px(batch)
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
    depth, coords = (trained(raw_batch(section, task), PREPROCESSING, task, options, seed=4) for task in ("depth", "coord"))
    _, expected_BN = reprojection_px(coords)
    assert torch.equal(depth.valid_B1hw, coords.valid_B1hw) and depth.valid_B1hw.float().mean() > 0.4
    valid_BN = depth.valid_B1hw.flatten(1)
    torch.testing.assert_close(depth.labels_BChw.flatten(1)[valid_BN], expected_BN[valid_BN], rtol=1e-3, atol=0)


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
    assert torch.equal(augmented.K_B33, evaluated.K_B33) and augmented.stems == evaluated.stems
    assert torch.equal(augmented.valid_B1hw, evaluated.valid_B1hw)
    assert torch.allclose(augmented.labels_BChw, evaluated.labels_BChw, atol=1e-2)
    assert torch.allclose(augmented.world_from_cam_B44, evaluated.world_from_cam_B44)


def test_loading_at_another_height_moves_intrinsics_and_labels(plane_section):
    batch = prepare_for_evaluation(raw_batch(plane_section(2), image_height=40), Preprocessing(40), "coord")
    assert batch.images_B3HW.shape[2:] == (40, 60) and batch.labels_BChw.shape[2:] == (5, 8)
    error_BN, _ = reprojection_px(batch)
    assert error_BN[batch.valid_B1hw.flatten(1)].max() < 0.05
    assert batch.K_B33[0, 0, 0] == pytest.approx(40.0)


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


def test_the_gain_of_shading_at_its_nodes(plane_section):
    """Common plus half as much per colour, times the amplitude, in the corners of every image."""
    raw = raw_batch(plane_section(2))
    raw.images_BHW3.fill_(100)
    identity = Preprocessing(64, rgb_mean=(0, 0, 0), rgb_std=(1, 1, 1))
    options = AugmentationOptions(**STILL, shading=0.2)
    nodes_B4hw = draw_augmentation(options, seed=5, epoch=0, images_seen=0, indices=raw.indices).shading_B4hw
    gain_B3HW = trained(raw, identity, "coord", options, seed=5).images_B3HW * 2.55
    corner = (slice(None), slice(None), [0, 0, -1, -1], [0, -1, 0, -1])
    expected = 1 + 0.2 * (nodes_B4hw[:, :1] + 0.5 * nodes_B4hw[:, 1:])
    torch.testing.assert_close(gain_B3HW[corner], expected[corner], rtol=1e-3, atol=1e-3)


def test_grey_input_has_one_channel(plane_section):
    grey = Preprocessing(64, True, (0.4308,), (0.1724,))
    batch = trained(raw_batch(plane_section(2)), grey, "coord", AugmentationOptions(), seed=2)
    assert batch.images_B3HW.shape[1] == 1 and torch.isfinite(batch.images_B3HW).all()


@pytest.mark.parametrize("image_height", [64, 40])
@pytest.mark.parametrize("task", ["coord", "depth", "normal"])
def test_fine_labels_are_sampled_at_the_cell_centres(plane_section, task, image_height):
    fine, coarse = plane_section(2, name="fine/train_sim", stride=1), plane_section(2, name="coarse/train_sim")
    seen, expected = (
        prepare_for_evaluation(raw_batch(section, task, image_height), PREPROCESSING, task, 8) for section in (fine, coarse)
    )
    assert seen.stride == expected.stride == 8
    assert torch.equal(seen.valid_B1hw, expected.valid_B1hw)
    torch.testing.assert_close(seen.labels_BChw, expected.labels_BChw, rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("task", ["coord", "depth", "normal"])
def test_full_size_labels_stay_as_they_are_in_evaluation(plane_section, task):
    raw = raw_batch(plane_section(2, stride=1, sky_rows=3), task)
    batch = prepare_for_evaluation(raw, PREPROCESSING, task, 1)
    assert batch.stride == 1 and batch.labels_BChw.dtype == torch.float32
    assert torch.equal(batch.labels_BChw, raw.maps_BChw) and batch.labels_BChw.shape[2:] == (64, 96)
    assert not batch.valid_B1hw[:, :, :3].any() and batch.valid_B1hw[:, :, 3:].all()
    smaller = prepare_for_evaluation(raw_batch(plane_section(2, stride=1), "coord", 40), PREPROCESSING, "coord", 1)
    assert smaller.labels_BChw.shape[2:] == (40, 60)
    assert reprojection_px(smaller)[0][smaller.valid_B1hw.flatten(1)].max() < 0.05


def test_coarse_labels_do_not_serve_full_size_predictions(plane_section):
    raw, options = raw_batch(plane_section(1)), AugmentationOptions()
    for prepare in (
        lambda: prepare_for_evaluation(raw, PREPROCESSING, "coord", 1),
        lambda: trained(raw, PREPROCESSING, "coord", options, stride=1),
    ):
        with pytest.raises(ValueError, match="train_sim/view_000 has one cell per 8 pixels.*--fullsize"):
            prepare()


def test_labels_of_two_strides_do_not_share_a_batch(plane_section):
    sections = [plane_section(1, name="a/train_sim"), plane_section(1, name="b/train_drone_sim", stride=1)]
    with pytest.raises(ValueError, match=r"train_sim/view_000 \(one cell per 8 px\), train_drone_sim/.* per 1"):
        collate(list(SectionDataset(sections, "coord", 64)))


# ---- what the camera does, by known draws


def test_known_draws_move_pose_and_intrinsics_by_known_amounts(plane_section):
    raw = raw_batch(plane_section(1, calibration="60 70 45 30"))
    options = AugmentationOptions(scale_range=(0.5, 1.5), max_angle=40.0, max_tilt=10.0, max_shift=0.2)
    batch = prepare_for_training(
        raw, PREPROCESSING, "coord", options, stated(scale=0.75, roll=-0.5, tilt=(0.3, -0.6), shift=(0.5, -1.0))
    )
    assert batch.images_B3HW.shape == (1, 3, 80, 120)  # 0.5 + 0.75 (1.5 - 0.5) = 1.25
    cx, cy = 1.25 * (45 + 0.2 * 0.5 * 96), 1.25 * (30 - 0.2 * 64)
    torch.testing.assert_close(batch.K_B33[0].double(), intrinsics_matrix(75.0, 87.5, cx, cy), rtol=1e-6, atol=0)
    turn_44 = rotation_xy(math.radians(3), math.radians(-6)) @ rotation_z(math.radians(-20))
    torch.testing.assert_close(batch.world_from_cam_B44, (raw.world_from_cam_B44 @ turn_44).float(), rtol=1e-6, atol=1e-5)


def random_classes(section, colours):
    """Paints random classes in blocks, and each class in a colour of its own."""
    codes = np.random.default_rng(5).choice(np.array([1, 3, 6, 9, 17], np.uint8), (8, 8))
    codes = np.kron(codes, np.ones((8, 8), np.uint8))
    np.save(section / "semantics" / "view_000.npy", codes)
    cv2.imwrite(str(section / "rgb" / "view_000.png"), colours[codes])
    return codes


@pytest.mark.parametrize("roll, turns", [(1.0, 1), (-1.0, -1), (0.0, 0)])
def test_a_quarter_turn_turns_image_and_classes_exactly(plane_section, roll, turns):
    section = plane_section(1, height=64, width=64)
    colours = np.random.default_rng(1).integers(0, 255, (256, 3), dtype=np.uint8)
    random_classes(section, colours)
    raw = raw_batch(section, "semantics")
    options = AugmentationOptions(**{**STILL, "max_angle": 90.0})
    batch = prepare_for_training(raw, PREPROCESSING, "semantics", options, stated(roll=roll))
    still = prepare_for_evaluation(raw, PREPROCESSING, "semantics")
    assert batch.stride == still.stride == 1 and batch.labels_BChw.dtype == torch.int64
    assert len(still.labels_BChw.unique()) == 5
    assert torch.equal(batch.labels_BChw, torch.rot90(still.labels_BChw, turns, (1, 2)))
    torch.testing.assert_close(batch.images_B3HW, torch.rot90(still.images_B3HW, turns, (2, 3)), rtol=0, atol=1e-3)
    assert batch.valid_B1hw.shape == (1, 1, 64, 64) and batch.valid_B1hw.all()


@pytest.mark.parametrize("stored", [(64, 64), (96, 80)])
def test_classes_stay_on_their_colours_under_any_turn(plane_section, stored):
    """Each pixel whose colour is a pure one shows the class that was painted in it, also when images were resized."""
    section = plane_section(1, height=64, width=64)
    colours = np.zeros((256, 3), np.uint8)
    for place, code in enumerate([1, 3, 6, 9, 17]):
        colours[code] = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 0), (0, 255, 255)][place]
    codes = random_classes(section, colours)
    codes = cv2.resize(codes, stored[::-1], interpolation=cv2.INTER_NEAREST)
    np.save(section / "semantics" / "view_000.npy", codes)
    cv2.imwrite(str(section / "rgb" / "view_000.png"), colours[codes])
    options = AugmentationOptions(**{**STILL, "max_angle": 90.0, "scale_range": (1.3, 1.3), "max_tilt": 10.0})
    identity = Preprocessing(64, rgb_mean=(0, 0, 0), rgb_std=(1, 1, 1))
    raw = raw_batch(section, "semantics")
    batch = prepare_for_training(raw, identity, "semantics", options, stated(roll=0.25, tilt=(0.5, 0.0)))
    assert batch.labels_BChw.shape[1:] == batch.images_B3HW.shape[2:]
    seen_HW3 = batch.images_B3HW[0].permute(1, 2, 0)
    painted = torch.from_numpy(colours[[1, 3, 6, 9, 17]][:, ::-1].copy()).float() / 255
    distance_HWn = (seen_HW3[:, :, None] - painted).abs().amax(-1)
    pure_HW = distance_HWn.amin(-1) < 0.01
    assert pure_HW.float().mean() > 0.4
    classes_of = torch.tensor([1, 2, 3, 4, 5])
    assert torch.equal(classes_of[distance_HWn.argmin(-1)][pure_HW], batch.labels_BChw[0][pure_HW])


def test_classes_are_resized_with_their_image_in_evaluation(plane_section):
    section = plane_section(1, height=96, width=80)
    codes = np.full((96, 80), 2, np.uint8)
    codes[48:, :40], codes[48:, 40:], codes[:48, :40] = 3, 6, 9
    np.save(section / "semantics" / "view_000.npy", codes)
    for height, shape in ((40, (48, 40)), (80, (96, 80)), (160, (192, 160))):
        batch = prepare_for_evaluation(raw_batch(section, "semantics", height), Preprocessing(height), "semantics")
        h, w = (n // 2 for n in shape)
        assert batch.labels_BChw.shape[1:] == batch.images_B3HW.shape[2:] == shape and batch.labels_BChw.dtype == torch.int64
        assert batch.valid_B1hw.shape == (1, 1, *shape) and batch.valid_B1hw.all()
        for class_index, part in ((1, (0, w)), (4, (0, 0)), (2, (h, 0)), (3, (h, w))):
            assert (batch.labels_BChw[0, part[0] :, part[1] :][:h, :w] == class_index).all()


# ---- colours


def test_colours_are_jittered_in_closed_form(plane_section):
    raw = raw_batch(plane_section(2))
    jitter = [[0.5, -1.0, 0.2, -0.4, 1.0], [-1.0, 0.5, 0.0, 0.0, 0.0]]
    options = AugmentationOptions(**{**STILL, "jitter": 0.2, "colour_jitter": 0.1})
    preprocessing = Preprocessing(64, rgb_mean=(0.3, 0.4, 0.5), rgb_std=(0.2, 0.25, 0.1))
    batch = prepare_for_training(raw, preprocessing, "coord", options, stated(jitter=jitter, count=2))
    images = raw.images_BHW3.numpy()
    for image, seen, (brightness, contrast, *colours) in zip(images, batch.images_B3HW, jitter, strict=True):
        x = image / 255
        gain_3 = 1 + 0.2 * brightness + 0.1 * np.array(colours)
        mean = x[::8, ::8].mean()
        changed = (x * gain_3 - mean * gain_3) * (1 + 0.2 * contrast) + mean * gain_3
        expected = (changed - [0.3, 0.4, 0.5]) / [0.2, 0.25, 0.1]
        torch.testing.assert_close(seen.permute(1, 2, 0), torch.from_numpy(expected).float(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("grayscale", [False, True])
def test_colours_of_the_training_are_those_of_the_evaluation(plane_section, grayscale):
    raw = raw_batch(plane_section(2))
    colours = ((0.6,), (0.31,)) if grayscale else ((0.2, 0.3, 0.6), (0.1, 0.2, 0.4))
    preprocessing = Preprocessing(64, grayscale, *colours)
    batch = prepare_for_evaluation(raw, preprocessing, "coord")
    x = raw.images_BHW3.double() / 255
    if grayscale:
        x = (x @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64))[..., None]
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in colours)
    torch.testing.assert_close(batch.images_B3HW.double(), ((x - mean) / std).permute(0, 3, 1, 2), rtol=0, atol=1e-5)
    augmented = trained(raw, preprocessing, "coord", AugmentationOptions(**STILL))
    torch.testing.assert_close(augmented.images_B3HW, batch.images_B3HW, rtol=0, atol=1e-3)
    assert torch.equal(prepare_views(raw, preprocessing).images_B3HW, batch.images_B3HW)


def test_uncovered_pixels_have_the_mean_colour(plane_section):
    options = AugmentationOptions(**{**STILL, "max_angle": 45.0})
    batch = prepare_for_training(raw_batch(plane_section(1)), PREPROCESSING, "coord", options, stated(roll=1.0))
    assert (batch.images_B3HW[0, :, :4, :4] == 0).all() and (batch.images_B3HW[0, :, 30:34, 46:50] != 0).all()
    assert not batch.valid_B1hw[0, 0, 0, 0] and batch.valid_B1hw[0, 0, 4, 6]


# ---- batches


def test_one_camera_needs_one_grid_and_several_need_their_own():
    K_B33 = torch.stack([intrinsics_matrix(64, 64, 48, 32)] * 3)
    source, target = Plane(K_B33, (64, 96)), Plane(1.5 * K_B33, (12, 18), 8)
    one = CameraChange.between(source, target, torch.eye(3, dtype=torch.float64), torch.device("cpu"))
    assert one.grid_Ghw2().shape == (1, 12, 18, 2) and one.rays_G3N().shape == (1, 3, 216) and one.affine
    for which in (0, 1):
        other_B33 = K_B33.clone()
        other_B33[2, 0, 2] += 1
        planes = [Plane(other_B33, source.cells), target] if which == 0 else [source, Plane(other_B33, target.cells, 8)]
        several = CameraChange.between(*planes, torch.eye(3, dtype=torch.float64), torch.device("cpu"))
        assert several.grid_Ghw2().shape == (3, 12, 18, 2)
    tilted = CameraChange.between(source, target, rotation_xy(0.1, 0.0)[:3, :3], torch.device("cpu"))
    assert not tilted.affine and tilted.grid_Ghw2().shape == (1, 12, 18, 2)


def mixed_raw(plane_section, task="coord", which=slice(None)):
    sections = [
        plane_section(1, name="m/a", height=64, width=96, seed=1),
        plane_section(1, name="m/b", height=96, width=64, seed=2),
        plane_section(1, name="m/c", height=75, width=101, focal=70.0, seed=3),
        plane_section(1, name="m/d", height=120, width=130, calibration="90 99 55 66", seed=4),
    ]
    dataset = SectionDataset(sections, task, 64)
    return collate([dataset[i] for i in range(4)][which])


@pytest.mark.parametrize("tilt", [0.0, 6.0])
def test_batches_of_mixed_sizes_keep_labels_and_pixels_together(plane_section, tilt):
    raw, options = mixed_raw(plane_section), AugmentationOptions(max_tilt=tilt, max_shift=0.1)
    assert raw.padded and raw.sizes == ((64, 96), (96, 64), (64, 86), (64, 69))
    for batch in (prepare_for_evaluation(raw, PREPROCESSING, "coord"), trained(raw, PREPROCESSING, "coord", options)):
        error_BN, _ = reprojection_px(batch)
        valid_BN = batch.valid_B1hw.flatten(1)
        assert error_BN[valid_BN].max() < 0.05 and valid_BN.float().mean(1).min() > 0.25
        x, _, z = batch.labels_BChw.flatten(2).unbind(1)
        assert (z - 0.1 * x).abs()[valid_BN].median() < 0.03


@pytest.mark.parametrize("place", range(4))
def test_the_neighbours_in_a_batch_change_nothing(plane_section, place):
    options = AugmentationOptions(shading=0.3, colour_jitter=0.2, max_tilt=5.0, max_shift=0.1)
    among = trained(mixed_raw(plane_section), PREPROCESSING, "coord", options)
    alone = trained(mixed_raw(plane_section, which=slice(place, place + 1)), PREPROCESSING, "coord", options)
    H, W = alone.images_B3HW.shape[2:]
    h, w = alone.labels_BChw.shape[2:]
    assert torch.equal(among.K_B33[place], alone.K_B33[0])
    assert torch.equal(among.world_from_cam_B44[place], alone.world_from_cam_B44[0])
    difference = (among.images_B3HW[place, :, :H, :W] - alone.images_B3HW[0]).abs()
    # The very border is blended with the mean colour in both, from arguments that differ in the last bits.
    assert difference.quantile(0.999) < 2e-3
    same = among.valid_B1hw[place, :, :h, :w] == alone.valid_B1hw[0]
    assert same.float().mean() > 0.97
    both = same & alone.valid_B1hw[0]
    assert (among.labels_BChw[place, :, :h, :w] - alone.labels_BChw[0]).abs()[both.expand(3, -1, -1)].median() < 1e-3


def test_padding_has_the_mean_colour_and_no_labels(plane_section):
    batch = prepare_for_evaluation(mixed_raw(plane_section), PREPROCESSING, "coord")
    assert batch.images_B3HW.shape[2:] == (96, 96) and batch.labels_BChw.shape[2:] == (12, 12)
    assert (batch.images_B3HW[0, :, 64:] == 0).all() and (batch.images_B3HW[1, :, :, 64:] == 0).all()
    assert (batch.images_B3HW[0, :, :64] != 0).any() and not batch.valid_B1hw[0, 0, 8:].any()


def test_photos_without_truth_go_through_the_same_preparation(plane_section):
    section = plane_section(2, height=80, width=120)
    batch = prepare_for_evaluation(raw_batch(section, image_height=40), Preprocessing(40), "coord")
    K_33 = intrinsics_matrix(64, 64, 60, 40)
    views = ViewDataset([(path, K_33) for path in sorted((section / "rgb").iterdir())], 40)
    prepared = prepare_views(collate_views([views[0], views[1]]), Preprocessing(40))
    assert torch.equal(prepared.images_B3HW, batch.images_B3HW) and torch.equal(prepared.K_B33, batch.K_B33)
    assert prepared.K_B33.dtype == torch.float32 and prepared.stems == ("rgb/view_000", "rgb/view_001")
    assert not hasattr(prepared, "labels_BChw")


def test_moving_a_batch_moves_every_tensor(plane_section):
    batch = prepare_for_evaluation(raw_batch(plane_section(1)), PREPROCESSING, "coord").to("meta")
    tensors = [v for v in vars(batch).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) == 5 and all(tensor.device.type == "meta" for tensor in tensors)
    assert batch.stems == ("train_sim/view_000",) and batch.stride == 8


def test_loader_processes_change_nothing(plane_section):
    sections = [plane_section(5), plane_section(2, name="scene/train_drone_real", height=96, width=64, seed=9)]
    dataset = SectionDataset(sections, "coord", 64)
    is_real = [name == "train_drone_real" for name in dataset.section_of]
    options = AugmentationOptions(shading=0.2)

    def batches(workers):
        sampler = RunBatchSampler(is_real, 3, seed=4, epochs=2, start_images=2, real_share=0.5)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers)
        return [trained(raw, PREPROCESSING, "coord", options, images_seen=n) for n, raw in enumerate(loader)]

    ours, theirs = batches(0), batches(2)
    assert [len(batch.stems) for batch in ours] == [1, 3, 1, 3, 3, 1]
    for a, b in zip(ours, theirs, strict=True):
        assert a.stems == b.stems and a.stride == b.stride
        for name in ("images_B3HW", "labels_BChw", "valid_B1hw", "world_from_cam_B44", "K_B33"):
            assert torch.equal(getattr(a, name), getattr(b, name))


class _NoWaits(TorchDispatchMode):
    """Fails where the CPU would wait for a device (here `meta`, which holds no values) or copies to it while waiting."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            self.check(args[0].device, kwargs.get("device"), kwargs.get("non_blocking", False))
        elif func is torch.ops.aten.copy_.default:
            self.check(args[1].device, args[0].device, len(args) > 2 and args[2])
        return func(*args, **kwargs)

    @staticmethod
    def check(source, target, non_blocking):
        if target is not None and torch.device(target).type != source.type:
            assert source.type == "cpu", "values of the device are looked at"
            assert non_blocking, "a copy waits for the device"


class _NoConstants(TorchFunctionMode):
    """Fails where a tensor of Python numbers is made on a device, which waits for the copy."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            assert made.device.type == "cpu", "a constant is copied to the device"
        return made


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("task", ["coord", "depth", "normal", "semantics"])
def test_a_step_never_waits_for_the_device(plane_section, task, mixed):
    cpu = mixed_raw(plane_section, task) if mixed else raw_batch(plane_section(2), task)
    options = AugmentationOptions(shading=0.2, max_tilt=5.0)
    raw = cpu.to("meta")
    assert raw.images_BHW3.device.type == raw.maps_BChw.device.type == raw.valid_B1hw.device.type == "meta"
    preprocessing = dataclasses.replace(PREPROCESSING, rgb_mean=(0.1, 0.2, 0.3))
    prepare_views(raw, preprocessing)  # fills what is kept per device
    with _NoWaits(), _NoConstants():
        batch = trained(raw, preprocessing, task, options)
        prepare_for_evaluation(raw, preprocessing, task)
        B, *size = batch.labels_BChw.shape[0], *batch.labels_BChw.shape[-2:]
        prediction = torch.zeros(B, TASKS[task].channels, *size, device="meta", requires_grad=True)
        sigma = None if task == "semantics" else torch.ones(B, 1, *size, device="meta")
        loss_for(task)(prediction, sigma, batch, LossOptions()).total.backward()


def test_the_watch_for_waits_sees_them():
    waits = (
        lambda: torch.zeros(3, device="meta").cpu(),
        lambda: torch.ones(3).to("meta"),
        lambda: torch.zeros(3, device="meta").copy_(torch.ones(3)),
        lambda: torch.zeros(3, device="meta").new_tensor([1.0, 2.0]),
        lambda: torch.tensor([1.0], device="meta"),
        lambda: bool(torch.zeros(1, device="meta").any()),
    )
    for wait in waits:
        with _NoWaits(), _NoConstants(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
            wait()
