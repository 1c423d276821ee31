"""Evaluation of the depth, normal and semantics tasks: predict, compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from evaluation.measures import DenseResult
from evaluation.metrics import Spread
from evaluation.predict import Prediction
from evaluation.task_table import EVALUATIONS, DenseMeasure

__all__ = ["DenseFigures", "DenseResult", "dense_results"]


def _measure(task: str) -> DenseMeasure:
    measure = EVALUATIONS[task].measure
    assert measure is not None, f"the task {task} predicts poses"
    return measure


def dense_results(predictions: Iterable[Prediction], task: str) -> Iterator[DenseResult]:
    """Decodes the network's channels on the labels' grid, image by image."""
    measure = _measure(task)
    for prediction in predictions:
        batch = prediction.batch
        decoded = measure.decode(prediction.prediction_BChw, prediction.at_labels).cpu().numpy()
        truth = measure.truth(batch.labels_BChw).cpu().numpy()
        sigma_B1hw = None if prediction.sigma_B1hw is None else prediction.at_labels(prediction.sigma_B1hw).cpu().numpy()
        for index, stem in enumerate(batch.stems):
            yield DenseResult(
                stem=stem,
                image_HW3=prediction.images_BHW3[index],
                prediction=decoded[index],
                truth=truth[index],
                valid_hw=batch.valid_B1hw[index, 0].cpu().numpy(),
                sigma_hw=None if sigma_B1hw is None else sigma_B1hw[index, 0],
                network=prediction.network,
            )


class DenseFigures:
    """Gathers the figures of a section, image by image; keeps no maps but the normals' angles."""

    positions_N3 = None  # no poses

    def __init__(self, task: str) -> None:
        self.rows: list[dict[str, object]] = []
        self._measure = _measure(task)
        self._of_images: list[Any] = []

    def add(self, result: DenseResult) -> None:
        figures, row = self._measure.of_image(result)
        section, _, stem = result.stem.rpartition("/")
        self._of_images.append(figures)
        self.rows.append({"section": section, "stem": stem, **row})

    def summary(self) -> dict[str, Spread]:
        return self._measure.of_section(self._of_images)
