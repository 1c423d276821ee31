"""What the depth, normal and semantics tasks give per image, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from evaluation.metrics import DepthSums, SemanticsScores, Spread, depth_sums, semantics_scores
from geometry.angles import angle_between_deg
from loss.normal import normal_from_logits
from tasks import TASKS

# Brings a [B, C, h, w] map of the network's grid to the labels' grid.
Resample = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class DenseResult:
    """What one image gave, in the units of the labels and on their grid.

    Attributes:
        stem: `section/stem`.
        image_HW3: uint8 RGB as the network saw it, before normalisation.
        prediction, truth: depth [h, w] in metres, unit normals [3, h, w], or class indices [H, W].
        valid_hw: where the truth means something.
        sigma_hw: predicted standard deviation or None.
        network: which of several networks it is of.
    """

    stem: str
    image_HW3: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray
    valid_hw: np.ndarray
    sigma_hw: np.ndarray | None
    network: int = 0

    def arrays(self, task: str) -> dict[str, np.ndarray]:
        """What --save_pred keeps: <task>_pred, <task>_gt, valid and, with an uncertainty, <task>_unc."""
        uncertainty = {} if self.sigma_hw is None else {f"{task}_unc": self.sigma_hw}
        return {f"{task}_pred": self.prediction, f"{task}_gt": self.truth, "valid": self.valid_hw, **uncertainty}


def decode_depth(prediction_B1hw: torch.Tensor, at_labels: Resample) -> torch.Tensor:
    """Depth [B, h, w], metres."""
    return at_labels(prediction_B1hw)[:, 0]


def decode_normal(logits_B2hw: torch.Tensor, at_labels: Resample) -> torch.Tensor:
    """Unit normals [B, 3, h, w]; vectors are resampled, because angles jump at the half turn."""
    return F.normalize(at_labels(normal_from_logits(logits_B2hw)), dim=1)


def decode_semantics(logits_BCHW: torch.Tensor, _: Resample) -> torch.Tensor:
    """Class indices [B, H, W]; their labels are always full-size."""
    return logits_BCHW.argmax(1)


def depth_truth(labels_B1hw: torch.Tensor) -> torch.Tensor:
    """Depth labels [B, h, w]."""
    return labels_B1hw[:, 0]


def measure_depth(result: DenseResult) -> tuple[DepthSums, dict[str, object]]:
    """The sums of an image, and its CSV columns."""
    sums = depth_sums(result.prediction, result.truth, result.valid_hw)
    cells = max(sums.cells, 1)
    row = {
        "absolute_relative_percent": f"{100 * sums.relative / cells:.4f}",
        "rms_m": f"{(sums.squared / cells) ** 0.5:.4f}",
        "labelled_cells": sums.cells,
    }
    return sums, row


def measure_normal(result: DenseResult) -> tuple[np.ndarray, dict[str, object]]:
    """The angles between predicted and true normals on the labelled cells, degrees, and the CSV columns."""
    pair = (torch.from_numpy(v[:, result.valid_hw])[None].double() for v in (result.prediction, result.truth))
    angle_deg = angle_between_deg(*pair)[0].numpy().astype(np.float32)
    spread = Spread.of(angle_deg)
    row = {
        "angle_mean_deg": f"{spread.mean:.4f}",
        "angle_median_deg": f"{spread.median:.4f}",
        "labelled_cells": angle_deg.size,
    }
    return angle_deg, row


def measure_semantics(result: DenseResult) -> tuple[SemanticsScores, dict[str, object]]:
    """The scores of an image, and its CSV columns."""
    scores = semantics_scores(result.prediction, result.truth, TASKS["semantics"].channels)
    return scores, {name: f"{value:.4f}" for name, value in vars(scores).items()}
