"""Semantic segmentation at image size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from loss.result import LossOptions, LossResult, check_shapes

if TYPE_CHECKING:
    from dataloader.batch import Batch


def semantics_loss(logits_BCHW: torch.Tensor, sigma: None, batch: Batch, options: LossOptions) -> LossResult:
    """Cross entropy over all pixels; the valid rate is the pixel accuracy. No threshold of `options` applies.

    Raises:
        ValueError: shapes disagree, or an uncertainty was given: a segmentation has none.
    """
    if sigma is not None:
        raise ValueError("the semantics loss takes no uncertainty; train with --uncertainty none")
    B, H, W = batch.labels_BChw.shape
    check_shapes(logits_BCHW, None, (B, logits_BCHW.shape[1], H, W))
    accuracy = (logits_BCHW.argmax(1) == batch.labels_BChw).float().mean()
    return LossResult(F.cross_entropy(logits_BCHW, batch.labels_BChw), accuracy, {})
