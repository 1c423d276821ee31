"""Cameras, poses and angles against closed forms and round trips."""

import math

import numpy as np
import pytest
import torch

from geometry.angles import angle_between_deg, angles_from_normal, normal_from_angles
from geometry.attitude import enu_from_camera, yaw_pitch_roll_from_enu_camera
from geometry.cameras import intrinsics_matrix, pixel_rays, project, resize_intrinsics
from geometry.grid import cell_centres, grid_size
from geometry.poses import check_pose, invert_pose, pose_error, rotation_z, transform_points


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
