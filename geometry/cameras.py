"""Pinhole cameras: intrinsics, projection, back-projection."""

from __future__ import annotations

import torch


def intrinsics_matrix(fx: float, fy: float, cx: float, cy: float) -> torch.Tensor:
    """K [3, 3] in float64 from focal lengths and principal point in pixels.

    Raises:
        ValueError: a focal length is not a positive number.
    """
    K_33 = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
    if not (torch.isfinite(K_33).all() and fx > 0 and fy > 0):
        raise ValueError(f"intrinsics must be finite with positive focal lengths, got fx={fx} fy={fy} cx={cx} cy={cy}")
    return K_33


def resize_intrinsics(K_B33: torch.Tensor, scale_x: float, scale_y: float) -> torch.Tensor:
    """Intrinsics [..., 3, 3] of the image resized by (scale_x, scale_y), in continuous pixel coordinates."""
    scale_3 = torch.tensor([scale_x, scale_y, 1.0], dtype=K_B33.dtype, device=K_B33.device)
    return K_B33 * scale_3[:, None]


def pixel_rays(K_B33: torch.Tensor, xy_px_2N: torch.Tensor) -> torch.Tensor:
    """Camera-frame rays [B, 3, N] with z = 1 through pixels [2, N]; zero skew."""
    focal_B21 = torch.stack((K_B33[:, 0, 0], K_B33[:, 1, 1]), 1)[..., None]
    centre_B21 = K_B33[:, :2, 2, None]
    xy_B2N = (xy_px_2N[None] - centre_B21) / focal_B21
    return torch.cat((xy_B2N, torch.ones_like(xy_B2N[:, :1])), 1)


def project(p_cam_B3N: torch.Tensor, K_B33: torch.Tensor, *, min_depth: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """Projects camera-frame points.

    Args:
        p_cam_B3N: points, metres.
        K_B33: intrinsics, pixels, zero skew.
        min_depth: depths are clamped here before the division, metres.
    Returns:
        (xy_px_B2N, depth_BN): pixels, meaningless where depth < min_depth (mask them), and unclamped depth.
    """
    depth_BN = p_cam_B3N[:, 2]
    focal_B21 = torch.stack((K_B33[:, 0, 0], K_B33[:, 1, 1]), 1)[..., None]
    xy_B2N = p_cam_B3N[:, :2] / depth_BN.clamp(min=min_depth)[:, None]
    return xy_B2N * focal_B21 + K_B33[:, :2, 2, None], depth_BN
