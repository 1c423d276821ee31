"""The run's log: output.log for people and their tools, CSV and TensorBoard for machines, a bar for whoever waits."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from loss import LossResult
from training.run_folder import LOG_NAME

CSV_NAME = "training_log.csv"


def regression_line(task: str, regression: dict[str, float]) -> str:
    """The residual line of output.log, in the published wording."""
    if task == "coord":
        return f"Regression error: coord:  {regression['coord']:.2f}, reprojection:  {regression['reprojection']:.2f}"
    if task == "normal":
        radians, degrees = regression["normal"], regression["normal_angle_deg"]
        return f"Regression error: normal in radian:  {radians:.2f}, normal in degree: {degrees:.2f}"
    return f"Regression error: depth:  {regression['depth']:.2f}"


class TrainingLog:
    """Writes one record per logged step.

    Args:
        folder: the run's output folder.
        total_images: images of the whole run, for the progress bar.
        start_images: images seen before this process started.
    """

    def __init__(self, folder: Path, task: str, uncertainty: str, total_images: int, start_images: int):
        self.task, self.uncertainty = task, uncertainty
        self._text = (folder / LOG_NAME).open("a", buffering=1)
        csv_path = folder / CSV_NAME
        is_new = not csv_path.exists()
        self._csv_file = csv_path.open("a", newline="", buffering=1)
        self._csv = csv.writer(self._csv_file)
        self._csv_is_new = is_new
        self._board = SummaryWriter(str(folder / "tensorboard"))
        self.bar = tqdm(total=total_images, initial=start_images, unit="img", desc=f"train {task}", dynamic_ncols=True,
                        mininterval=1.0)
        self._since, self._steps = time.perf_counter(), 0

    def message(self, text: str) -> None:
        """A line of output.log."""
        self._text.write(text + "\n")

    def step_done(self, images: int) -> None:
        self._steps += 1
        self.bar.update(images)

    def record(self, result: LossResult, *, images_seen: int, epoch: int, learning_rate: float) -> None:
        """Logs the figures of the last step and the mean step time since the last record."""
        now = time.perf_counter()
        seconds = (now - self._since) / max(self._steps, 1)
        self._since, self._steps = now, 0
        total, valid = result.total.item(), 100 * result.valid_rate.item()
        regression = {name: value.item() for name, value in result.regression.items()}
        self.message(
            f"Iteration: {images_seen:7d}, Epoch: {epoch:3d}, Total loss: {total:.2f}, Valid: {valid:.1f}%, "
            f"Avg Time: {seconds:.3f}s"
        )
        if self.uncertainty == "mle":
            self.message(regression_line(self.task, regression))
        row = {"images_seen": images_seen, "epoch": epoch, "loss": total, "valid_percent": valid,
               **regression, "learning_rate": learning_rate, "seconds_per_step": seconds}
        if self._csv_is_new:
            self._csv.writerow(row)
            self._csv_is_new = False
        self._csv.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row.values())
        for name, value in row.items():
            if name not in ("images_seen", "epoch"):
                self._board.add_scalar(name, value, images_seen)
        figures = {name: f"{value:.2f}" for name, value in regression.items()}
        self.bar.set_postfix(epoch=epoch, loss=f"{total:.2f}", valid=f"{valid:.0f}%", **figures, refresh=False)

    def close(self) -> None:
        self.bar.close()
        self._board.close()
        self._text.close()
        self._csv_file.close()
