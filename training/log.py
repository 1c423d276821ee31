"""The run's log: output.log for people and their tools, CSV and TensorBoard for machines, a bar for whoever waits."""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from loss import LossResult
from training.going_back import NotFinite
from training.run_folder import LOG_NAME

CSV_NAME = "training_log.csv"
LOG_NAMES = (LOG_NAME, CSV_NAME)
# A picture takes a few hundredths of a second.
_PICTURE_EVERY_SECONDS = 30.0


def regression_line(task: str, regression: Mapping[str, float]) -> str:
    """The residual line of output.log, in the published wording; empty for a task without one."""
    wording = {
        "coord": "Regression error: coord:  {coord:.2f}, reprojection:  {reprojection:.2f}",
        "depth": "Regression error: depth:  {depth:.2f}",
        "normal": "Regression error: normal in radian:  {normal:.2f}, normal in degree: {normal_angle_deg:.2f}",
    }
    return wording[task].format(**regression) if task in wording else ""


def iteration_line(images_seen: int, epoch: int, loss: float, valid_percent: float, seconds: float) -> str:
    """The line of one step in output.log, in the published wording; seconds per image, without loading."""
    return (
        f"Iteration: {images_seen:7d}, Epoch: {epoch:3d}, Total loss: {loss:.2f}, Valid: {valid_percent:.1f}%, "
        f"Avg Time: {seconds:.3f}s"
    )


@dataclass(frozen=True)
class _Step:
    """One step whose figures may still be on their way from the device."""

    result: LossResult
    images_before: int
    stems: tuple[str, ...]
    epoch: int
    learning_rate: float


class StepFigures:
    """The figures of steps, which stay on the device until they are asked for; of processes that write no log."""

    def __init__(self) -> None:
        self._pending: list[_Step] = []
        self._busy_seconds = 0.0
        self._pictured_epoch, self._pictured_at = None, -math.inf

    def message(self, text: str) -> None:
        """Lines of output.log."""

    def step_done(
        self,
        result: LossResult,
        *,
        images_before: int,
        stems: tuple[str, ...],
        epoch: int,
        learning_rate: float,
        seconds: float,
    ) -> None:
        """Takes the figures of a step without looking at them.

        Args:
            images_before: images seen before the step.
            stems: of the step's images, in all processes.
            seconds: what the step took, without loading.
        """
        detached = LossResult(
            result.total.detach(), result.valid_rate.detach(), {k: v.detach() for k, v in result.regression.items()}
        )
        self._pending.append(_Step(detached, images_before, stems, epoch, learning_rate))
        self._busy_seconds += seconds

    @property
    def steps_waiting(self) -> int:
        return len(self._pending)

    def wants_picture(self, epoch: int) -> bool:
        """Whether a step should be drawn: the first one of an epoch, where epochs are not shorter than half a minute."""
        return epoch != self._pictured_epoch and time.monotonic() - self._pictured_at >= _PICTURE_EVERY_SECONDS

    def picture(self, grid_3HW: torch.Tensor, *, epoch: int, images_seen: int) -> None:
        """A picture for TensorBoard, uint8 RGB (see `training.pictures`)."""
        self._board.add_image("images", grid_3HW, images_seen)
        self._pictured_epoch, self._pictured_at = epoch, time.monotonic()

    def flush(self) -> None:
        """Looks at the steps that wait; one transfer from the device for all of them.

        Raises:
            NotFinite: the loss of one of them is NaN or infinite; it and the steps after it are not written.
        """
        if not self._pending:
            return
        steps, self._pending = self._pending, []
        names = list(steps[0].result.regression)
        started = time.perf_counter()
        rows = torch.stack([_figures(step.result, names) for step in steps]).tolist()
        seconds = (self._busy_seconds + time.perf_counter() - started) / sum(len(s.stems) for s in steps)
        self._busy_seconds = 0.0
        for step, (loss, valid, *values) in zip(steps, rows, strict=True):
            if not math.isfinite(loss):
                self._written()
                raise NotFinite(step.images_before, step.stems)
            self._write(step, loss, 100 * valid, dict(zip(names, values, strict=True)), seconds)
        self._written()

    def _write(
        self, step: _Step, loss: float, valid_percent: float, regression: Mapping[str, float], seconds: float
    ) -> None:
        """One step, after it turned out to be finite."""

    def _written(self) -> None:
        """The steps that waited are written."""

    def sizes(self) -> dict[str, int]:
        """Bytes of the logs now, for `kept_bytes` of a later process; everything that waited must be flushed."""
        return {}

    def close(self) -> None:
        """Ends the log."""


class TrainingLog(StepFigures):
    """One line, one CSV row and one TensorBoard point per step, written ten steps at a time so that no step waits.

    Args:
        folder: the run's output folder.
        total_images: images of the whole run, for the progress bar.
        start_images: images seen before this process started.
        kept_bytes: the logs are cut back to these sizes (by name, absent: empty) before anything is added.
    """

    def __init__(self, folder: Path, task: str, total_images: int, start_images: int, kept_bytes: Mapping[str, int]):
        super().__init__()
        self.task, self._folder = task, folder
        for name in LOG_NAMES:
            _cut(folder / name, kept_bytes.get(name, 0))
        self._text = (folder / LOG_NAME).open("a", buffering=1)
        self._csv_file = (folder / CSV_NAME).open("a", newline="")
        self._csv = csv.writer(self._csv_file)
        board = folder / "tensorboard"
        if start_images == 0:
            shutil.rmtree(board, ignore_errors=True)
        self._board = SummaryWriter(str(board), purge_step=start_images + 1)
        self.bar = tqdm(
            total=total_images, initial=start_images, unit="img", desc=f"train {task}", dynamic_ncols=True, mininterval=1.0
        )

    def message(self, text: str) -> None:
        now = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        self._text.writelines(f"{now}, INFO: {line}\n" for line in text.splitlines())

    def step_done(self, result: LossResult, **of_step: Any) -> None:
        super().step_done(result, **of_step)
        self.bar.update(len(of_step["stems"]))

    def _write(
        self, step: _Step, loss: float, valid_percent: float, regression: Mapping[str, float], seconds: float
    ) -> None:
        images_seen = step.images_before + len(step.stems)
        if residual := regression_line(self.task, regression):
            self.message(residual)
        self.message(iteration_line(images_seen, step.epoch, loss, valid_percent, seconds))
        figures = {name: f"{value:.2f}" for name, value in regression.items()}
        self.bar.set_postfix(epoch=step.epoch, loss=f"{loss:.2f}", valid=f"{valid_percent:.0f}%", **figures, refresh=False)
        row = {
            "images_seen": images_seen,
            "epoch": step.epoch,
            "loss": loss,
            "valid_percent": valid_percent,
            **regression,
            "learning_rate": step.learning_rate,
            "seconds_per_image": seconds,
        }
        if self._csv_file.tell() == 0:
            self._csv.writerow(row)
        self._csv.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row.values())
        for name, value in row.items():
            if name not in ("images_seen", "epoch"):
                self._board.add_scalar(name, value, images_seen)

    def _written(self) -> None:
        self._csv_file.flush()

    def sizes(self) -> dict[str, int]:
        self._csv_file.flush()
        self._board.flush()
        return {name: os.path.getsize(self._folder / name) for name in LOG_NAMES}

    def close(self) -> None:
        self.bar.close()
        self._board.close()
        self._text.close()
        self._csv_file.close()


def _figures(result: LossResult, names: list[str]) -> torch.Tensor:
    return torch.stack([result.total, result.valid_rate, *(result.regression[name] for name in names)]).float()


def _cut(path: Path, size: int) -> None:
    """Cuts a log back to the position that the run continues from."""
    if path.is_file() and path.stat().st_size > size:
        os.truncate(path, size)
