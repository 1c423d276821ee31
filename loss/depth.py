"""Depth along the optical axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from loss.result import LossOptions, LossResult, check_shapes, masked_mean, regression_loss

if TYPE_CHECKING:
    from dataloader.batch import Batch


def depth_loss(depth_B1hw: torch.Tensor, sigma_B1hw: torch.Tensor | None, batch: Batch, options: LossOptions) -> LossResult:
    """Absolute difference of predicted and true z-buffer depth, metres, on labelled cells.

    In range: label valid, depth >= mindepth, difference <= hardclamp.
    Source: CrossLoc, CVPR 2022.
    """
    check_shapes(depth_B1hw, sigma_B1hw, tuple(batch.labels_BChw.shape))
    valid_B1hw = batch.valid_B1hw
    error_B1hw = torch.where(valid_B1hw, depth_B1hw - batch.labels_BChw, 0.0).abs()
    in_range_B1hw = valid_B1hw & (depth_B1hw >= options.mindepth) & (error_B1hw <= options.hardclamp)
    return LossResult(
        regression_loss(error_B1hw, sigma_B1hw, valid_B1hw, dimensions=1) / valid_B1hw.numel(),
        in_range_B1hw.float().mean(),
        {"depth": masked_mean(error_B1hw, valid_B1hw)},
        {"depth": valid_B1hw.sum()},
    )
