"""Curves of trainings: loss, valid rate and task error over images and epochs, from our CSV or from any output.log."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from evaluation.error_curves import distinct_names
from evaluation.pictures import figure, save_figure
from runs.search import run_in
from training.log import CSV_NAME
from training.run_folder import LOG_NAME

# The column of the CSV that is the task's error, and its unit; semantics has none beside its valid rate.
TASK_ERRORS = {"coord": ("coord", "m"), "depth": ("depth", "m"), "normal": ("normal_angle_deg", "deg")}
PUBLISHED_SMOOTHING = 125
_MOST_SMOOTHING_SHARE = 0.1
_NUMBER = r"(-?(?:\d+\.?\d*|inf|nan))"
_ITERATION = re.compile(
    rf"Iteration:\s*(\d+), Epoch:\s*(\d+), Total loss:\s*{_NUMBER}, Valid:\s*{_NUMBER}%",
)
_REGRESSION = re.compile(
    rf"Regression error: (?:(coord|depth):\s*{_NUMBER}|normal in radian:.*?normal in degree:\s*{_NUMBER})"
)
_TASK_IN_NAME = re.compile(r"-(coord|depth|normal|semantics)-")


@dataclass(frozen=True)
class Curve:
    """What a run logged, a value a step.

    Attributes:
        name: of the run's folder. task: None where nothing says.
        images_N: seen after the step. epochs_N: begun, with the share of the present one.
        error_N: of the task, in `error_unit`; None where the log has none. Values are NaN where one step has none.
    """

    name: str
    task: str | None
    images_N: np.ndarray
    epochs_N: np.ndarray
    loss_N: np.ndarray
    valid_percent_N: np.ndarray
    error_N: np.ndarray | None

    @property
    def error_unit(self) -> str:
        return TASK_ERRORS[self.task][1] if self.task in TASK_ERRORS else ""


@dataclass(frozen=True)
class _Row:
    images: int
    epoch: int
    loss: float
    valid_percent: float
    error: float


def find_logs(path: Path, keywords: Sequence[str] = ()) -> list[Path]:
    """Logs in a folder and below it, one a run folder, or the named one.

    Args:
        keywords: all of them must occur in the run folder's name; one with a leading ! must not.
    Raises:
        FileNotFoundError: nothing is there, or nothing passes; says what was there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"no such file or folder: {path}")
    folders = sorted({found.parent for name in (CSV_NAME, f"*{LOG_NAME}*") for found in path.rglob(name)})
    chosen = [f for f in folders if all((k.removeprefix("!") in f.resolve().name) != k.startswith("!") for k in keywords)]
    if not chosen:
        there = ", ".join(folder.name for folder in folders[:5]) + (" ..." if len(folders) > 5 else "")
        wanted = f" whose folder's name fits {' '.join(keywords)}" if keywords else ""
        raise FileNotFoundError(
            f"no {CSV_NAME} or {LOG_NAME} in {path}{wanted}" + (f"; there are: {there}" if there else "")
        )
    return [_log_of(folder) for folder in chosen]


def _log_of(folder: Path) -> Path:
    """The CSV where there is one with rows: it is exact, and the text is not."""
    table = folder / CSV_NAME
    if table.is_file() and table.stat().st_size > 0:
        return table
    return next(iter([p for p in [folder / LOG_NAME] if p.is_file()] or sorted(folder.glob(f"*{LOG_NAME}*"))))


def read_curves(logs: Iterable[Path]) -> list[Curve]:
    """The curves of several logs under names that tell them apart, with a progress bar.

    Raises:
        ValueError: a file is no log of a training, or holds no step; names it.
    """
    logs = list(dict.fromkeys(logs))
    names = distinct_names([log.parent for log in logs])
    bar = tqdm(logs, desc="read logs", unit="run", leave=False, dynamic_ncols=True, disable=len(logs) < 8)
    return [replace(read_curve(log), name=name) for log, name in zip(bar, names, strict=True)]


def read_curve(log: Path) -> Curve:
    """The curve of one log: of our CSV by its header, else of an output.log by its published lines."""
    try:
        with log.open(encoding="utf-8", errors="replace", newline="") as stream:
            is_table = stream.readline().startswith("images_seen,")
            stream.seek(0)
            task, rows = _read_table(csv.DictReader(stream)) if is_table else _read_text(stream)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{log} is damaged: {error}") from None
    rows = _without_repeated(rows)
    if not rows:
        raise ValueError(f"{log} holds no step of a training; expected {CSV_NAME}, or lines 'Iteration: ..., Epoch: ...'")
    folder = log.resolve().parent
    task = task or _task_of(folder)
    error_N = np.array([row.error for row in rows]) if task in TASK_ERRORS else None
    return Curve(
        folder.name,
        task,
        np.array([row.images for row in rows]),
        _epochs(rows),
        np.array([row.loss for row in rows]),
        np.array([row.valid_percent for row in rows]),
        None if error_N is None or np.isnan(error_N).all() else error_N,
    )


def _read_table(reader: csv.DictReader) -> tuple[str | None, list[_Row]]:
    columns = reader.fieldnames or ()
    task = next((task for task, (column, _) in TASK_ERRORS.items() if column in columns), None)
    error = TASK_ERRORS[task][0] if task else None
    rows = []
    for row in reader:
        if row["seconds_per_image"] is None:
            break  # the line that is being written
        value = float(row[error]) if error else np.nan
        rows.append(_Row(int(row["images_seen"]), int(row["epoch"]), float(row["loss"]), float(row["valid_percent"]), value))
    return task, rows


def _read_text(lines: Iterable[str]) -> tuple[str | None, list[_Row]]:
    """The residual of a step stands in a line before the one of its iteration."""
    task, error, rows = None, np.nan, []
    for line in lines:
        if found := _REGRESSION.search(line):
            task = found[1] or "normal"
            error = float(found[2] or found[3])
        elif found := _ITERATION.search(line):
            rows.append(_Row(int(found[1]), int(found[2]), float(found[3]), float(found[4]), error))
            error = np.nan
    return task, rows


def _without_repeated(rows: Sequence[_Row]) -> list[_Row]:
    """A resumed run of the published system begins its epoch again: what it had logged of it is gone with its weights."""
    kept: list[_Row] = []
    for row in rows:
        while kept and kept[-1].images >= row.images:
            kept.pop()
        kept.append(row)
    return kept


def _task_of(folder: Path) -> str | None:
    try:
        run = run_in(folder)
    except ValueError:
        run = None
    if run is not None:
        return run.task
    match = _TASK_IN_NAME.search(folder.name)
    return match[1] if match else None


def _epochs(rows: Sequence[_Row]) -> np.ndarray:
    """Epochs with their shares; an epoch that is under way is taken to have as many steps as the one before."""
    epoch_N = np.array([row.epoch for row in rows])
    first, counts = {}, {}
    for position, epoch in enumerate(epoch_N):
        first.setdefault(epoch, position)
        counts[epoch] = position - first[epoch] + 1
    last = epoch_N[-1]
    if last - 1 in counts:
        counts[last] = max(counts[last], counts[last - 1])
    return np.array([epoch + (i - first[epoch] + 1) / counts[epoch] for i, epoch in enumerate(epoch_N)])


def smoothed(x_N: np.ndarray, y_N: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Moving averages of both over at most a tenth of the steps; steps without a finite value are left out."""
    finite_N = np.isfinite(y_N)
    x_N, y_N = x_N[finite_N], y_N[finite_N]
    window = max(1, min(window, int(_MOST_SMOOTHING_SHARE * len(y_N))))
    sums = (np.concatenate(([0.0], np.cumsum(v, dtype=np.float64))) for v in (x_N, y_N))
    x_M, y_M = ((total[window:] - total[:-window]) / window for total in sums)
    return x_M, y_M


def draw_curves(curves: Sequence[Curve], folder: Path, *, ending: str, window: int = PUBLISHED_SMOOTHING) -> list[Path]:
    """Draws every figure that a curve has over images and over epochs, under the published names.

    Args:
        ending: png or svg.
    Returns:
        the pictures.
    """
    written = []
    for x_name, x_label in (("iter", "Images seen"), ("epoch", "Epochs")):
        for y_name, y_label in (("loss", "Loss value"), ("valid", "Valid pixel ratio (%)"), ("task_error", "Task error")):
            series = [(c, values) for c in curves if (values := _values(c, y_name)) is not None]
            if not series:
                continue
            made = figure(10, 6)
            axes = made.subplots()
            lowest = np.inf
            for curve, values_N in series:
                x_M, y_M = smoothed(curve.images_N if x_name == "iter" else curve.epochs_N, values_N, window)
                unit = f" ({curve.error_unit})" if y_name == "task_error" else ""
                axes.plot(x_M, y_M, label=f"{curve.name}{unit}", linewidth=1.2)
                lowest = min(lowest, y_M.min(initial=np.inf))
            if y_name == "task_error" and lowest > 0:
                axes.set_yscale("log")  # errors fall by orders of magnitude
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.grid(alpha=0.3)
            if y_name == "valid":
                axes.set_ylim(top=100)
            made.legend(loc="outside upper center", fontsize=7)
            written.append(folder / f"training_info_{y_name}_by_{x_name}.{ending}")
            save_figure(made, written[-1], dpi=150)
    return written


def _values(curve: Curve, name: str) -> np.ndarray | None:
    return {"loss": curve.loss_N, "valid": curve.valid_percent_N, "task_error": curve.error_N}[name]


def curves_table(curves: Sequence[Curve], window: int = PUBLISHED_SMOOTHING) -> list[dict[str, object]]:
    """Where every curve ends: the last smoothed values."""

    def last(x_N: np.ndarray, y_N: np.ndarray | None) -> float | None:
        if y_N is None or not np.isfinite(y_N).any():
            return None
        return float(smoothed(x_N, y_N, window)[1][-1])

    return [
        {
            "run": curve.name,
            "task": curve.task,
            "images": int(curve.images_N[-1]),
            "epochs": float(curve.epochs_N[-1]),
            "loss": last(curve.images_N, curve.loss_N),
            "valid_percent": last(curve.images_N, curve.valid_percent_N),
            "error": last(curve.images_N, curve.error_N),
            "unit": curve.error_unit,
        }
        for curve in curves
    ]
