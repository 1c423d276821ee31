"""Figures of merit: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# (metres, degrees) of the accuracy table: the share of images whose both errors are below.
ACCURACY_THRESHOLDS = ((30, 10), (20, 10), (10, 7), (10, 10), (5, 5), (3, 3))
FIGURE_BATCH = 4  # the published depth and normal figures are of batches of this many images


@dataclass(frozen=True)
class Spread:
    """Mean, population standard deviation and median of a set of numbers."""

    mean: float
    std: float
    median: float

    @classmethod
    def of(cls, values: np.ndarray | Sequence[float]) -> Spread:
        """NaN throughout for an empty set."""
        array = np.asarray(values, dtype=np.float64)
        if array.size == 0:
            return cls(float("nan"), float("nan"), float("nan"))
        return cls(float(array.mean()), float(array.std()), float(np.median(array)))


@dataclass(frozen=True)
class CoordSummary:
    """Accuracy of the poses and scene coordinates of a section.

    Attributes:
        accuracy_percent: by "30m10deg" and so on, percent of all images.
        rotation_deg, translation_m: over the images with a pose; their medians count an image without pose as infinite.
        coord_error_m: over all labelled cells of all images.
        images, failures: number of images, and of those without a pose.
    """

    accuracy_percent: dict[str, float]
    rotation_deg: Spread
    translation_m: Spread
    coord_error_m: Spread
    images: int
    failures: int


def coord_summary(
    translation_m_N: Sequence[float], rotation_deg_N: Sequence[float], coord_error_m_M: np.ndarray
) -> CoordSummary:
    """Summarises pose errors, infinite where no pose was found, and distances of predicted from true coordinates."""
    t_N, r_N = np.asarray(translation_m_N, dtype=np.float64), np.asarray(rotation_deg_N, dtype=np.float64)
    if t_N.size == 0 or t_N.shape != r_N.shape:
        raise ValueError(f"cannot summarise {t_N.size} translation and {r_N.size} rotation errors")
    accuracy = {
        f"{metres}m{degrees}deg": float(100 * np.mean((t_N < metres) & (r_N < degrees)))
        for metres, degrees in ACCURACY_THRESHOLDS
    }
    found_N = np.isfinite(t_N)
    return CoordSummary(
        accuracy, _pose_spread(r_N, found_N), _pose_spread(t_N, found_N), Spread.of(coord_error_m_M),
        t_N.size, int((~found_N).sum()),
    )  # fmt: skip


def _pose_spread(errors_N: np.ndarray, found_N: np.ndarray) -> Spread:
    solved = Spread.of(errors_N[found_N])
    # The two middle values, not np.median: the mean of a finite and an infinite one must be infinite, not NaN.
    ordered = np.sort(np.where(found_N, errors_N, np.inf))
    median = 0.5 * ordered[(len(ordered) - 1) // 2] + 0.5 * ordered[len(ordered) // 2]
    return Spread(solved.mean, solved.std, float(median))


@dataclass(frozen=True)
class DepthSums:
    """Sums over the labelled cells of one image."""

    relative: float
    squared: float
    cells: int


def depth_sums(depth_hw: np.ndarray, true_hw: np.ndarray, valid_hw: np.ndarray) -> DepthSums:
    """Sums of |d - d*| / d* and (d - d*)^2 where the label is valid."""
    true_N = true_hw[valid_hw].astype(np.float64)
    error_N = np.abs(depth_hw[valid_hw] - true_N)
    return DepthSums(float((error_N / np.maximum(true_N, 1e-6)).sum()), float((error_N**2).sum()), true_N.size)


def depth_summary(sums_N: Sequence[DepthSums]) -> dict[str, Spread]:
    """`absolute_relative_percent` and `rms_m` over batches of 4 consecutive images."""
    relative, rms = [], []
    for start in range(0, len(sums_N), FIGURE_BATCH):
        batch = sums_N[start : start + FIGURE_BATCH]
        cells = sum(s.cells for s in batch)
        if cells:
            relative.append(100 * sum(s.relative for s in batch) / cells)
            rms.append(np.sqrt(sum(s.squared for s in batch) / cells))
    return {"absolute_relative_percent": Spread.of(relative), "rms_m": Spread.of(rms)}


def normal_summary(angles_deg_N: Sequence[np.ndarray]) -> dict[str, Spread]:
    """Angles between normals: `angle_deg` over all labelled cells, `batch_angle_deg` over the means of batches of 4 images.

    Args:
        angles_deg_N: the angles of each image's labelled cells.
    """
    batches = [
        np.concatenate(list(angles_deg_N[start : start + FIGURE_BATCH]))
        for start in range(0, len(angles_deg_N), FIGURE_BATCH)
    ]
    means = [Spread.of(angles_deg).mean for angles_deg in batches if angles_deg.size]
    return {"angle_deg": Spread.of(np.concatenate(list(angles_deg_N))), "batch_angle_deg": Spread.of(means)}


@dataclass(frozen=True)
class SemanticsScores:
    """Scores of one image, percent."""

    pixel_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float


def semantics_scores(predicted_HW: np.ndarray, true_HW: np.ndarray, num_classes: int) -> SemanticsScores:
    """Pixel accuracy and intersection over union.

    The mean runs over the classes that occur in prediction or truth; the weights are the classes' true frequencies.
    """
    pair_N = true_HW.astype(np.int64).ravel() * num_classes + predicted_HW.astype(np.int64).ravel()
    confusion = np.bincount(pair_N, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.float64)
    hit, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    union = true + predicted - hit
    iou = np.divide(hit, union, out=np.zeros(num_classes), where=union > 0)
    total = confusion.sum()
    return SemanticsScores(
        float(100 * hit.sum() / total), float(100 * iou[union > 0].mean()), float(100 * (true * iou).sum() / total)
    )


def semantics_summary(scores_N: Sequence[SemanticsScores]) -> dict[str, Spread]:
    """Each score's spread over the images."""
    return {name: Spread.of([getattr(s, name) for s in scores_N]) for name in SemanticsScores.__annotations__}
