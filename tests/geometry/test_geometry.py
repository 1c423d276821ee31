"""Cameras, poses and angles against closed forms and round trips."""

import math

import numpy as np
import pytest
import torch

from geometry.angles import angle_between_deg, angles_from_normal, normal_from_angles
from geometry.attitude import enu_from_camera, yaw_pitch_roll_from_enu_camera
from geometry.cameras import intrinsics_matrix, pixel_rays, project, resize_intrinsics
from geometry.grid import cell_centres, grid_size
from geometry.poses import check_pose, invert_pose, pose_error, rotation_xy, rotation_z, transform_points


def random_pose(seed=0):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = q * torch.sign(torch.linalg.det(q))
    pose[:3, 3] = torch.randn(3, generator=generator, dtype=torch.float64) * 50
    return pose


def test_grid_follows_the_encoder():
    assert grid_size(480, 720) == (60, 90) and grid_size(481, 721) == (61, 91) and grid_size(1, 1) == (1, 1)
    centres = cell_centres(3, 2)
    assert centres.shape == (2, 3, 2)
    assert centres[:, 2, 1].tolist() == [12.0, 20.0]


def test_projection_inverts_back_projection():
    K = intrinsics_matrix(500, 400, 300, 210)[None]
    pixels = torch.tensor([[0.0, 300, 640], [0, 210, 480]], dtype=torch.float64)
    depth = torch.tensor([[2.0, 5, 70]], dtype=torch.float64)
    xy, z = project(pixel_rays(K, pixels) * depth[:, None], K)
    assert torch.allclose(xy[0], pixels) and torch.allclose(z, depth)


def test_points_behind_the_camera_do_not_divide_by_zero():
    xy, z = project(torch.zeros(1, 3, 1), torch.eye(3)[None])
    assert torch.isfinite(xy).all() and z.item() == 0


def test_resized_intrinsics_see_the_same_point():
    K = intrinsics_matrix(500, 400, 300, 210)[None]
    point = torch.tensor([[[1.0], [2], [10]]], dtype=torch.float64)
    a, _ = project(point, K)
    b, _ = project(point, resize_intrinsics(K, 0.5, 0.25))
    assert torch.allclose(b, a * torch.tensor([0.5, 0.25], dtype=torch.float64)[:, None])


@pytest.mark.parametrize("numbers", [(0, 1, 0, 0), (1, -1, 0, 0), (float("nan"), 1, 0, 0), (1, 1, float("inf"), 0)])
def test_impossible_intrinsics_are_refused(numbers):
    with pytest.raises(ValueError, match="focal"):
        intrinsics_matrix(*numbers)


def test_inverse_pose_and_transform():
    pose = random_pose()
    points = torch.randn(1, 3, 7, dtype=torch.float64)
    back = transform_points(invert_pose(pose)[None], transform_points(pose[None], points))
    assert torch.allclose(back, points)


@pytest.mark.parametrize("angle_deg", [0.0, 1e-5, 0.01, 3.0, 90.0, 179.9])
def test_pose_error_is_exact_from_tiny_to_half_turns(angle_deg):
    gt = random_pose(1)
    est = gt @ rotation_z(math.radians(angle_deg))
    est[:3, 3] += torch.tensor([3.0, 4, 0])
    t_err, r_err = pose_error(est, gt)
    assert t_err == pytest.approx(5.0) and r_err == pytest.approx(angle_deg, abs=1e-7)


@pytest.mark.parametrize(
    "break_it", [lambda T: T[:3], lambda T: T * 2, lambda T: T * float("nan"), lambda T: T * torch.tensor([1, 1, -1, 1.0])]
)
def test_what_is_no_pose_is_refused_by_name(break_it):
    with pytest.raises(ValueError, match="poses/x.txt"):
        check_pose(break_it(random_pose()), "poses/x.txt")


def test_normals_and_angles_round_trip():
    normals = torch.nn.functional.normalize(torch.randn(2, 3, 50, dtype=torch.float64), dim=1)
    assert torch.allclose(normal_from_angles(angles_from_normal(normals)), normals)
    assert angle_between_deg(normals, normals).max() < 1e-5
    assert torch.allclose(angle_between_deg(normals, -normals), torch.full((2, 50), 180.0, dtype=torch.float64))


def test_a_nadir_camera_heading_east():
    R = enu_from_camera(90, -90, 0)
    assert np.allclose(R @ [0, 0, 1], [0, 0, -1])  # looks down
    assert np.allclose(R @ [0, -1, 0], [1, 0, 0])  # the image's top is east
    assert np.allclose(R @ [1, 0, 0], [0, -1, 0])  # its right is south


def test_a_level_camera_heading_north():
    R = enu_from_camera(0, 0, 0)
    assert np.allclose(R @ [0, 0, 1], [0, 1, 0]) and np.allclose(R @ [1, 0, 0], [1, 0, 0])


@pytest.mark.parametrize("attitude", [(10, -60, 5), (-170, -89, -3), (90, 20, 30)])
def test_attitude_round_trip(attitude):
    assert np.allclose(yaw_pitch_roll_from_enu_camera(enu_from_camera(*attitude)), attitude)


def test_attitude_straight_down_gives_the_heading():
    yaw, pitch, roll = yaw_pitch_roll_from_enu_camera(enu_from_camera(35, -90, 0))
    assert (yaw, pitch, roll) == pytest.approx((35, -90, 0), abs=1e-6)


def turn(axis, angle_rad):
    """Rotation [3, 3] about an axis by the exponential of its generator."""
    x, y, z = axis
    return torch.linalg.matrix_exp(angle_rad * torch.tensor([[0.0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64))


def pose_of(R_33, centre=(0.0, 0.0, 0.0)):
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = R_33
    pose[:3, 3] = torch.tensor(centre, dtype=torch.float64)
    return pose


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2 / 3, -1 / 3, 2 / 3)])
@pytest.mark.parametrize("angle_deg", [1e-4, 25.0, 178.0])
def test_pose_error_about_every_axis(axis, angle_deg):
    gt = random_pose(2)
    est = gt @ pose_of(turn(axis, math.radians(angle_deg)))
    assert pose_error(est, gt) == pytest.approx((0, angle_deg), abs=1e-7)
    assert pose_error(gt.float(), gt)[1] < 1e-4  # single precision is welcome


def test_rotations_are_those_of_their_axes():
    assert rotation_z(0.3).dtype == torch.float64 and rotation_z(0.3, dtype=torch.float32).dtype == torch.float32
    assert torch.allclose(rotation_z(0.3), pose_of(turn((0, 0, 1), 0.3)))
    tilt = pose_of(turn((1, 0, 0), 0.4) @ turn((0, 1, 0), -0.7))
    assert torch.allclose(rotation_xy(0.4, -0.7), tilt) and rotation_xy(0.4, -0.7).dtype == torch.float64
    assert rotation_xy(0.4, -0.7, dtype=torch.float32).dtype == torch.float32


def test_transforms_in_closed_form_and_without_side_effects():
    poses = torch.stack((pose_of(turn((0, 0, 1), math.pi / 2), (10.0, 20, 30)), pose_of(torch.eye(3), (1.0, 2, 3))))
    points = torch.tensor([[1.0, 2], [0, 5], [7, 8]], dtype=torch.float64).expand(2, 3, 2)
    moved = transform_points(poses, points)
    expected = torch.tensor([[[10.0, 5], [21, 22], [37, 38]], [[2, 3], [2, 7], [10, 11]]], dtype=torch.float64)
    assert torch.allclose(moved, expected)
    before = poses.clone()
    assert torch.allclose(invert_pose(poses) @ poses, torch.eye(4, dtype=torch.float64).expand(2, 4, 4), atol=1e-12)
    assert torch.equal(poses, before)


def broken(entry, value):
    pose = random_pose()
    pose[entry] += value
    return pose


def sheared(by):
    pose = random_pose()
    pose[:3, :3] = torch.tensor([[1.0, by, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64) @ pose[:3, :3]
    return pose


def scaled(by):
    pose = random_pose()
    pose[:3, :3] *= by
    return pose


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (torch.eye(3, dtype=torch.float64), r"4 x 4 matrix, found shape \(3, 3\)"),
        (torch.eye(4)[None], r"4 x 4 matrix, found shape \(1, 4, 4\)"),
        (broken((0, 3), float("inf")), "NaN or infinite"),
        (broken((3, 3), float("nan")), "NaN or infinite"),
        (broken((3, 3), 0.01), "rigid transform .its last row is not 0 0 0 1"),
        (broken((3, 0), -0.01), "its last row is not 0 0 0 1"),
        (sheared(0.01), "rotation off by 0.01"),
        (sheared(-0.01), "rotation off by 0.01"),
        (scaled(1.01), "rotation off by 0.02"),
        (scaled(0.99), "rotation off by 0.02"),
        (torch.diag(torch.tensor([1.0, 1, -1, 1])), "its rotation mirrors"),
        (torch.diag(torch.tensor([0.0, 0, 0, 1])), "rotation off by 1"),
    ],
)
def test_every_way_of_being_no_pose_has_its_message(pose, message):
    with pytest.raises(ValueError, match=f"^here: .*{message}"):
        check_pose(pose, "here")


def test_rounded_poses_are_poses():
    for pose in (random_pose().float(), sheared(5e-4), scaled(1 - 4e-4), broken((3, 1), 5e-4)):
        check_pose(pose, "here")
    check_pose(sheared(0.01), "here", tolerance=0.02)
    with pytest.raises(ValueError, match="rigid"):
        check_pose(sheared(5e-4), "here", tolerance=1e-4)


def test_intrinsics_in_closed_form():
    assert intrinsics_matrix(500, 400, 300, 210).tolist() == [[500, 0, 300], [0, 400, 210], [0, 0, 1]]
    assert intrinsics_matrix(0.5, 0.25, 0, 0).dtype == torch.float64  # normalised cameras are cameras
    resized = resize_intrinsics(torch.stack((intrinsics_matrix(500, 400, 300, 210),) * 2), 2, 0.5)
    assert resized[1].tolist() == [[1000, 0, 600], [0, 200, 105], [0, 0, 1]] and resized.shape == (2, 3, 3)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_number_of_a_camera_must_be_finite(place, value):
    numbers = [1.0, 1.0, 1.0, 1.0]
    numbers[place] = value
    with pytest.raises(ValueError, match="finite"):
        intrinsics_matrix(*numbers)


@pytest.mark.parametrize("focal", [(0.0, 1.0), (1.0, 0.0), (-0.5, 1.0), (1.0, -0.5), (-2.0, 1.0), (1.0, -2.0)])
def test_focal_lengths_must_be_positive(focal):
    with pytest.raises(ValueError, match=f"fx={focal[0]} fy={focal[1]}"):
        intrinsics_matrix(*focal, 3, 4)


def test_projection_in_closed_form_with_a_camera_per_image():
    K = torch.stack((intrinsics_matrix(500, 400, 300, 210), intrinsics_matrix(50, 40, 30, 21)))
    points = torch.tensor([[1.0, -2, 3], [2, 4, 1], [10, 8, 0.05]], dtype=torch.float64).expand(2, 3, 3)
    xy, depth = project(points, K)
    # The last point is nearer than the lower limit of 0.1 m, which the division uses instead.
    assert xy[0].tolist() == [[350, 175, 15300], [290, 410, 4210]] and xy[1].tolist() == [[35, 17.5, 1530], [29, 41, 421]]
    assert depth.tolist() == [[10, 8, 0.05]] * 2
    assert project(points, K, min_depth=20.0)[0][0, 0].tolist() == [325, 250, 375]
    rays = pixel_rays(K, torch.tensor([[350.0, 300], [210, 250]], dtype=torch.float64))
    expected = torch.tensor([[[0.1, 0], [0, 0.1], [1, 1]], [[6.4, 5.4], [4.725, 5.725], [1, 1]]], dtype=torch.float64)
    assert torch.allclose(rays, expected)


def test_angles_in_closed_form():
    normals = torch.tensor([[1.0, 0, 0, -1, 0.5], [0, -2, 0, 0, 0.5], [0, 0, 3, 0, -math.sqrt(0.5)]], dtype=torch.float64)
    azimuth, elevation = torch.rad2deg(angles_from_normal(normals[None]))[0]
    assert azimuth.tolist() == pytest.approx([0, -90, 0, 180, 45]) and elevation.tolist() == pytest.approx(
        [0, 0, 90, 0, -45]
    )
    angles = torch.tensor([[0.0, math.pi / 2, 1], [0, 0, math.pi / 2]], dtype=torch.float64)
    assert torch.allclose(normal_from_angles(angles[None])[0], torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]).double())
    first, second = normals[None, :, [0, 0, 0, 2]], normals[None, :, [1, 3, 4, 2]]
    assert angle_between_deg(first, second)[0].tolist() == pytest.approx([90, 180, 60, 0])


@pytest.mark.parametrize(
    "attitude", [(0, -60, 20), (0, -60, -20), (180, -45, 10), (90, -45, 10), (20, -89.99999, 5), (-90, 0, 40)]
)
def test_attitudes_on_the_axes_and_close_to_the_nadir_round_trip(attitude):
    matrices = [enu_from_camera(*attitude), enu_from_camera(12, -34, 56)]
    yaw, pitch, roll = yaw_pitch_roll_from_enu_camera(matrices[0])
    assert (math.cos(math.radians(yaw - attitude[0])), pitch, roll) == pytest.approx((1, attitude[1], attitude[2]), abs=1e-6)
    assert yaw_pitch_roll_from_enu_camera(matrices[1]) == pytest.approx((12, -34, 56))


@pytest.mark.parametrize(("attitude", "found"), [((35, -90, 10), (45, -90, 0)), ((35, 90, 10), (25, 90, 0))])
def test_straight_down_or_up_the_roll_goes_into_the_heading(attitude, found):
    R = enu_from_camera(*attitude)
    assert yaw_pitch_roll_from_enu_camera(R) == pytest.approx(found, abs=1e-6)
    assert np.allclose(enu_from_camera(*found), R)


def test_a_rolled_and_pitched_camera_in_closed_form():
    R = enu_from_camera(0, -30, 0)
    assert np.allclose(R @ [0, 0, 1], [0, math.sqrt(0.75), -0.5])  # looks north and 30 degrees down
    assert np.allclose(enu_from_camera(0, 0, 30) @ [1, 0, 0], [math.sqrt(0.75), 0, -0.5])  # the right wing goes down


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_cell_looks_through_its_middle(dtype):
    x_px, y_px = cell_centres(2, 3, dtype=dtype)
    assert x_px.tolist() == [[4, 12, 20]] * 2 and y_px.tolist() == [[4, 4, 4], [12, 12, 12]] and x_px.dtype == dtype
    assert cell_centres(1, 1).dtype == torch.float32
    assert [grid_size(height, 8) for height in (7, 8, 9, 16, 17)] == [(1, 1), (1, 1), (2, 1), (2, 1), (3, 1)]
    assert grid_size(8, 17) == (1, 3)
