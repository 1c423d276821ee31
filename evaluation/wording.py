"""The reports' text, in the published wording, which other people's tools parse."""

from __future__ import annotations

import math
from collections.abc import Mapping

from evaluation.metrics import CoordSummary, Spread

# What stands for a figure that is not finite: the published parsers read numbers only.
NOT_FINITE = "999999.00"


def section_header(section: str) -> str:
    """The line that opens a section's block in a report."""
    return f"==================== Evaluation on section {section} ===================="


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else NOT_FINITE


def coord_report(summary: CoordSummary) -> str:
    """The accuracy report of the coord task.

    After it stands the share of images without a pose, when there are any.
    """
    r, t, c = summary.rotation_deg, summary.translation_m, summary.coord_error_m
    lines = ["Accuracy:"]
    lines += [f"{name}: {percent:.1f}%" for name, percent in summary.accuracy_percent.items()]
    lines += [
        f"Median Error: {_number(r.median, 1)} deg, {_number(t.median, 2)} m",
        f"Mean Errors: {_number(r.mean, 1)} plus-minus {_number(r.std, 1)} deg, "
        f"{_number(t.mean, 2)} plus-minus {_number(t.std, 2)} m",
        f"Coordinate regression error: mean {_number(c.mean, 1)}, std {_number(c.std, 1)}, median {_number(c.median, 1)}",
    ]
    if summary.failures:
        percent = 100 * summary.failures / summary.images
        lines.append(
            f"Images without a pose: {percent:.1f}% ({summary.failures} of {summary.images}; not in the mean errors)"
        )
    return "\n".join(lines)


def depth_report(summary: Mapping[str, Spread]) -> str:
    """The report of the depth task."""
    relative, rms = summary["absolute_relative_percent"], summary["rms_m"]
    return (
        f"absolute relative error, mean: {_number(relative.mean, 2)}%, median: {_number(relative.median, 2)}%\n"
        f"RMS error, mean: {_number(rms.mean, 2)}m, median: {_number(rms.median, 2)}m"
    )


def normal_report(summary: Mapping[str, Spread]) -> str:
    """The report of the normal task; as published, mean and median of the means of batches of 4 images."""
    angle = summary["batch_angle_deg"]
    return f"angular prediction error, mean: {_number(angle.mean, 1)} deg, median: {_number(angle.median, 1)} deg"


def semantics_report(summary: Mapping[str, Spread]) -> str:
    """The report of the semantics task; percent."""
    titles = {
        "pixel_accuracy": "Pixel accuracy",
        "mean_iou": "Mean IoU",
        "frequency_weighted_iou": "Frequency weighted IoU",
    }
    return "\n".join(
        f"{title}, mean: {_number(summary[name].mean, 2)}, median: {_number(summary[name].median, 2)}"
        for name, title in titles.items()
    )
