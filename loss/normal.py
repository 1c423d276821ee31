"""Surface normals in the camera frame, predicted as the logits of two angles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from geometry.angles import angle_between_deg, angles_from_normal, normal_from_angles
from loss.result import LossOptions, LossResult, check_shapes, masked_mean, regression_loss

if TYPE_CHECKING:
    from dataloader.batch import Batch

_EPSILON = 1e-7


def angles_from_logits(logits_B2hw: torch.Tensor) -> torch.Tensor:
    """Azimuth and elevation [B, 2, h, w] in radians: the open interval (-pi, pi) from any pair of numbers."""
    share_B2hw = torch.sigmoid(logits_B2hw).clamp(_EPSILON, 1 - _EPSILON)
    return math.pi * (2 * share_B2hw - 1)


def normal_from_logits(logits_B2hw: torch.Tensor) -> torch.Tensor:
    """Unit normals [B, 3, h, w] in the camera frame."""
    return normal_from_angles(angles_from_logits(logits_B2hw))


def normal_loss(
    logits_B2hw: torch.Tensor, sigma_B1hw: torch.Tensor | None, batch: Batch, options: LossOptions
) -> LossResult:
    """Twice the azimuth's difference (the short way round) plus the elevation's, radians, on labelled cells.

    In range: label valid and the angle between the vectors <= hardclamp degrees.
    Source: CrossLoc, CVPR 2022.
    """
    B, _, h, w = batch.labels_BChw.shape
    check_shapes(logits_B2hw, sigma_B1hw, (B, 2, h, w))
    valid_B1hw = batch.valid_B1hw
    # Any unit vector, so that unlabelled cells stay finite; filled in place, as a GPU waits for constants of the CPU.
    up_311 = batch.labels_BChw.new_zeros(3, 1, 1)
    up_311[2] = 1.0
    normal_B3hw = torch.where(valid_B1hw, batch.labels_BChw, up_311)

    angles_B2hw = angles_from_logits(logits_B2hw)
    difference_B2hw = (angles_B2hw - angles_from_normal(normal_B3hw)).abs()
    azimuth_B1hw, elevation_B1hw = difference_B2hw.split(1, 1)
    error_B1hw = 2 * torch.minimum(azimuth_B1hw, 2 * math.pi - azimuth_B1hw) + elevation_B1hw

    with torch.no_grad():
        angle_B1hw = angle_between_deg(normal_from_angles(angles_B2hw), normal_B3hw)[:, None]
    in_range_B1hw = valid_B1hw & (angle_B1hw <= options.hardclamp)
    return LossResult(
        regression_loss(error_B1hw, sigma_B1hw, valid_B1hw, dimensions=2) / valid_B1hw.numel(),
        in_range_B1hw.float().mean(),
        {
            "normal": masked_mean(error_B1hw, valid_B1hw),
            "normal_angle_deg": masked_mean(angle_B1hw, valid_B1hw),
        },
        {"normal": valid_B1hw.sum(), "normal_angle_deg": valid_B1hw.sum()},
    )
