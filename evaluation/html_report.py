"""The report of an evaluation: one HTML file with a panel per image, the map, the distributions and the worst ten."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from datagen.render import Renderer
from datagen.scene import GeoScene
from evaluation.coord import CoordResult
from evaluation.pictures import ERROR_COLOURS, coordinate_colours, coordinate_range
from evaluation.trust import ImageRecord, Interval, TrustFigures, figures
from exports.report import MOST_PANELS, Background, Panel, Position, Report, orthophoto, write_report
from localization.calibration import Reliability

_WORST = 10
_INLIER_COLOUR, _OTHER_COLOUR = (70, 170, 90), (60, 60, 60)
_GROUND_STEP_PX = 700


def write_html_report(
    results: Sequence[CoordResult],
    gathered: TrustFigures,
    refined: TrustFigures,
    threshold_px: float,
    title: str,
    path: Path,
    scene: GeoScene | None,
) -> None:
    """Writes the report.

    Args:
        gathered, refined: records of the results; the refined poses are shown where the map was asked.
        threshold_px: a cell is an inlier below this reprojection error.
        scene: the geodata; None: no renders, and the map shows what the images' labels know of the ground.
    """
    shown_figures = refined if refined.records else gathered
    records = shown_figures.records
    renderer = None if scene is None else Renderer(scene)
    order = np.argsort([-record.position_error_m for record in records], kind="stable")
    worst = [int(index) for index in order[:_WORST]]
    shown = sorted({*worst, *range(min(len(results), MOST_PANELS - _WORST))})
    limits = _limits(results)
    panels = [_panel(results[i], records[i], threshold_px, renderer, limits) for i in shown]
    positions = [_position(record) for record in records]
    note = "Errors are distances of camera centres and angles between axes."
    if scene is None:
        note += " Without --surface and --ortho there are no renders."
    report = Report(
        title, _figures(gathered.records, refined.records), panels, positions,
        orthophoto(scene, positions) if scene is not None else _ground(results),
        {
            "position error": ("m", [record.position_error_m for record in records]),
            "rotation error": ("deg", [record.rotation_error_deg for record in records]),
        },
        _tables(shown_figures.reliability), [records[index].stem for index in worst], note,
    )  # fmt: skip
    write_report(report, path)


def _figures(coarse: Sequence[ImageRecord], refined: Sequence[ImageRecord]) -> dict[str, str]:
    if refined:
        before = {f"{name}, before refinement": value for name, value in _figures(coarse, ()).items() if "median" in name}
        return _figures(refined, ()) | before
    found = figures(coarse)
    shown = {
        "images": str(found["images"]),
        "median position error": _interval(found["position_error_median_m"], "m"),
        "median rotation error": _interval(found["rotation_error_median_deg"], "deg"),
        "without a pose": _interval(found["failures"], "%", 100),
    }
    return shown | {f"within {name}": _interval(share, "%", 100) for name, share in found["within"].items()}


def _interval(interval: Interval, unit: str, factor: float = 1.0) -> str:
    if interval.low is None:
        return f"{factor * interval.value:.3g} {unit}"
    return f"{factor * interval.value:.3g} {unit} (95 %: {factor * interval.low:.3g} to {factor * interval.high:.3g})"


def _tables(held: Reliability | None) -> dict[str, list[tuple[str, ...]]]:
    """Reliability of the confidence, where there is a calibration."""
    if held is None:
        return {}
    rows = [("photos", "mean probability", "share right")]
    rows += [(str(count), f"{mean:.2f}", f"{right:.2f}") for count, mean, right in held.bins]
    verdicts = [("verdict", "photos", "share right")]
    verdicts += [(name, str(count), f"{right:.2f}") for name, (count, right) in held.verdicts.items()]
    area = "all alike" if held.auroc is None else f"{held.auroc:.3f}"
    return {f"Reliability (AUROC {area}, Brier {held.brier:.3f})": rows, "Verdicts": verdicts}


def _limits(results: Sequence[CoordResult]) -> tuple[np.ndarray, np.ndarray, float]:
    low_3, high_3 = coordinate_range(np.concatenate([r.coord_true_3hw[:, r.valid_hw] for r in results], 1))
    errors = np.concatenate([r.error_hw[r.valid_hw] for r in results])
    return low_3, high_3, float(np.percentile(errors, 95)) if errors.size else 1.0


def _panel(result: CoordResult, record: ImageRecord, threshold_px: float, renderer: Renderer | None, limits) -> Panel:
    low_3, high_3, worst_m = limits
    K_33 = result.K_33
    everywhere = np.ones_like(result.valid_hw)
    maps = {
        "predicted coordinates": _bytes(coordinate_colours(result.coord_pred_3hw, everywhere, low_3, high_3)),
        f"error, up to {worst_m:.2g} m": _heat(result.error_hw, worst_m),
    }
    if result.sigma_hw is not None:
        maps[f"predicted sigma, up to {worst_m:.2g} m"] = _heat(result.sigma_hw, worst_m)
    H, W = result.image_HW3.shape[:2]
    render_HW3 = None
    if record.success:
        inlier_hw = reprojection_error(result.coord_pred_3hw, record.world_from_cam_44, K_33, H, W) < threshold_px
        maps["inliers"] = np.where(inlier_hw[..., None], _INLIER_COLOUR, _OTHER_COLOUR).astype(np.uint8)
        if renderer is not None:
            render_HW3 = renderer.render(record.world_from_cam_44, K_33, W, H).rgb_HW3
    verdict = "failed" if not record.success else "" if record.judgement is None else record.judgement.verdict
    return Panel(record.stem, result.image_HW3, render_HW3, maps, _facts(record), verdict)


def _facts(record: ImageRecord) -> dict[str, str]:
    facts = {"pose": "none"}
    if record.success:
        facts = {
            "pose": record.stage,
            "position error": f"{record.position_error_m:.2f} m",
            "rotation error": f"{record.rotation_error_deg:.2f} deg",
        }
    values = {
        "inliers": None if record.inlier_share is None else f"{100 * record.inlier_share:.0f} %",
        "predicted sigma": None if record.sigma_m is None else f"{record.sigma_m:.2f} m (median)",
        "solver's confidence": None if record.confidence is None else f"{record.confidence:.2f}",
        "distance": f"{record.distance_m:.0f} m",
        "pitch": f"{record.pitch_deg:.0f} deg",
        "shows": record.surface,
    }
    if record.judgement is not None:
        values |= {f"P(error < {b:g} m)": f"{p:.2f}" for b, p in record.judgement.probabilities.items()}
    return facts | {name: value for name, value in values.items() if value is not None}


def reprojection_error(
    coords_3hw: np.ndarray, world_from_cam_44: np.ndarray, K_33: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Distance [h, w] in px between projected coordinates and the centres of their cells; infinite behind the camera."""
    _, h, w = coords_3hw.shape
    offset_3N = coords_3hw.reshape(3, -1).astype(np.float64) - world_from_cam_44[:3, 3:]
    x, y, z = world_from_cam_44[:3, :3].T @ offset_3N
    depth = np.maximum(z, 1e-6)
    u, v = K_33[0, 0] * x / depth + K_33[0, 2], K_33[1, 1] * y / depth + K_33[1, 2]
    # Cells are all of one size, and the last ones may reach beyond the image.
    stride = -(-height // h) if h else 1
    columns, rows = np.meshgrid((np.arange(w) + 0.5) * stride, (np.arange(h) + 0.5) * stride)
    return np.where(z > 0, np.hypot(u - columns.ravel(), v - rows.ravel()), np.inf).reshape(h, w)


def _position(record: ImageRecord) -> Position:
    estimated_2 = record.world_from_cam_44[:2, 3] if record.success else None
    verdict = "" if record.judgement is None else record.judgement.verdict
    return Position(record.stem, estimated_2, record.world_from_cam_true_44[:2, 3], verdict)


def _ground(results: Sequence[CoordResult]) -> Background | None:
    """What the images' labels know of the ground: their colours at the true coordinates, seen from above."""
    points, colours = [], []
    for result in results:
        H, W = result.image_HW3.shape[:2]
        h, w = result.valid_hw.shape
        rows, columns = ((np.arange(n) + 0.5) * size / n for n, size in ((h, H), (w, W)))
        points.append(result.coord_true_3hw[:2, result.valid_hw])
        colours.append(result.image_HW3[np.ix_(rows.astype(int), columns.astype(int))][result.valid_hw])
    points_2M, colours_M3 = np.concatenate(points, 1), np.concatenate(colours)
    if points_2M.shape[1] < 2:
        return None
    (left, bottom), (right, top) = (np.quantile(points_2M, share, axis=1) for share in (0.01, 0.99))
    cell_m = max(float(max(right - left, top - bottom)) / np.sqrt(min(points_2M.shape[1], _GROUND_STEP_PX**2)) * 2, 1e-3)
    width, height = (max(1, int(np.ceil(size / cell_m))) for size in (right - left, top - bottom))
    picture_HW3 = np.full((height, width, 3), 200, np.uint8)
    column, row = ((points_2M[0] - left) / cell_m).astype(int), ((top - points_2M[1]) / cell_m).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    picture_HW3[row[inside], column[inside]] = colours_M3[inside]
    return Background(picture_HW3, (float(left), float(top - height * cell_m), float(left + width * cell_m), float(top)))


def _bytes(colours_hw3: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(colours_hw3, 0, 1)).astype(np.uint8)


def _heat(values_hw: np.ndarray, highest: float) -> np.ndarray:
    """A map of values from 0 to `highest` as colours; grey where there is none."""
    shown_hw3 = matplotlib.colormaps[ERROR_COLOURS](np.nan_to_num(values_hw) / max(highest, 1e-9))[..., :3]
    return _bytes(np.where(np.isfinite(values_hw)[..., None], shown_hw3, 0.5))
