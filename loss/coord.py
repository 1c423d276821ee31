"""Scene coordinates: distance to the label and reprojection error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from geometry.cameras import project
from geometry.grid import cell_centres
from geometry.poses import invert_pose, transform_points
from loss.result import MIN_VALUE, LossOptions, LossResult, check_shapes, masked_mean, regression_loss

if TYPE_CHECKING:
    from dataloader.batch import Batch


def coord_loss(coords_B3hw: torch.Tensor, sigma_B1hw: torch.Tensor | None, batch: Batch, options: LossOptions) -> LossResult:
    """Regression on labelled cells plus reprojection on the cells in range, labelled or not.

    In range: depth >= mindepth, reprojection error <= hardclamp, and distance to the label, if any, <= inittolerance.

    Args:
        coords_B3hw: predicted scene coordinates, metres.
        sigma_B1hw: their standard deviation per axis, metres, or None.
        batch: labels, mask, poses and intrinsics on the same device.
    Source: CrossLoc, CVPR 2022; reprojection part: DSAC*, TPAMI 2021.
    """
    check_shapes(coords_B3hw, sigma_B1hw, tuple(batch.labels_BChw.shape))
    valid_B1hw = batch.valid_B1hw
    error_B1hw, reprojection_B1hw, softened_B1hw, in_range_B1hw = cell_errors(coords_B3hw, batch, options)
    reprojection_sum = torch.where(in_range_B1hw, softened_B1hw, 0.0).sum()
    regression_sum = regression_loss(error_B1hw, sigma_B1hw, valid_B1hw, dimensions=3)
    return LossResult(
        (regression_sum + reprojection_sum) / valid_B1hw.numel(),
        in_range_B1hw.float().mean(),
        {
            "coord": masked_mean(error_B1hw, valid_B1hw),
            "reprojection": masked_mean(reprojection_B1hw, in_range_B1hw),
        },
        {"coord": valid_B1hw.sum(), "reprojection": in_range_B1hw.sum()},
    )


def cell_errors(
    coords_B3hw: torch.Tensor, batch: Batch, options: LossOptions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a cell's coordinates are off by, [B, 1, h, w] each.

    Returns:
        distance to the label in metres, zero without one; reprojection error in pixels; the same softened beyond softclamp;
        whether the cell is in range: depth >= mindepth, reprojection error <= hardclamp, and distance to the label, if any,
        <= inittolerance.
    """
    valid_B1hw = batch.valid_B1hw
    # Rigid transforms keep distances: the world-frame distance is the camera-frame one.
    error_B1hw = torch.linalg.vector_norm(torch.where(valid_B1hw, coords_B3hw - batch.labels_BChw, 0.0), dim=1, keepdim=True)
    depth_B1hw, reprojection_B1hw = _reprojection(coords_B3hw, batch, options.mindepth)
    in_range_B1hw = (
        (depth_B1hw >= options.mindepth)
        & (reprojection_B1hw <= options.hardclamp)
        & (~valid_B1hw | (error_B1hw <= options.inittolerance))
    )
    softened_B1hw = torch.where(
        reprojection_B1hw <= options.softclamp, reprojection_B1hw, (options.softclamp * reprojection_B1hw).sqrt()
    )
    return error_B1hw, reprojection_B1hw, softened_B1hw, in_range_B1hw


def _reprojection(coords_B3hw: torch.Tensor, batch: Batch, min_depth: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth in metres and distance in pixels to the cell's centre, both [B, 1, h, w]."""
    B, _, h, w = coords_B3hw.shape
    p_cam_B3N = transform_points(invert_pose(batch.world_from_cam_B44), coords_B3hw.flatten(2))
    xy_px_B2N, depth_BN = project(p_cam_B3N, batch.K_B33, min_depth=min_depth)
    target_px_2N = cell_centres(h, w, batch.stride, device=coords_B3hw.device).flatten(1)
    distance_BN = torch.linalg.vector_norm(xy_px_B2N - target_px_2N, dim=1).clamp(min=MIN_VALUE)
    return depth_BN.view(B, 1, h, w), distance_BN.view(B, 1, h, w)
