"""One picture of a section: some images with their coordinates and errors, and the camera track from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.coord import CoordResult
from evaluation.metrics import CoordSummary
from evaluation.pictures import ERROR_COLOURS, coordinate_colours, coordinate_range, figure, save_figure
from evaluation.wording import coord_report

_MAX_ROWS = 4
_GROUND_POINTS = 60_000
# A scene whose thinnest direction is within this angle of z is drawn in x and y, north up.
_UPRIGHT_COSINE = np.cos(np.radians(30.0))


def choose_rows(results: Sequence[CoordResult], count: int = _MAX_ROWS) -> list[CoordResult]:
    """Images to show: evenly spread from the best to the worst translation error."""
    ranked = sorted(results, key=lambda r: (r.translation_m, r.stem))
    picks = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    return [ranked[i] for i in picks]


def plan_axes(points_3M: np.ndarray) -> np.ndarray:
    """Axes [2, 3] of the drawing plane: x and y, or the scene's two widest directions when z is not its vertical."""
    if points_3M.shape[1] < 3:
        return np.eye(3)[:2]
    _, vectors_33 = np.linalg.eigh(np.cov(points_3M))  # columns, thinnest direction first
    if abs(vectors_33[2, 0]) >= _UPRIGHT_COSINE:
        return np.eye(3)[:2]
    return vectors_33[:, [2, 1]].T


def draw_overview(results: Sequence[CoordResult], summary: CoordSummary, title: str, path: Path) -> None:
    """Writes the picture as PNG, with its folder; complete or not at all.

    Args:
        results: all images of the section.
        title: of the picture.
    """
    rows = choose_rows(results)
    made = figure(20, 2.1 * max(len(rows), 4) + 1.0)
    left, right = made.subfigures(1, 2, width_ratios=(3, 2))
    made.suptitle(title)
    _draw_rows(left, rows)
    plan, text = right.subplots(2, 1, height_ratios=(4, 1))
    _draw_track(plan, results)
    text.set_axis_off()
    text.text(0.0, 1.0, coord_report(summary), va="top", family="monospace", fontsize=9, transform=text.transAxes)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(made, path)


def _draw_rows(part, rows: Sequence[CoordResult]) -> None:
    low_3, high_3 = coordinate_range(np.concatenate([r.coord_true_3hw[:, r.valid_hw] for r in rows], 1))
    errors = np.concatenate([r.error_hw[r.valid_hw] for r in rows])
    worst_m = float(np.percentile(errors, 95)) if errors.size else 1.0
    axes = part.subplots(len(rows), 4, squeeze=False)
    for axis, name in zip(axes[0], ("image", "true coordinates", "predicted coordinates", "error"), strict=True):
        axis.set_title(name)
    for (image, true, predicted, error), result in zip(axes, rows, strict=True):
        image.imshow(result.image_HW3)
        true.imshow(coordinate_colours(result.coord_true_3hw, result.valid_hw, low_3, high_3))
        everywhere = np.ones_like(result.valid_hw)
        predicted.imshow(coordinate_colours(result.coord_pred_3hw, everywhere, low_3, high_3))
        shown = error.imshow(result.error_hw, cmap=ERROR_COLOURS, vmin=0, vmax=worst_m)
        image.set_ylabel(f"{result.stem.rpartition('/')[2]}\n{_pose_error_text(result)}", fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    part.colorbar(shown, ax=axes[:, 3], label="distance to the true coordinate, m", shrink=0.6)
    part.supxlabel(
        "colours: x, y, z from {} to {} m".format(*(tuple(round(float(v)) for v in bound) for bound in (low_3, high_3))),
        fontsize=8,
    )


def _pose_error_text(result: CoordResult) -> str:
    if not result.pose.success:
        return "no pose"
    return f"pose off by {result.translation_m:.2f} m, {result.rotation_deg:.1f} deg"


def _draw_track(axis, results: Sequence[CoordResult]) -> None:
    """Ground as the test images colour it, true track, and the estimates joined to their true positions."""
    points_3M, colours_M3 = _ground(results)
    axes_23 = plan_axes(points_3M)
    ground_2M = axes_23 @ points_3M
    true_2N = axes_23 @ np.stack([r.pose_true_44[:3, 3] for r in results], 1)
    estimated_2N = axes_23 @ np.stack([r.position_3 for r in results], 1)

    marker_area = float(np.clip(2 * _GROUND_POINTS / max(ground_2M.shape[1], 1), 2, 30))
    axis.scatter(*ground_2M, c=colours_M3, s=marker_area, marker="s", linewidths=0, alpha=0.6, rasterized=True)
    for true_2, estimated_2 in zip(true_2N.T, estimated_2N.T, strict=True):
        axis.plot(*np.stack((true_2, estimated_2), 1), "-", color="red", linewidth=0.8)
    axis.plot(*true_2N, "o", color="white", markeredgecolor="black", markersize=5, label="true position")
    axis.plot(*estimated_2N, "x", color="red", markersize=5, label="estimated position")
    # Gross failures would shrink everything else to a dot: they leave the frame and are counted instead.
    inside = np.concatenate((ground_2M, true_2N), 1)
    low_2, high_2 = inside.min(1), inside.max(1)
    margin = 0.1 * float((high_2 - low_2).max()) + 1.0
    outside = int(((low_2 - margin > estimated_2N.T) | (high_2 + margin < estimated_2N.T)).any(1).sum())
    failures = sum(not r.pose.success for r in results)
    axis.set_xlim(low_2[0] - margin, high_2[0] + margin)
    axis.set_ylim(low_2[1] - margin, high_2[1] + margin)
    axis.set_aspect("equal")
    names = ("x, m", "y, m") if np.array_equal(axes_23, np.eye(3)[:2]) else ("m", "m")
    axis.set_xlabel(names[0])
    axis.set_ylabel(names[1])
    axis.set_title(f"from above; {outside} estimates outside the frame, {failures} images without a pose")
    axis.legend(loc="upper right")


def _ground(results: Sequence[CoordResult]) -> tuple[np.ndarray, np.ndarray]:
    """True scene coordinates [3, M] and the image colours [M, 3] at their cells."""
    points, colours = [], []
    for result in results:
        H, W = result.image_HW3.shape[:2]
        h, w = result.valid_hw.shape
        rows = ((np.arange(h) + 0.5) * H / h).astype(int)
        columns = ((np.arange(w) + 0.5) * W / w).astype(int)
        points.append(result.coord_true_3hw[:, result.valid_hw])
        colours.append(result.image_HW3[np.ix_(rows, columns)][result.valid_hw] / 255.0)
    points_3M, colours_M3 = np.concatenate(points, 1), np.concatenate(colours)
    step = max(1, points_3M.shape[1] // _GROUND_POINTS)
    return points_3M[:, ::step], colours_M3[::step]
