"""Evaluation of the coord task: predict, solve, compare."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from evaluation.metrics import CoordSummary, coord_summary
from evaluation.predict import Prediction
from evaluation.refined import RefinedPose, RefinedSummary, refined_summary
from geometry.grid import NODATA
from geometry.poses import pose_error
from localization.solving import EstimatedPose, SolverOptions, solve_poses

# How far the solver may fall behind the network: memory for that many predicted batches.
_BATCHES_WAITING = 2


@dataclass(frozen=True)
class CoordResult:
    """What one image gave.

    Attributes:
        stem: `section/stem`.
        image_HW3: uint8 RGB as the network saw it, before normalisation.
        coord_pred_3hw, coord_true_3hw: metres, on the labels' grid; the latter only where `valid_hw`.
        sigma_hw: predicted standard deviation, metres, or None.
        pose: the estimate; `pose_true_44` the truth, camera-to-world.
        translation_m, rotation_deg: pose errors, infinite without a pose.
        network: which of several networks it is of.
        K_33: intrinsics of `image_HW3`, pixels.
        refined: what the map made of the pose, where it was asked.
    """

    stem: str
    image_HW3: np.ndarray
    coord_pred_3hw: np.ndarray
    coord_true_3hw: np.ndarray
    valid_hw: np.ndarray
    sigma_hw: np.ndarray | None
    pose: EstimatedPose
    pose_true_44: np.ndarray
    translation_m: float
    rotation_deg: float
    network: int = 0
    K_33: np.ndarray | None = None
    refined: RefinedPose | None = None

    @property
    def error_hw(self) -> np.ndarray:
        """Distance of predicted from true coordinates, metres; NaN without label."""
        distance_hw = np.linalg.norm(self.coord_pred_3hw.astype(np.float64) - self.coord_true_3hw, axis=0)
        return np.where(self.valid_hw, distance_hw, np.nan)

    def row(self) -> dict[str, object]:
        """The image's line in the CSV."""
        error_M = self.error_hw[self.valid_hw]
        section, _, stem = self.stem.rpartition("/")
        return {
            "section": section,
            "stem": stem,
            "translation_error_m": f"{self.translation_m:.4f}",
            "rotation_error_deg": f"{self.rotation_deg:.4f}",
            "success": int(self.pose.success),
            "inliers": "" if self.pose.inliers is None else self.pose.inliers,
            "cells": self.valid_hw.size,
            "labelled_cells": error_M.size,
            "coord_error_mean_m": f"{error_M.mean():.4f}" if error_M.size else "",
            "coord_error_median_m": f"{np.median(error_M):.4f}" if error_M.size else "",
            **dict(zip(("x", "y", "z"), (f"{v:.4f}" for v in self.position_3), strict=True)),
            **dict(zip(("x_true", "y_true", "z_true"), (f"{v:.4f}" for v in self.pose_true_44[:3, 3]), strict=True)),
            **({} if self.refined is None else self._sureness() | self.refined.row()),
        }

    def _sureness(self) -> dict[str, object]:
        """What the coarse pose is believed to be worth: the counterpart of what a refined one says of itself."""
        figures = {"score": self.pose.score, "confidence": self.pose.confidence, "seconds": self.pose.seconds}
        figures["sigma_m"] = None if self.sigma_hw is None else float(np.median(self.sigma_hw))
        return {name: "" if value is None else f"{value:.4f}" for name, value in figures.items()}

    def arrays(self, task: str) -> dict[str, object]:
        """What --save_pred keeps. Unlabelled cells of coord_gt hold -1, as in the label files."""
        uncertainty = {} if self.sigma_hw is None else {f"{task}_unc": self.sigma_hw}
        return {
            f"{task}_pred": self.coord_pred_3hw,
            f"{task}_gt": np.where(self.valid_hw, self.coord_true_3hw, np.float32(NODATA)),
            "pose_pred": self.pose.world_from_cam_44,
            "pose_gt": self.pose_true_44,
            "pose_t_err": self.translation_m,
            "pose_r_err": self.rotation_deg,
            **uncertainty,
        }

    @property
    def position_3(self) -> np.ndarray:
        """Estimated camera centre, metres; NaN without a pose."""
        return self.pose.world_from_cam_44[:3, 3] if self.pose.success else np.full(3, np.nan)


def coord_results(predictions: Iterable[Prediction], options: SolverOptions) -> Iterator[CoordResult]:
    """Solves every image of the predictions on the network's own grid, in order, beside the network's next batches."""

    def solved(prediction: Prediction) -> list[EstimatedPose]:
        coords_B3hw, sigma_B1hw = prediction.prediction_BChw, prediction.sigma_B1hw
        return solve_poses(coords_B3hw, sigma_B1hw, prediction.batch.K_B33, options, stride=prediction.stride)

    waiting: deque[tuple[Prediction, Future[list[EstimatedPose]]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="solver") as solver:
        for prediction in predictions:
            waiting.append((prediction, solver.submit(solved, prediction)))
            if len(waiting) > _BATCHES_WAITING:
                yield from _results_of(*waiting.popleft())
        while waiting:
            yield from _results_of(*waiting.popleft())


def _results_of(prediction: Prediction, solution: Future[list[EstimatedPose]]) -> Iterator[CoordResult]:
    batch, poses = prediction.batch, solution.result()
    coords_B3hw = prediction.at_labels(prediction.prediction_BChw).cpu().numpy()
    sigma_B1hw = None if prediction.sigma_B1hw is None else prediction.at_labels(prediction.sigma_B1hw).cpu().numpy()
    for index, pose in enumerate(poses):
        true_44 = batch.world_from_cam_B44[index].double().cpu()
        errors = pose_error(torch.from_numpy(pose.world_from_cam_44), true_44)
        yield CoordResult(
            stem=batch.stems[index],
            image_HW3=prediction.images_BHW3[index],
            coord_pred_3hw=coords_B3hw[index],
            coord_true_3hw=batch.labels_BChw[index].cpu().numpy(),
            valid_hw=batch.valid_B1hw[index, 0].cpu().numpy(),
            sigma_hw=None if sigma_B1hw is None else sigma_B1hw[index, 0],
            pose=pose,
            pose_true_44=true_44.numpy(),
            translation_m=errors[0] if pose.success else float("inf"),
            rotation_deg=errors[1] if pose.success else float("inf"),
            network=prediction.network,
            K_33=batch.K_B33[index].double().cpu().numpy(),
        )


class CoordFigures:
    """Gathers the figures of a section, image by image; keeps no maps but the errors of the labelled cells."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []
        self._positions: list[np.ndarray] = []
        self._translation_m: list[float] = []
        self._rotation_deg: list[float] = []
        self._coord_error_m: list[np.ndarray] = []
        self._refined: list[RefinedPose] = []

    def add(self, result: CoordResult) -> None:
        self.rows.append(result.row())
        self._positions.append(result.position_3)
        self._translation_m.append(result.translation_m)
        self._rotation_deg.append(result.rotation_deg)
        self._coord_error_m.append(result.error_hw[result.valid_hw].astype(np.float32))
        if result.refined is not None:
            self._refined.append(result.refined)

    def summary(self) -> CoordSummary:
        return coord_summary(self._translation_m, self._rotation_deg, np.concatenate(self._coord_error_m))

    @property
    def refined(self) -> RefinedSummary | None:
        """What the map made of the poses; None where it was not asked."""
        return refined_summary(self._refined, self._translation_m) if self._refined else None

    @property
    def positions_N3(self) -> np.ndarray:
        """Estimated camera centres, metres; NaN without a pose."""
        return np.stack(self._positions)
