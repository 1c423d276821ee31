"""Cumulative errors of evaluations, from the tables of images that `test_single_task.py` leaves beside the weights."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.pictures import figure, save_figure

# Task -> columns of the table, with title, unit and the published limit of the axis (None: by the data).
ERROR_COLUMNS: dict[str, dict[str, tuple[str, str, float | None]]] = {
    "coord": {
        "rotation_error_deg": ("Rotation error", "deg", 15.0),
        "translation_error_m": ("Translation error", "m", 100.0),
    },
    "depth": {"rms_m": ("RMS error", "m", None), "absolute_relative_percent": ("Relative error", "%", None)},
    "normal": {"angle_median_deg": ("Median angle", "deg", None), "angle_mean_deg": ("Mean angle", "deg", None)},
}
# Weights are called model..., ...ckpt_... or ...crossloc...; sections may hold underscores.
_TABLE_NAME = re.compile(
    r"(?P<section>.+?)_(?P<weights>(?:model|ckpt_|crossloc)[^/]*\.(?:net|safetensors))_task_(?P<task>[a-z]+)\.csv"
)
_SHOWN_SHARE = 0.99


@dataclass(frozen=True)
class Errors:
    """Errors of one weights file on one section, an image a value; infinite where there is no result for an image.

    Attributes:
        name: section and weights. errors: by column of the table.
    """

    name: str
    task: str
    errors: dict[str, np.ndarray]

    @property
    def images(self) -> int:
        return len(next(iter(self.errors.values())))


def find_tables(path: Path, sections: Sequence[str] = ()) -> list[Path]:
    """Tables of evaluations in a folder and below it that are of these sections, or the named one.

    Raises:
        FileNotFoundError: nothing is there, or nothing of these sections; says what is.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or folder: {path}")
    there = {p: match for p in sorted(path.rglob("*_task_*.csv")) if (match := _TABLE_NAME.fullmatch(p.name))}
    chosen = [p for p, match in there.items() if match["section"] in sections and match["task"] in ERROR_COLUMNS]
    if not chosen:
        found = sorted({match["section"] for match in there.values()})
        raise FileNotFoundError(
            f"no evaluation on {' or '.join(sections)} in {path}; there are: {', '.join(found) or 'none'}"
        )
    return chosen


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of every path, as many as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max((len(p) for p in parts), default=1) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names if parts else []


def is_table(path: Path) -> bool:
    """Whether a file is called like a table of an evaluation."""
    return _TABLE_NAME.fullmatch(path.name) is not None


def read_errors(tables: Sequence[Path]) -> list[Errors]:
    """The errors of several tables, under names that tell them apart.

    Raises:
        ValueError: one is not the table of a task with errors, is empty or damaged; names it.
    """
    tables = list(dict.fromkeys(tables))
    names = distinct_names([table.parent / table.name.partition("_task_")[0] for table in tables])
    return [_read_one(table, name) for table, name in zip(tables, names, strict=True)]


def _read_one(table: Path, name: str) -> Errors:
    match = _TABLE_NAME.fullmatch(table.name)
    if match is None:
        raise ValueError(f"{table} is no table of an evaluation: these are called SECTION_WEIGHTS.net_task_TASK.csv")
    columns = ERROR_COLUMNS.get(match["task"])
    if columns is None:
        raise ValueError(f"{table}: the task {match['task']} has no errors of images, unlike {', '.join(ERROR_COLUMNS)}")
    with table.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise ValueError(f"{table} holds no image")
    try:
        errors = {column: np.array([float(row[column]) for row in rows]) for column in columns}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{table} is damaged: {type(error).__name__} {error}") from None
    return Errors(name, match["task"], {k: np.where(np.isnan(v), math.inf, v) for k, v in errors.items()})


def cumulative(errors_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors in order, and the share of images in percent that are not above each; infinite ones never arrive."""
    finite_M = np.sort(errors_N[np.isfinite(errors_N)])
    return finite_M, 100 * np.arange(1, len(finite_M) + 1) / len(errors_N)


def draw_errors(results: Sequence[Errors], folder: Path, *, ending: str) -> list[Path]:
    """One picture a task: the share of images below every error, medians as vertical lines.

    Args:
        ending: png or svg.
    Returns:
        the pictures.
    """
    written = []
    for task, columns in ERROR_COLUMNS.items():
        of_task = [r for r in results if r.task == task]
        if not of_task:
            continue
        made = figure(12, 5.5)
        for axes, (column, (title, unit, most)) in zip(made.subplots(1, len(columns)), columns.items(), strict=True):
            for index, result in enumerate(of_task):
                _draw_one(
                    axes, result.errors[column], result.name if column == next(iter(columns)) else None, f"C{index % 10}"
                )
            axes.set_xlabel(f"{title} ({unit})")
            axes.set_ylabel("Images (%)")
            axes.set_ylim(0, 101)
            axes.set_xlim(0, _limit([r.errors[column] for r in of_task], most))
            axes.grid(alpha=0.3)
        made.legend(loc="outside upper center", fontsize=7)
        written.append(folder / f"results_info{'' if task == 'coord' else f'_{task}'}.{ending}")
        save_figure(made, written[-1], dpi=150)
    return written


def _draw_one(axes, errors_N: np.ndarray, label: str | None, colour: str) -> None:
    error_M, percent_M = cumulative(errors_N)
    axes.step(np.concatenate(([0.0], error_M)), np.concatenate(([0.0], percent_M)), where="post", color=colour, label=label)
    median = float(np.median(errors_N))
    if math.isfinite(median):
        axes.axvline(median, color=colour, linestyle="--", linewidth=0.8)


def _limit(errors: Sequence[np.ndarray], most: float | None) -> float:
    """Nearly all of every curve, but no farther than the published limit."""
    finite = [v[np.isfinite(v)] for v in errors]
    largest = max((float(np.quantile(v, _SHOWN_SHARE)) for v in finite if len(v)), default=1.0)
    return max(1e-6, min(1.05 * largest, most or math.inf))


def errors_table(results: Sequence[Errors]) -> list[dict[str, object]]:
    """Images, images without a result, and the medians by the task's columns."""
    return [
        {
            "evaluation": result.name,
            "images": result.images,
            "without_result": int(np.isinf(next(iter(result.errors.values()))).sum()),
            **{
                f"median_{column}": float(median) if np.isfinite(median := np.median(values)) else None
                for column, values in result.errors.items()
            },
        }
        for result in results
    ]
