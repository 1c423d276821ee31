"""Where a run keeps its files, and where a run starts: fresh, resumed, extended or already done."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from networks import load_state_dict, save_network
from records.files import exclusive
from runs.record import RECORD_NAME, RunRecord, differences, read_record, write_record
from runs.search import iteration_of
from training.names import run_name
from training.options import TrainingOptions
from training.state import load_state, record_in

logger = logging.getLogger(__name__)

DONE_FLAG = "FLAG_training_done.nodata"
LOG_NAME = "output.log"
STATE_NAME = "resume_state.pt"
_PUBLISHED_ITERATION = re.compile(r"Iteration:\s*(\d+)")
_LATEST_WEIGHTS = ("model_auto_resume.net", "model_epoch_plus_resume.net", "model_resume.net", "model.net")


@dataclass(frozen=True)
class RunFolder:
    """Folders of one run, as published: logs and the latest weights in `output`, numbered ones in `checkpoints`."""

    output: Path
    checkpoints: Path
    latest_name: str = "model.net"

    @property
    def both(self) -> list[Path]:
        return sorted({self.output, self.checkpoints})

    @property
    def latest(self) -> Path:
        return self.output / self.latest_name

    @property
    def state(self) -> Path:
        return self.checkpoints / STATE_NAME

    @property
    def done(self) -> bool:
        return (self.checkpoints / DONE_FLAG).exists()

    @property
    def exists(self) -> bool:
        """Whether a run has left files here; hidden ones, such as a lock, do not count."""
        return any(not p.name.startswith(".") for folder in self.both if folder.is_dir() for p in folder.iterdir())

    def record(self) -> RunRecord | None:
        """The record of what is here; None for an empty folder and for a run of the published system."""
        path = self.checkpoints / RECORD_NAME
        return read_record(path) if path.is_file() else None

    def save_checkpoint(self, net: nn.Module, images_seen: int) -> None:
        save_network(net, self.checkpoints / f"ckpt_iter_{images_seen:07d}.net")

    def mark_done(self) -> None:
        for folder in self.both:
            (folder / DONE_FLAG).touch()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folders and keeps other processes out of them; a run that never came to be leaves nothing behind.

        Raises:
            PermissionError: a folder cannot be written.
            BlockingIOError: another process trains this run.
        """
        made = [folder for path in self.both for folder in (path, *path.parents) if not folder.exists()]
        for folder in self.both:
            _make_writable(folder)
        lock = self.checkpoints / STATE_NAME
        try:
            with exclusive(lock, f"another process is training {self.checkpoints}"):
                yield
        finally:
            if not self.exists:
                lock.with_name(f".{lock.name}.lock").unlink(missing_ok=True)
                for folder in made:
                    if folder.is_dir() and not any(folder.iterdir()):
                        folder.rmdir()


@dataclass(frozen=True)
class StartingPoint:
    """What the loop continues from; all None for a fresh run.

    Attributes:
        state: an exact training state (see `training.state`).
        weights: published-form weights when only those are known, with `images_seen` images behind them.
        logs_from: folder of an extended run's logs, to be continued.
    """

    state: dict[str, Any] | None = None
    weights: dict[str, torch.Tensor] | None = None
    images_seen: int = 0
    logs_from: Path | None = None


def folder_of(options: TrainingOptions) -> RunFolder:
    """Where the run of these options keeps its files; touches nothing."""
    name = run_name(options)
    return RunFolder(options.output_dir / name, (options.ckpt_dir or options.output_dir) / name)


def choose_start(options: TrainingOptions, run: RunFolder, record: RunRecord) -> tuple[RunFolder, StartingPoint]:
    """What the run continues from; touches nothing.

    Raises:
        FileExistsError: a run of this name exists and neither --auto_resume nor --epoch_plus was given.
        FileNotFoundError: --epoch_plus found no finished predecessor.
        ValueError: the run that exists is another one; names every difference.
    """
    if run.exists and not options.auto_resume:
        if options.epoch_plus:
            raise FileExistsError(
                f"run {record.name} exists already in {run.checkpoints}: nothing to extend, use --auto_resume"
            )
        raise FileExistsError(f"output folder exists: {run.output}; continue with --auto_resume or choose another --session")
    if options.epoch_plus:
        predecessor = _predecessor(options, record)
        return replace(run, latest_name="model_epoch_plus_resume.net"), _extended(predecessor, record)
    if run.exists:
        start = _found(run, record)
        if start.state is not None or start.weights is not None:
            return replace(run, latest_name="model_auto_resume.net"), start
    fresh_name = "model.net" if options.network_in is None else "model_resume.net"
    return replace(run, latest_name=fresh_name), StartingPoint()


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"cannot write to {folder}: {error.strerror}") from None


def _found(run: RunFolder, record: RunRecord) -> StartingPoint:
    if run.state.is_file():
        state = load_state(run.state)
        check_same_run(record_in(state, run.state), record, run)
        return StartingPoint(state=state)
    kept = run.record()
    if kept is not None:
        check_same_run(kept, record, run)
    return _weights_only(run)


def check_same_run(
    before: RunRecord, now: RunRecord, run: RunFolder, *, ignore: tuple[str, ...] = (), name_flag: str = "--session"
) -> None:
    """Refuses to continue a run as another one.

    Args:
        name_flag: the flag that gives another run a name of its own.
    Raises:
        ValueError: names every option, section and input that differs.
    """
    found = differences(before, now, ignore=ignore)
    if found:
        raise ValueError(
            f"{run.checkpoints} holds another run of this name: {'; '.join(map(str, found))}. "
            f"Ask for the same again, give the new run a name of its own with {name_flag}, or delete the folder"
        )
    changed = [k for k in now.software if before.software.get(k, now.software[k]) != now.software[k]]
    if changed:
        told = ", ".join(f"{k} {before.software[k]} -> {now.software[k]}" for k in changed)
        logger.warning("the run continues with other software (%s): the last bits may differ", told)


def _weights_only(run: RunFolder) -> StartingPoint:
    """The newest weights of a run without an exact state, as the published system leaves it."""
    numbered = {iteration_of(p): p for p in run.checkpoints.glob("ckpt_iter_*.net") if iteration_of(p) is not None}
    newest = max(((n, path) for n, path in numbered.items()), default=None)
    latest = next((run.output / name for name in _LATEST_WEIGHTS if (run.output / name).is_file()), None)
    seen = _images_in_log(run.output / LOG_NAME)
    if latest is not None and seen is not None and (newest is None or seen > newest[0]):
        return StartingPoint(weights=load_state_dict(latest), images_seen=seen)
    if newest is None:
        return StartingPoint()
    return StartingPoint(weights=load_state_dict(newest[1]), images_seen=newest[0])


def _images_in_log(log: Path) -> int | None:
    """Images of the last iteration line: the only place where a published run says how far its latest weights are."""
    if not log.is_file():
        return None
    found = _PUBLISHED_ITERATION.findall(log.read_text(errors="replace"))
    return int(found[-1]) if found else None


def _predecessor(options: TrainingOptions, record: RunRecord) -> RunFolder:
    """The finished run of the same options with the most epochs below those asked for."""
    pattern = re.compile(re.escape(run_name(options, epochs="EPOCHS")).replace("eEPOCHS", r"e(\d+)"))
    parent = options.ckpt_dir or options.output_dir
    finished: dict[int, RunFolder] = {}
    for folder in parent.iterdir() if parent.is_dir() else ():
        match = pattern.fullmatch(folder.name)
        run = RunFolder(options.output_dir / folder.name, folder)
        if match and int(match[1]) < options.epochs and run.done:
            finished[int(match[1])] = run
    if not finished:
        raise FileNotFoundError(f"--epoch_plus: no finished run like {run_name(options)} with fewer epochs in {parent}")
    run = finished[max(finished)]
    kept = run.record()
    if kept is not None:
        check_same_run(kept, record, run, ignore=("epochs",))
    return run


def _extended(predecessor: RunFolder, record: RunRecord) -> StartingPoint:
    """The end of the shorter run, under the longer one's record."""
    start = StartingPoint(state=load_state(predecessor.state)) if predecessor.state.is_file() else _weights_only(predecessor)
    if start.state is None and start.weights is None:
        raise FileNotFoundError(f"--epoch_plus: {predecessor.checkpoints} holds neither a training state nor weights")
    return replace(start, logs_from=predecessor.output)


def write_records(run: RunFolder, record: RunRecord) -> None:
    """Puts the record beside the weights of both folders."""
    for folder in run.both:
        write_record(folder, record)
