"""Evaluation of the depth, normal and semantics tasks: predict, compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.metrics import (
    DepthSums,
    SemanticsScores,
    Spread,
    depth_summary,
    depth_sums,
    semantics_scores,
    semantics_summary,
)
from evaluation.predict import Prediction
from evaluation.reports import replacing
from geometry.angles import angle_between_deg
from loss.normal import normal_from_logits
from tasks import TASKS


@dataclass(frozen=True)
class DenseResult:
    """What one image gave, in the units of the labels.

    Attributes:
        stem: `section/stem`.
        image_HW3: uint8 RGB as the network saw it, before normalisation.
        prediction, truth: depth [h, w] in metres, unit normals [3, h, w], or class indices [H, W].
        valid_hw: where the truth means something.
        sigma_hw: predicted standard deviation or None.
    """

    stem: str
    image_HW3: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray
    valid_hw: np.ndarray
    sigma_hw: np.ndarray | None


def _depth_map(prediction_B1hw: torch.Tensor) -> torch.Tensor:
    return prediction_B1hw[:, 0]


def _class_map(logits_BCHW: torch.Tensor) -> torch.Tensor:
    return logits_BCHW.argmax(1)


_DECODERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "depth": _depth_map,
    "normal": normal_from_logits,
    "semantics": _class_map,
}


def dense_results(predictions: Iterable[Prediction], task: str) -> Iterator[DenseResult]:
    """Decodes the network's channels, image by image."""
    for prediction in predictions:
        batch = prediction.batch
        decoded = _DECODERS[task](prediction.prediction_BChw).cpu().numpy()
        labels = batch.labels_BChw.cpu().numpy()
        for index, stem in enumerate(batch.stems):
            yield DenseResult(
                stem=stem,
                image_HW3=prediction.images_BHW3[index],
                prediction=decoded[index],
                truth=labels[index, 0] if task == "depth" else labels[index],
                valid_hw=batch.valid_B1hw[index, 0].cpu().numpy(),
                sigma_hw=None if prediction.sigma_B1hw is None else prediction.sigma_B1hw[index, 0].cpu().numpy(),
            )


def _angles_deg(result: DenseResult) -> np.ndarray:
    """Angles between predicted and true normals on the labelled cells."""
    pair = (torch.from_numpy(v[:, result.valid_hw])[None].double() for v in (result.prediction, result.truth))
    return angle_between_deg(*pair)[0].numpy()


def _depth_row(result: DenseResult) -> tuple[DepthSums, dict[str, object]]:
    sums = depth_sums(result.prediction, result.truth, result.valid_hw)
    cells = max(sums.cells, 1)
    row = {
        "absolute_relative_percent": f"{100 * sums.relative / cells:.4f}",
        "rms_m": f"{(sums.squared / cells) ** 0.5:.4f}",
        "labelled_cells": sums.cells,
    }
    return sums, row


def _normal_row(result: DenseResult) -> tuple[np.ndarray, dict[str, object]]:
    angle_deg = _angles_deg(result).astype(np.float32)
    spread = Spread.of(angle_deg)
    row = {
        "angle_mean_deg": f"{spread.mean:.4f}",
        "angle_median_deg": f"{spread.median:.4f}",
        "labelled_cells": angle_deg.size,
    }
    return angle_deg, row


def _semantics_row(result: DenseResult) -> tuple[SemanticsScores, dict[str, object]]:
    scores = semantics_scores(result.prediction, result.truth, TASKS["semantics"].channels)
    return scores, {name: f"{value:.4f}" for name, value in vars(scores).items()}


def _normal_summary(angles_deg: list[np.ndarray]) -> dict[str, Spread]:
    return {"angle_deg": Spread.of(np.concatenate(angles_deg))}


@dataclass(frozen=True)
class _Figures:
    """How a task measures one image and sums up many."""

    of_image: Callable[[DenseResult], tuple[Any, dict[str, object]]]
    of_section: Callable[[list[Any]], dict[str, Spread]]


_FIGURES = {
    "depth": _Figures(_depth_row, depth_summary),
    "normal": _Figures(_normal_row, _normal_summary),
    "semantics": _Figures(_semantics_row, semantics_summary),
}


class DenseFigures:
    """Gathers the figures of a section, image by image; keeps no maps but the normals' angles."""

    def __init__(self, task: str) -> None:
        self.rows: list[dict[str, object]] = []
        self._task = _FIGURES[task]
        self._of_images: list[Any] = []

    def add(self, result: DenseResult) -> None:
        figures, row = self._task.of_image(result)
        section, _, stem = result.stem.rpartition("/")
        self._of_images.append(figures)
        self.rows.append({"section": section, "stem": stem, **row})

    def summary(self) -> dict[str, Spread]:
        return self._task.of_section(self._of_images)


def save_prediction(result: DenseResult, task: str, path: Path) -> None:
    """Writes an .npz: <task>_pred, <task>_gt, valid and, with an uncertainty, <task>_unc."""
    arrays = {f"{task}_pred": result.prediction, f"{task}_gt": result.truth, "valid": result.valid_hw}
    if result.sigma_hw is not None:
        arrays[f"{task}_unc"] = result.sigma_hw
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
