"""The evaluation's one table of what a task is: decoding, figures, report, picture, and what ranks its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evaluation import measures, pictures, wording
from evaluation.metrics import Spread, depth_summary, normal_summary, semantics_summary

_NUMBER = r"(nan|inf|-?\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class Figure:
    """A figure of a report: where it stands in the JSON twin, and the line of the text that holds it."""

    title: str
    unit: str
    summary_path: tuple[str, str]
    pattern: str


@dataclass(frozen=True)
class DenseMeasure:
    """How a map is made from the network's output, and measured.

    Attributes:
        decode: (network output, resampling to the labels' grid) -> what the labels hold, [B, ...].
        truth: labels_BChw -> the same of the labels.
        of_image: result -> (its figures, CSV columns).
        of_section: figures of the images -> summary.
    """

    decode: Callable[..., Any]
    truth: Callable[[Any], Any]
    of_image: Callable[[measures.DenseResult], tuple[Any, dict[str, object]]]
    of_section: Callable[[list[Any]], dict[str, Spread]]


@dataclass(frozen=True)
class TaskEvaluation:
    """What distinguishes one task from another in evaluation.

    Attributes:
        measure: None for coord, whose predictions become poses (see `evaluation.coord`).
        report: summary -> published text.
        draw: (axes, result) -> None.
        figures: what an overall table lists; the first ranks checkpoints.
        tie_break: decides between equals.
        descending: whether a larger first figure is better.
    """

    measure: DenseMeasure | None
    report: Callable[[Any], str]
    draw: Callable[[Any, Any], None]
    figures: tuple[Figure, ...]
    tie_break: Figure | None = None
    descending: bool = False


def _accuracy(name: str) -> Figure:
    return Figure(name, "%", ("accuracy_percent", name), rf"^{name}: {_NUMBER}%$")


def _median_score(title: str, name: str) -> Figure:
    return Figure(f"median {title}", "%", (name, "median"), rf"^{title}, .* median: {_NUMBER}$")


EVALUATIONS: dict[str, TaskEvaluation] = {
    "coord": TaskEvaluation(
        None,
        wording.coord_report,
        pictures.draw_coord,
        (
            Figure("median position error", "m", ("translation_m", "median"), rf"^Median Error: .* {_NUMBER} m$"),
            Figure("median rotation error", "deg", ("rotation_deg", "median"), rf"^Median Error: {_NUMBER} deg"),
            _accuracy("5m5deg"),
            _accuracy("10m7deg"),
            _accuracy("20m10deg"),
        ),
        # Early checkpoints may all have no pose for most images; their coordinates still differ.
        Figure("median coordinate error", "m", ("coord_error_m", "median"), rf"^Coordinate reg.* median {_NUMBER}$"),
    ),
    "depth": TaskEvaluation(
        DenseMeasure(measures.decode_depth, measures.depth_truth, measures.measure_depth, depth_summary),
        wording.depth_report,
        pictures.draw_depth,
        (
            Figure("median RMS error", "m", ("rms_m", "median"), rf"^RMS error, .* median: {_NUMBER}m$"),
            Figure(
                "median relative error",
                "%",
                ("absolute_relative_percent", "median"),
                rf"^absolute relative .* median: {_NUMBER}%$",
            ),
        ),
    ),
    "normal": TaskEvaluation(
        DenseMeasure(measures.decode_normal, lambda labels_B3hw: labels_B3hw, measures.measure_normal, normal_summary),
        wording.normal_report,
        pictures.draw_normal,
        (Figure("median angular error", "deg", ("batch_angle_deg", "median"), rf"^angular pred.* median: {_NUMBER} deg$"),),
    ),
    "semantics": TaskEvaluation(
        DenseMeasure(
            measures.decode_semantics, lambda labels_BHW: labels_BHW, measures.measure_semantics, semantics_summary
        ),
        wording.semantics_report,
        pictures.draw_semantics,
        (
            _median_score("Mean IoU", "mean_iou"),
            _median_score("Pixel accuracy", "pixel_accuracy"),
            _median_score("Frequency weighted IoU", "frequency_weighted_iou"),
        ),
        descending=True,
    ),
}
