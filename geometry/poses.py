"""Rigid transforms: 4 x 4 matrices, camera-to-world unless the name says otherwise."""

from __future__ import annotations

import math

import torch


def invert_pose(T_B44: torch.Tensor) -> torch.Tensor:
    """Inverse of rigid transforms [..., 4, 4] without a general matrix inverse."""
    R_T = T_B44[..., :3, :3].transpose(-1, -2)
    inverse = T_B44.clone()
    inverse[..., :3, :3] = R_T
    inverse[..., :3, 3:] = -R_T @ T_B44[..., :3, 3:]
    return inverse


def transform_points(T_B44: torch.Tensor, p_B3N: torch.Tensor) -> torch.Tensor:
    """Applies rigid transforms [B, 4, 4] to points [B, 3, N]."""
    return torch.baddbmm(T_B44[:, :3, 3:], T_B44[:, :3, :3], p_B3N)


def rotation_z(angle_rad: float, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Rotation about the optical axis as a pose [4, 4]: x towards y for a positive angle."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=dtype)


def rotation_xy(angle_x_rad: float, angle_y_rad: float, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Tilt of the optical axis as a pose [4, 4]: about the camera's y, then about its x axis."""
    cx, sx, cy, sy = math.cos(angle_x_rad), math.sin(angle_x_rad), math.cos(angle_y_rad), math.sin(angle_y_rad)
    return torch.tensor([[cy, 0, sy, 0], [sx * sy, cx, -sx * cy, 0], [-cx * sy, sx, cx * cy, 0], [0, 0, 0, 1]], dtype=dtype)


def check_pose(T_44: torch.Tensor, name: str, *, tolerance: float = 1e-3) -> None:
    """Raises ValueError naming `name` unless T_44 is a finite rigid transform [4, 4]."""
    if tuple(T_44.shape) != (4, 4):
        raise ValueError(f"{name}: a pose is a 4 x 4 matrix, found shape {tuple(T_44.shape)}")
    if not torch.isfinite(T_44).all():
        raise ValueError(f"{name}: the pose holds NaN or infinite values")
    R_33 = T_44[:3, :3].double()
    orthogonality = (R_33 @ R_33.T - torch.eye(3, dtype=torch.float64)).abs().max().item()
    bottom = (T_44[3].double() - torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)).abs().max().item()
    wrong = {
        f"rotation off by {orthogonality:.2g}": orthogonality > tolerance,
        "its last row is not 0 0 0 1": bottom > tolerance,
        "its rotation mirrors: determinant -1": torch.linalg.det(R_33) < 0,
    }
    for text, is_so in wrong.items():
        if is_so:
            raise ValueError(f"{name}: not a camera-to-world rigid transform ({text})")


def pose_error(est_44: torch.Tensor, gt_44: torch.Tensor) -> tuple[float, float]:
    """Pose error (translation in metres, rotation in degrees).

    Translation is the distance of the camera centres, rotation the angle of R_est^T R_gt.
    """
    est, gt = est_44.double(), gt_44.double()
    t_err_m = torch.linalg.norm(est[:3, 3] - gt[:3, 3]).item()
    R_33 = est[:3, :3].T @ gt[:3, :3]
    # atan2 of the sine and cosine parts: acos alone loses all precision near zero.
    sine = 0.5 * torch.linalg.norm(torch.stack((R_33[2, 1] - R_33[1, 2], R_33[0, 2] - R_33[2, 0], R_33[1, 0] - R_33[0, 1])))
    cosine = 0.5 * (torch.trace(R_33) - 1)
    return t_err_m, math.degrees(math.atan2(sine.item(), cosine.item()))
