"""Pictures of predictions: maps as colours, one figure per image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from evaluation.coord import CoordResult
from evaluation.measures import DenseResult
from records.files import replacing
from tasks import CLASS_NAMES

_NO_LABEL_GREY = 0.25
ERROR_COLOURS = "viridis"


def figure(width_in: float, height_in: float):
    """A figure that needs no display and leaves no global state behind."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save_figure(made, path: Path, *, dpi: int = 100) -> None:
    """Writes a picture of the kind that its name ends in; it appears complete or not at all."""
    with replacing(path) as temporary:
        made.savefig(temporary, format=path.suffix.removeprefix("."), dpi=dpi)


def coordinate_colours(coords_3hw: np.ndarray, valid_hw: np.ndarray, low_3: np.ndarray, high_3: np.ndarray) -> np.ndarray:
    """Scene coordinates as RGB [h, w, 3]: x, y, z from `low_3` to `high_3`; grey where not valid."""
    span_3 = np.maximum(high_3 - low_3, 1e-6)
    colours_hw3 = np.clip((np.moveaxis(coords_3hw, 0, -1) - low_3) / span_3, 0, 1)
    return np.where(valid_hw[..., None], colours_hw3, _NO_LABEL_GREY)


def coordinate_range(coords_3M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1st and 99th percentile per axis; (0, 1) where there are no coordinates."""
    if coords_3M.shape[1] == 0:
        return np.zeros(3), np.ones(3)
    low_3, high_3 = np.percentile(coords_3M, (1, 99), axis=1)
    return low_3, high_3


def _show_map(axes, values_hw: np.ndarray, title: str, *, label: str, limits: tuple[float, float] | None = None) -> None:
    low, high = limits if limits is not None else (np.nanmin(values_hw), np.nanmax(values_hw))
    image = axes.imshow(values_hw, cmap=ERROR_COLOURS, vmin=low, vmax=high)
    axes.set_title(title)
    axes.figure.colorbar(image, ax=axes, label=label, shrink=0.7)


def draw_coord(axes, result: CoordResult) -> None:
    low_3, high_3 = coordinate_range(result.coord_true_3hw[:, result.valid_hw])
    everywhere = np.ones_like(result.valid_hw)
    axes[1].imshow(coordinate_colours(result.coord_true_3hw, result.valid_hw, low_3, high_3))
    axes[1].set_title("true coordinates")
    axes[2].imshow(coordinate_colours(result.coord_pred_3hw, everywhere, low_3, high_3))
    axes[2].set_title(f"predicted; pose off by {result.translation_m:.2f} m, {result.rotation_deg:.1f} deg")
    if result.valid_hw.any():
        _show_map(axes[3], result.error_hw, "distance", label="m")


def draw_depth(axes, result: DenseResult) -> None:
    truth_hw = np.where(result.valid_hw, result.truth, np.nan)
    if not result.valid_hw.any():
        return
    limits = float(np.nanmin(truth_hw)), float(np.nanmax(truth_hw))
    _show_map(axes[1], truth_hw, "true depth", label="m", limits=limits)
    _show_map(axes[2], result.prediction, "predicted depth", label="m", limits=limits)
    _show_map(axes[3], np.abs(result.prediction - truth_hw), "difference", label="m")


def draw_normal(axes, result: DenseResult) -> None:
    low_3, high_3 = -np.ones(3), np.ones(3)
    everywhere = np.ones_like(result.valid_hw)
    axes[1].imshow(coordinate_colours(result.truth, result.valid_hw, low_3, high_3))
    axes[1].set_title("true normals")
    axes[2].imshow(coordinate_colours(result.prediction, everywhere, low_3, high_3))
    axes[2].set_title("predicted normals")
    cosine_hw = np.clip((result.prediction * result.truth).sum(0), -1, 1)
    angle_hw = np.where(result.valid_hw, np.degrees(np.arccos(cosine_hw)), np.nan)
    if result.valid_hw.any():
        _show_map(axes[3], angle_hw, "angle", label="deg")


def draw_semantics(axes, result: DenseResult) -> None:
    colours = matplotlib.colormaps["tab10"].colors[: len(CLASS_NAMES)]
    for axis, classes_HW, title in ((axes[1], result.truth, "true classes"), (axes[2], result.prediction, "predicted")):
        axis.imshow(np.asarray(colours)[classes_HW])
        axis.set_title(title)
    for colour, name in zip(colours, CLASS_NAMES, strict=True):
        axes[1].plot([], [], "s", color=colour, label=name)
    axes[1].legend(fontsize=6, loc="lower right")
    axes[3].imshow(result.truth != result.prediction, cmap="gray")
    axes[3].set_title("wrong pixels")


def draw_prediction(result: CoordResult | DenseResult, draw: Callable[[Any, Any], None], path: Path) -> None:
    """Writes a PNG: image, truth, prediction, error and, where predicted, uncertainty.

    Args:
        draw: the task's own, such as `draw_coord`: fills the second to fourth panel.
    """
    panels = 4 + (result.sigma_hw is not None)
    made = figure(4.2 * panels, 3.2)
    axes = made.subplots(1, panels)
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(result.image_HW3)
    axes[0].set_title(result.stem)
    draw(axes, result)
    if result.sigma_hw is not None:
        _show_map(axes[4], result.sigma_hw, "predicted standard deviation", label="")
    save_figure(made, path)
