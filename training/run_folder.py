"""Where a run keeps its files, and where a run starts: fresh, resumed, extended or already done."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from networks import TransPoseNet, load_state_dict, save_network
from training.names import run_name
from training.optimizer import Optimizer
from training.options import TrainingOptions

DONE_FLAG = "FLAG_training_done.nodata"
LOG_NAME = "output.log"
STATE_NAME = "resume_state.pt"
_STATE_VERSION = 2


@dataclass(frozen=True)
class RunFolder:
    """Folders of one run and the name of its latest weights."""

    output: Path
    checkpoints: Path
    latest_name: str

    @property
    def latest(self) -> Path:
        return self.checkpoints / self.latest_name

    @property
    def state(self) -> Path:
        return self.checkpoints / STATE_NAME

    @property
    def done(self) -> bool:
        return (self.checkpoints / DONE_FLAG).exists()

    def save_checkpoint(self, net: TransPoseNet, images_seen: int) -> None:
        save_network(net, self.checkpoints / f"ckpt_iter_{images_seen:07d}.net")

    def mark_done(self) -> None:
        for folder in {self.output, self.checkpoints}:
            (folder / DONE_FLAG).touch()


@dataclass(frozen=True)
class StartingPoint:
    """What the loop continues from; all None for a fresh run.

    Attributes:
        state: an exact training state (see `save_state`).
        weights: published-form weights when only those are known, with `images_seen` images behind them.
    """

    state: dict | None = None
    weights: dict[str, torch.Tensor] | None = None
    images_seen: int = 0


def open_run(options: TrainingOptions) -> tuple[RunFolder, StartingPoint]:
    """Makes the run's folders and finds its starting point.

    Raises:
        FileExistsError: a run of this name exists and neither --auto_resume nor --epoch_plus was given.
        FileNotFoundError: --epoch_plus found no finished predecessor.
        PermissionError: a folder cannot be written.
    """
    name = run_name(options)
    output, checkpoints = options.output_dir / name, (options.ckpt_dir or options.output_dir) / name
    fresh_name = "model.net" if options.network_in is None else "model_resume.net"
    exists = any(folder.is_dir() and any(folder.iterdir()) for folder in (output, checkpoints))
    if exists and not options.auto_resume:
        if options.epoch_plus:
            raise FileExistsError(f"run {name} exists already in {checkpoints}: nothing to extend, use --auto_resume")
        raise FileExistsError(f"output folder exists: {output}; continue with --auto_resume or choose another --session")

    predecessor = _predecessor(options, checkpoints.parent) if options.epoch_plus else None
    for folder in {output, checkpoints}:
        _make_writable(folder)
    if predecessor is not None:
        for log in (options.output_dir / predecessor.name / LOG_NAME, predecessor / LOG_NAME):
            if log.is_file():
                shutil.copy(log, output / LOG_NAME)
                break
        return RunFolder(output, checkpoints, "model_epoch_plus_resume.net"), _starting_point(predecessor)
    if exists:
        start = _starting_point(checkpoints)
        if start.state is not None or start.weights is not None:
            return RunFolder(output, checkpoints, "model_auto_resume.net"), start
    return RunFolder(output, checkpoints, fresh_name), StartingPoint()


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"cannot write to {folder}: {error.strerror}") from None


def _predecessor(options: TrainingOptions, parent: Path) -> Path:
    pattern = re.compile(re.escape(run_name(options, epochs="EPOCHS")).replace("eEPOCHS", r"e(\d+)"))
    finished = {}
    for folder in parent.iterdir() if parent.is_dir() else ():
        match = pattern.fullmatch(folder.name)
        if match and int(match[1]) < options.epochs and (folder / DONE_FLAG).exists():
            finished[int(match[1])] = folder
    if not finished:
        raise FileNotFoundError(f"--epoch_plus: no finished run like {run_name(options)} with fewer epochs in {parent}")
    return finished[max(finished)]


def _starting_point(checkpoints: Path) -> StartingPoint:
    if (checkpoints / STATE_NAME).is_file():
        return StartingPoint(state=load_state(checkpoints / STATE_NAME))
    # A folder of the published system has no exact state: take the weights with the largest image count.
    numbered = {int(p.stem.rsplit("_", 1)[1]): p for p in checkpoints.glob("ckpt_iter_*.net")}
    if not numbered:
        return StartingPoint()
    return StartingPoint(weights=load_state_dict(numbered[max(numbered)]), images_seen=max(numbered))


def save_state(
    path: Path, net: TransPoseNet, optimizer: Optimizer, *, images_seen: int, epoch: int, batch: int
) -> None:
    """Saves everything that the rest of the run depends on, atomically.

    The order of samples, the augmentation and the learning rate are pure functions of seed and position, so the position
    (epoch, batch in the epoch, images seen) stands for their state; torch's generators are kept besides.
    """
    state = {
        "version": _STATE_VERSION,
        "network": net.state_dict(),
        "head_scale": net.head_scale,
        "optimizer_kind": type(optimizer).__name__,
        "optimizer": optimizer.state_dict(),
        "images_seen": images_seen,
        "epoch": epoch,
        "batch": batch,
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path) -> dict:
    """Reads a training state; ValueError naming the file when it is damaged or of another version."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every unpickling failure means the same to the user
        raise ValueError(f"cannot read training state {path}: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or state.get("version") != _STATE_VERSION:
        raise ValueError(f"training state {path} is of another version; delete it to restart from the last checkpoint")
    return state


def restore(state: dict, net: TransPoseNet, optimizer: Optimizer) -> None:
    """Puts a saved state into network, optimizer and random generators; ValueError for another optimizer's state."""
    if state["optimizer_kind"] != type(optimizer).__name__:
        raise ValueError(
            f"the run was trained by {state['optimizer_kind']}, not by {type(optimizer).__name__}: "
            "continue it with the --optimizer it was started with"
        )
    net.head_scale = state["head_scale"]
    net.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] and torch.cuda.device_count() == len(state["cuda_rng"]):
        torch.cuda.set_rng_state_all(state["cuda_rng"])
