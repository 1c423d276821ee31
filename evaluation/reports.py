"""What an evaluation leaves beside the weights: the published text, and the same figures for machines."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import CoordSummary, Spread


def section_header(section: str) -> str:
    """The line that opens a section's block in a report."""
    return f"==================== Evaluation on section {section} ===================="


def coord_report(summary: CoordSummary) -> str:
    """The accuracy report of the coord task, in the published wording.

    A line on failures is added when the solver found no pose for some image.
    """
    r, t, c = summary.rotation_deg, summary.translation_m, summary.coord_error_m
    lines = ["Accuracy:"]
    lines += [f"{name}: {percent:.1f}%" for name, percent in summary.accuracy_percent.items()]
    lines += [
        f"Median Error: {r.median:.1f} deg, {t.median:.2f} m",
        f"Mean Errors: {r.mean:.1f} plus-minus {r.std:.1f} deg, {t.mean:.2f} plus-minus {t.std:.2f} m",
        f"Coordinate regression error: mean {c.mean:.1f}, std {c.std:.1f}, median {c.median:.1f}",
    ]
    if summary.failures:
        lines.append(f"No pose found: {summary.failures} of {summary.images} images (not in the mean errors)")
    return "\n".join(lines)


def depth_report(summary: Mapping[str, Spread]) -> str:
    """The report of the depth task, in the published wording."""
    relative, rms = summary["absolute_relative_percent"], summary["rms_m"]
    return (
        f"absolute relative error, mean: {relative.mean:.2f}%, median: {relative.median:.2f}%\n"
        f"RMS error, mean: {rms.mean:.2f}m, median: {rms.median:.2f}m"
    )


def normal_report(summary: Mapping[str, Spread]) -> str:
    """The report of the normal task, in the published wording."""
    angle = summary["angle_deg"]
    return f"angular prediction error, mean: {angle.mean:.1f} deg, median: {angle.median:.1f} deg"


def semantics_report(summary: Mapping[str, Spread]) -> str:
    """The report of the semantics task, in the published wording; percent."""
    titles = {
        "pixel_accuracy": "Pixel accuracy",
        "mean_iou": "Mean IoU",
        "frequency_weighted_iou": "Frequency weighted IoU",
    }
    return "\n".join(
        f"{title}, mean: {summary[name].mean:.2f}, median: {summary[name].median:.2f}"
        for name, title in titles.items()
    )


REPORTS: dict[str, Callable[[Any], str]] = {
    "coord": coord_report,
    "depth": depth_report,
    "normal": normal_report,
    "semantics": semantics_report,
}


def results_path(weights: Path, task: str) -> Path:
    """The text report of a weights file; its twin for machines ends in .json."""
    return weights.parent / f"results_{weights.stem}_task_{task}.txt"


def section_file(weights: Path, section: str, ending: str) -> Path:
    """A file beside the weights that belongs to one section."""
    return weights.parent / f"{section}_{weights.stem}_{ending}"


def write_results(
    weights: Path, task: str, section: str, summary: Any, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Appends a section's block to the text report and to its JSON twin, and writes one CSV row per image.

    Returns:
        the block, as text.
    """
    block = f"{section_header(section)}\n{REPORTS[task](summary)}\n"
    text = results_path(weights, task)
    record = {"section": section, "summary": _plain(summary), "settings": _plain(settings)}
    twin = text.with_suffix(".json")
    evaluations = read_evaluations(twin) if twin.is_file() else []
    table = section_file(weights, section, f"task_{task}.csv")
    with replacing(table) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with replacing(twin) as temporary:
        content = {"weights": weights.name, "task": task, "evaluations": [*evaluations, record]}
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    with text.open("a") as stream:
        stream.write(block)
    return block


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The evaluations kept in a JSON twin, oldest first.

    Raises:
        ValueError: the file is damaged; names it.
    """
    try:
        return list(json.loads(path.read_text())["evaluations"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"results file {path} is damaged ({error}); delete it and evaluate again") from None


def write_estimated_positions(
    weights: Path, section: str, names: Sequence[str], positions_N3: np.ndarray
) -> None:
    """Writes the estimated camera centres as [n, 3] array and as text, `file x y z` with 2 decimals; nan without pose."""
    array = section_file(weights, section, "out_xyz_poses.npy")
    with replacing(array) as temporary, temporary.open("wb") as stream:
        np.save(stream, positions_N3)
    with replacing(section_file(weights, section, "out_xyz_poses.txt")) as temporary:
        lines = (f"{name} {x:.2f} {y:.2f} {z:.2f}\n" for name, (x, y, z) in zip(names, positions_N3, strict=True))
        temporary.write_text("".join(lines))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path whose file takes the place of `path` when the block ends well, and vanishes otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """JSON-ready form: dataclasses as objects, what is not finite as null."""
    if is_dataclass(value):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
