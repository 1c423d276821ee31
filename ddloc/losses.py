"""DDLoc's losses: pure functions of predictions and labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dataloader.batch import Batch
from loss.coord import cell_errors
from loss.result import LossOptions, LossResult, check_shapes, masked_mean


def initialisation_loss(coords_B3hw: torch.Tensor, batch: Batch, options: LossOptions) -> LossResult:
    """In range: the reprojection error, softened; out of range: the distance to the label, if any; mean over all cells.

    In range: depth >= mindepth, reprojection error <= hardclamp, and distance to the label, if any, <= inittolerance.
    Unlike CrossLoc's sum, a cell has one of the two terms.

    Args:
        coords_B3hw: predicted scene coordinates, metres.
    Source: the initialisation of DSAC*, TPAMI 2021.
    """
    check_shapes(coords_B3hw, None, tuple(batch.labels_BChw.shape))
    valid_B1hw = batch.valid_B1hw
    error_B1hw, reprojection_B1hw, softened_B1hw, in_range_B1hw = cell_errors(coords_B3hw, batch, options)
    # The distance of a cell without label is zero: it costs nothing out of range.
    loss_B1hw = torch.where(in_range_B1hw, softened_B1hw, error_B1hw)
    return LossResult(
        loss_B1hw.mean(),
        in_range_B1hw.float().mean(),
        {"coord": masked_mean(error_B1hw, valid_B1hw), "reprojection": masked_mean(reprojection_B1hw, in_range_B1hw)},
    )


def least_squares(scores: torch.Tensor, target: float) -> torch.Tensor:
    """Mean square distance of a discriminator's scores from what they should be."""
    return (scores - target).square().mean()


def cross_entropy(scores: torch.Tensor, target: float) -> torch.Tensor:
    """Of the sigmoid of a discriminator's scores with what they should be, 0 or 1."""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


def l1(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean absolute difference; with a weight (a mask), of the weighted difference over all pixels."""
    difference = (a - b).abs()
    return difference.mean() if weight is None else (weight * difference).mean()


def kept_share_divergence(mask_B1HW: torch.Tensor, rho: float) -> torch.Tensor:
    """Kullback-Leibler divergence of a Bernoulli(rho) from that of the mask's mean."""
    mean = mask_B1HW.mean().clamp(1e-6, 1 - 1e-6)
    rho_0 = mean.new_tensor(rho)
    return rho_0 * (rho_0 / mean).log() + (1 - rho_0) * ((1 - rho_0) / (1 - mean)).log()


def gram(x_BChw: torch.Tensor) -> torch.Tensor:
    """Correlations [B, C, C] of the channels, over the number of entries of a map."""
    x_BCN = x_BChw.flatten(2)
    return x_BCN @ x_BCN.transpose(1, 2) / x_BCN[0].numel()


def feature_distance(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over the levels of the mean absolute differences."""
    return sum((l1(x, y) for x, y in zip(a, b, strict=True)), start=torch.zeros((), device=a[0].device))
